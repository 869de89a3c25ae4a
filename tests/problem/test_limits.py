"""Limits of a problem: beyond them one clear error, at them a run that ends and is valid."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fate_gym.catalog.limits import (
    LEAST_RATE,
    MOST_BYTES,
    MOST_QUERIES,
    MOST_RATE,
    MOST_SECONDS,
    MOST_TOKENS,
)
from fate_gym.errors import InputError
from fate_gym.problem import Problem, parse_problem
from fate_gym.sim import Simulator
from fate_gym.validator import validate
from policies import make_policy

Tree = dict[str, Any]

GPU: Tree = {
    "name": "G", "memory_gb": 1e6, "bandwidth_gb_s": 1e3, "tflops": 1e2, "pcie": 4, "watts": 100,
    "usd_per_hour": 1, "mfu": 0.5, "mbu": 0.5,
}  # fmt: skip
MODEL: Tree = {
    "name": "M", "params_b": 1, "layers": 2, "hidden": 64, "kv_heads": 1, "head_dim": 1,
    "weight_gb": 1,
}  # fmt: skip


def tree() -> Tree:
    stages: list[Tree] = [
        {"id": "a", "model": "M", "prompt_tokens": 10},
        {"id": "b", "tool_seconds": 1},
        {"id": "c", "seconds_on": {"d": 1}},
    ]
    edges = [{"parent": "a", "child": "b"}, {"parent": "b", "child": "c"}]
    return {
        "cluster": {"id": "c", "devices": [{"id": "d", "gpu": "G"}]},
        "workflows": [{"id": "w", "stages": stages, "edges": edges}],
        "gpus": [GPU],
        "models": [MODEL],
    }


BEYOND: list[tuple[tuple[str | int, ...], Any, str, str]] = [
    (("cluster", "network_gb_s"), 5e-324, "cluster.network_gb_s", "0.000000000001"),
    (("cluster", "devices", 0, "load_gb_s"), 1e300, "load_gb_s", "1000000000"),
    (("cluster", "network_latency_s"), 1e308, "cluster.network_latency_s", "1000000000"),
    (("cluster", "memory_utilisation"), 5e-324, "cluster.memory_utilisation", "0.000001"),
    (("workflows", 0, "arrival"), 1e308, "arrival", "1000000000"),
    (("workflows", 0, "edges", 0, "bytes"), 1.7e308, "bytes", "1000000000000000"),
    (("workflows", 0, "stages", 0, "prompt_tokens"), 2**31, "prompt_tokens", "100000000"),
    (("workflows", 0, "stages", 0, "queries"), 10**9, "queries", "1000000"),
    (("workflows", 0, "stages", 1, "tool_seconds"), 1e308, "tool_seconds", "1000000000"),
    (("workflows", 0, "stages", 2, "seconds_on", "d"), 1e308, "seconds_on.d", "1000000000"),
    (("gpus", 0, "memory_gb"), 1e100, "gpus.0.memory_gb", "1000000"),
    (("gpus", 0, "tflops"), 5e-324, "gpus.0.tflops", "0.000000000001"),
    (("gpus", 0, "mfu"), 5e-324, "gpus.0.mfu", "0.000001"),
    (("models", 0, "weight_gb"), 1e300, "models.0.weight_gb", "1000000"),
    (("models", 0, "layers"), 10**300, "models.0.layers", "1000000"),
    (("models", 0, "params_b"), 10**300, "models.0.params_b", "1000000"),
    (("models", 0, "hidden"), 10**400, "models.0.hidden", "1000000"),
    (("options",), {"failures": {"mtbf_s": 1e-300, "mttr_s": 1}}, "failures.mtbf_s", "0.000001"),
    (("options",), {"failures": {"mtbf_s": 1, "mttr_s": 1, "most": 10**9}}, "most", "10000"),
]


@pytest.mark.parametrize(("path", "value", "field", "limit"), BEYOND)
def test_beyond_a_limit_the_error_names_file_field_and_limit(
    path: tuple[str | int, ...], value: Any, field: str, limit: str
) -> None:
    bad: Any = json.loads(json.dumps(tree()))
    inner = bad
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    with pytest.raises(InputError) as caught:
        parse_problem(json.dumps(bad), source="my.json")
    assert caught.value.source == "my.json"
    assert caught.value.field is not None and caught.value.field.endswith(field)
    assert f"equal to {limit} " in caught.value.fault


def test_the_parts_of_a_query_have_one_limit_together() -> None:
    bad = tree()
    bad["workflows"][0]["stages"][0] |= {"prompt_tokens": MOST_TOKENS, "output_tokens": 1}
    with pytest.raises(InputError, match=r"stage 'a'.*100,000,001 tokens, of 100,000,000 at most"):
        parse_problem(json.dumps(bad))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.update(id="\ud800"),
        lambda t: t["cluster"].update(id="a\udfff"),
        lambda t: t["cluster"]["devices"][0].update(node="\ud800"),
        lambda t: t["workflows"][0].update(id="\ud800"),
        lambda t: t["workflows"][0].update(tenant="\ud800"),
        lambda t: t["workflows"][0].update(family="\ud800"),
        lambda t: t["workflows"][0]["stages"][0].update(label="\ud800"),
        lambda t: t["workflows"][0]["stages"][2].update(seconds_on={"\ud800": 1}),
        lambda t: t.update(models=[MODEL | {"name": "\ud800"}]),
        lambda t: t.update(gpus=[GPU | {"sources": {"watts": "\ud800"}}]),
    ],
)
def test_a_lone_surrogate_is_refused_wherever_it_stands(change: Any) -> None:
    bad = tree()
    change(bad)
    with pytest.raises(InputError, match="unicode") as caught:
        parse_problem(json.dumps(bad))
    str(caught.value).encode()


RATES = st.sampled_from([LEAST_RATE, 1e-3, 1.0, MOST_RATE])
SECONDS = st.sampled_from([0.0, 5e-324, 1e-9, 1.0, MOST_SECONDS])


@st.composite
def extremes(draw: st.DrawFn) -> Problem:
    """Draw problems whose numbers are at a limit or far from it."""
    gpu = GPU | {name: draw(RATES) for name in ("bandwidth_gb_s", "tflops", "nvlink_gb_s")}
    gpu |= {name: draw(st.sampled_from([1e-6, 1.0])) for name in ("mfu", "mbu")}
    sizes = {name: draw(st.sampled_from([0, 10**6])) for name in ("layers", "hidden")}
    billions = st.sampled_from([1e-9, 1.0, 1e5])
    model = MODEL | sizes | {name: draw(billions) for name in ("params_b", "weight_gb")}
    devices = [
        {
            "id": f"d{number}",
            "gpu": "G",
            "node": f"n{draw(st.integers(0, 1))}",
            "tensor_parallel": draw(st.sampled_from([1, 72])),
            "load_gb_s": draw(RATES),
            "peer_gb_s": draw(RATES),
            "network_gb_s": draw(RATES),
        }
        for number in range(draw(st.integers(1, 3)))
    ]
    tokens = st.sampled_from([1, 1000])
    kinds: dict[str, st.SearchStrategy[Tree]] = {
        "tool": st.fixed_dictionaries({"tool_seconds": SECONDS}),
        "fixed": st.fixed_dictionaries(
            {"seconds_on": st.fixed_dictionaries({str(one["id"]): SECONDS for one in devices})}
        ),
        "model": st.fixed_dictionaries(
            {
                "model": st.just("M"),
                "queries": st.sampled_from([1, MOST_QUERIES]),
                "prompt_tokens": tokens | st.just(MOST_TOKENS // 2),
                "output_tokens": tokens | st.sampled_from([0, MOST_TOKENS // 2]),
            }
        ),
    }
    stages = [
        {"id": f"s{number}"} | draw(kinds[draw(st.sampled_from(sorted(kinds)))])
        for number in range(draw(st.integers(1, 5)))
    ]
    edges = [
        {
            "parent": f"s{parent}",
            "child": f"s{child}",
            "bytes": draw(st.sampled_from([0.0, 5e-324, 1.0, MOST_BYTES])),
        }
        for child in range(len(stages))
        for parent in range(child)
        if draw(st.booleans())
    ]
    cluster = {
        "id": "c",
        "devices": devices,
        "network_gb_s": draw(RATES),
        "network_latency_s": draw(SECONDS),
        "load_init_s": draw(SECONDS),
    }
    workflow = {"id": "w", "stages": stages, "edges": edges, "arrival": draw(SECONDS)}
    options = {"contention": draw(st.booleans())}
    return parse_problem(
        json.dumps(
            {"cluster": cluster, "workflows": [workflow], "gpus": [gpu], "models": [model]}
            | {"options": options}
        )
    )


@given(extremes(), st.sampled_from(["round_robin", "eft", "heft"]))
def test_a_problem_at_the_limits_ends_at_a_finite_time_and_validates(
    problem: Problem, policy: str
) -> None:
    trace = Simulator(problem).run(make_policy(policy))
    assert math.isfinite(trace.makespan)
    assert validate(trace) == []
