"""Choices, fan-outs and failures in problems: what is refused, and JSON round trips."""

from __future__ import annotations

from typing import Any

import pytest

from fate_gym.errors import InputError
from fate_gym.problem import Problem, dump_problem, parse_problem
from fate_gym.problem.problem import problem_from


def data(**workflow: Any) -> dict[str, Any]:
    return {
        "cluster": {"id": "c", "devices": [{"id": "p"}, {"id": "q"}]},
        "workflows": [
            {
                "id": "w",
                "stages": [{"id": name, "tool_seconds": 1.0} for name in "abcd"],
                "edges": [{"parent": "a", "child": "b"}, {"parent": "b", "child": "c"}],
            }
            | workflow
        ],
    }


def choice(*options: tuple[float, list[str]], after: str = "a") -> dict[str, Any]:
    return {
        "after": after,
        "options": [{"probability": share, "stages": stages} for share, stages in options],
    }


def fan_out(replicas: list[list[str]], weights: list[float], after: str = "a") -> dict[str, Any]:
    return {"after": after, "replicas": replicas, "weights": weights}


def test_json_keeps_everything() -> None:
    given = data(choices=[choice((0.3, ["b"]), (0.7, []))], fan_outs=[fan_out([["c"]], [1], "b")])
    given["options"] = {
        "length_uncertainty": 0.5,
        "failures": {"outages": [{"device": "p", "at": 1.0, "seconds": 2.0}]},
    }
    problem = problem_from(given, "test")
    assert parse_problem(dump_problem(problem)) == problem
    assert problem.workflows[0].lives["b"] == ("a", 0.0, 0.3)


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"choices": [choice((1.0, ["b"]), after="x")]}, "choices.after", "unknown stage 'x'"),
        ({"choices": [choice((1.0, ["x"]))]}, "choices.stages", "unknown stage 'x'"),
        (
            {"choices": [choice((0.5, ["b"]), (0.4, []))]},
            "choices.options.probability",
            "sum to 0.9",
        ),
        ({"choices": [choice((0.5, ["b"]), (0.5, ["b"]))]}, "choices.stages", "drawn twice"),
        ({"choices": [choice((1.0, ["d"]))]}, "choices.stages", "does not come after 'a'"),
        ({"choices": [choice((1.0, ["a"]))]}, "choices.stages", "does not come after 'a'"),
        (
            {"choices": [choice((1.0, ["b"]))], "fan_outs": [fan_out([["c"]], [1.0])]},
            "fan_outs.after",
            "decides twice",
        ),
        ({"fan_outs": [fan_out([["b"], ["c"]], [1.0])]}, "fan_outs.weights", "1 weights for 2"),
        ({"fan_outs": [fan_out([["b"]], [0.5])]}, "fan_outs.weights", "sum to 0.5"),
        ({"fan_outs": [fan_out([["b"], ["b"]], [0.5, 0.5])]}, "fan_outs.stages", "drawn twice"),
    ],
)
def test_bad_choices(fields: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        problem_from(data(**fields), "file.json")
    error = raised.value
    assert error.field == field
    assert "workflow 'w'" in str(error)
    assert error.remedy


@pytest.mark.parametrize(
    ("failures", "message"),
    [
        ({}, "needs either"),
        ({"mtbf_s": 1.0}, "needs either"),
        ({"mtbf_s": 1.0, "mttr_s": 0.0}, "greater than or equal to 0.000001"),
        (
            {"mtbf_s": 1, "mttr_s": 1, "outages": [{"device": "p", "at": 1, "seconds": 2}]},
            "needs either",
        ),
        ({"outages": [{"device": "x", "at": 1.0, "seconds": 2.0}]}, "unknown device 'x'"),
        ({"outages": [{"device": "p", "at": 1.0, "seconds": 0.0}]}, "greater than or equal to"),
        (
            {
                "outages": [
                    {"device": "p", "at": 3.0, "seconds": 2.0},
                    {"device": "p", "at": 1.0, "seconds": 2.0},
                ]
            },
            "fails at 3 s, when it is not up",
        ),
    ],
)
def test_bad_failures(failures: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        problem_from(data() | {"options": {"failures": failures}}, "file.json")


def test_probabilities_may_be_rounded() -> None:
    thirds = [(1 / 3, ["b"]), (1 / 3, ["c"]), (1 / 3, [])]
    problem = problem_from(data(choices=[choice(*thirds)]), "file.json")
    assert isinstance(problem, Problem)
    assert problem.workflows[0].lives["c"].low == 1 / 3
