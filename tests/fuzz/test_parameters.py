"""Parameters of policies: accepted ones give a policy that plays in bounded time and memory."""

from __future__ import annotations

import inspect
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from fate_gym.errors import InputError
from fate_gym.problem import Cluster, Device, Edge, Problem, Stage, Workflow
from fate_gym.sim import CompiledProblem, Simulator, compile_problem
from policies.registry import build_policy, make_policy, parameters_of, policy_class, policy_specs
from tests.fuzz.check import taken
from tests.fuzz.mutants import mutated_value

SPECS = policy_specs()
# Larger values would do what they ask for: hours of search.
SLOW = {"work": 10**5, "rounds": 8, "first": 10**6, "steps": 10**6, "samples": 16, "limit": 0.1}
SLOW |= {"budget_ms": 100.0}


def small() -> CompiledProblem:
    """Return a problem with two models, a prefix, a tool and parents on three devices."""
    calls = {"queries": 2, "prompt_tokens": 200, "output_tokens": 20}
    stages = (
        Stage(id="a", model="Llama-3.1-8B", prefix_group="g", prefix_tokens=300, **calls),
        Stage(id="b", model="Qwen2.5-7B", **calls),
        Stage(id="c", tool_seconds=0.5),
        Stage(id="d", model="Llama-3.1-8B", prefix_group="g", prefix_tokens=300, **calls),
    )
    edges = (Edge(parent="a", child="c"), Edge(parent="b", child="d"), Edge(parent="c", child="d"))
    devices = tuple(Device(id=f"d{i}", gpu=gpu) for i, gpu in enumerate(("A10G", "L40S", "A10G")))
    flows = [Workflow(id=name, stages=stages, edges=edges) for name in ("u", "v")]
    return compile_problem(Problem.build(Cluster(id="c", devices=devices), flows))


PROBLEM = small()


def play(spec: dict[str, Any]) -> None:
    """Make a policy and run it; parameters that would make it slow are reduced."""
    policy = build_policy(spec)
    params = {k: min(v, SLOW[k]) if k in SLOW and v else v for k, v in spec["params"].items()}
    if params != spec["params"]:
        policy = build_policy(spec | {"params": params})
    Simulator(PROBLEM).run(policy)


def defaults(name: str) -> dict[str, Any]:
    """Return the specification of a policy with every parameter written out."""
    spec = SPECS[name]
    given = {
        key: parameter.default
        for key, parameter in parameters_of(policy_class(spec)).items()
        if key != "name" and parameter.default is not inspect.Parameter.empty
    }
    # As YAML has them: lists, not tuples.
    return spec.model_dump() | {"params": json.loads(json.dumps(given | spec.params))}


TUNABLE = [name for name in SPECS if defaults(name)["params"]]


@given(st.sampled_from(TUNABLE), st.randoms())
def test_mutants_play_or_are_one_error(name: str, draw: random.Random) -> None:
    spec = defaults(name)
    spec["params"] = mutated_value(draw, spec["params"])
    if isinstance(spec["params"], dict):
        taken(lambda: play(spec))


@pytest.mark.parametrize(
    "name", sorted({spec.target: spec.name for spec in SPECS.values()}.values())
)
def test_every_number_has_a_least_and_a_most(name: str) -> None:
    for key, parameter in parameters_of(policy_class(SPECS[name])).items():
        schema = TypeAdapter(parameter.annotation).json_schema()
        kinds = [schema, schema.get("items", {}), *schema.get("anyOf", [])]
        for kind in kinds:
            if kind.get("type") in ("integer", "number"):
                assert {"minimum", "maximum"} <= kind.keys(), key


@pytest.mark.parametrize(
    ("name", "param", "value"),
    [
        ("fate", "depth", -1),
        ("fate", "window", 0),
        ("fate", "decay", 1.5),
        ("fate", "shares", []),
        ("fate", "shares", [-1.0]),
        ("fate_rollout", "samples", 10**6),
        ("fate_rollout", "horizon", -1),
        ("fate_rollout", "tune_share", 2.0),
        ("heft_sharded", "max_shards", 17),
        ("halo", "beam", 0),
        ("autellix", "levels", 0),
        ("autellix", "quantum", 0.0),
        ("murakkab", "epoch", -1.0),
        ("nalar", "limit", 0),
        ("oracle_cpsat", "limit", -0.5),
        ("learned", "best_of", 0),
    ],
)
def test_a_number_out_of_range_is_named(name: str, param: str, value: Any) -> None:
    with pytest.raises(InputError) as caught:
        make_policy(name, **{param: value})
    assert caught.value.item == f"policy '{name}'"
    assert (caught.value.field or "").startswith(f"params.{param}")
    assert "should" in caught.value.fault


def test_a_parameter_that_is_missing_is_named() -> None:
    spec = policy_specs()["heft"].model_dump() | {"params": {}}
    with pytest.raises(InputError, match="the parameter 'order' is missing"):
        build_policy(spec)
