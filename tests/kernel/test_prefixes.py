"""Trees of prefixes on devices, against literal tokens in plain Python."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fate_gym.kernel.schema import EVICT_PREFIX
from fate_gym.problem import Cluster, Device, Edge, Prefix, Problem, Stage, Workflow
from fate_gym.sim import Simulator, Trace
from fate_gym.validator import validate
from policies import make_policy

MODEL = "Llama-3.1-8B"
BOTH = pytest.mark.parametrize("execution", ["exclusive", "batching"])
Execution = Literal["exclusive", "batching"]


def call(id: str, group: str | None, prefix: int, **fields: object) -> Stage:
    """Return a stage with one query, 100 own prompt tokens and 10 output tokens."""
    whole = {"prompt_tokens": 100, "output_tokens": 10} | fields
    return Stage(id=id, model=MODEL, prefix_group=group, prefix_tokens=prefix, **whole)


def chain(stages: list[Stage], prefixes: tuple[Prefix, ...] = (), **fields: object) -> Workflow:
    """Return a workflow that is a chain of the stages."""
    edges = [Edge(parent=a.id, child=b.id) for a, b in pairwise(stages)]
    whole = {"id": "w", "stages": stages, "edges": edges, "prefixes": prefixes} | fields
    return Workflow.model_validate(whole)


def play(
    *workflows: Workflow, execution: Execution, gpus: tuple[str, ...] = ("H100-SXM",)
) -> Trace:
    """Run the workflows with eft on some GPUs; return the trace, which must be valid."""
    devices = tuple(Device(id=f"d{i}", gpu=gpu) for i, gpu in enumerate(gpus))
    cluster = Cluster(id="c", devices=devices, execution=execution)
    trace = Simulator(Problem.build(cluster, workflows)).run(make_policy("eft"))
    assert validate(trace) == []
    return trace


def hits(trace: Trace) -> list[int]:
    """Return the cached prefix tokens by stage number."""
    rows = sorted(trace.shards, key=lambda row: int(row["stage"]))
    return [int(row["prefix_hit"]) for row in rows]


@BOTH
def test_the_longest_cached_path_counts(execution: Execution) -> None:
    branch = Prefix(group="plan", parent="system", shared_tokens=500)
    stages = [
        call("a", "system", 800),
        call("b", "plan", 900),  # shares 500 with "a"
        call("c", "plan", 1200),
        call("d", "system", 1000),
        call("e", "plan", 450),  # all of it lies in the root
    ]
    assert hits(play(chain(stages, (branch,)), execution=execution)) == [0, 500, 900, 800, 450]


@BOTH
def test_a_stage_that_extends_its_prefix_leaves_prompt_and_output(execution: Execution) -> None:
    stages = [
        call("a", "chat", 0, extends_prefix=True),
        call("b", "chat", 110, extends_prefix=True),
        call("c", "chat", 500),  # 110 + 100 + 10 of it are there
        call("d", "chat", 500),
    ]
    assert hits(play(chain(stages), execution=execution)) == [0, 110, 220, 500]


@BOTH
def test_the_context_of_a_turn_is_found_by_the_turn_that_follows(execution: Execution) -> None:
    first = chain([call("a", "chat", 0, extends_prefix=True)], id="t0", session="s")
    second = chain(
        [call("b", "chat", 110, extends_prefix=True)],
        id="t1",
        session="s",
        follows="t0",
        think_seconds=5.0,
    )
    trace = play(first, second, execution=execution)
    assert hits(trace) == [0, 110]
    assert trace.workflow_arrival[1] == trace.workflow_end[0] + 5.0


@BOTH
def test_a_branch_of_an_extended_prefix_may_begin_in_the_output(execution: Execution) -> None:
    branch = Prefix(group="retry", parent="chat", shared_tokens=105)
    stages = [call("a", "chat", 0, extends_prefix=True), call("b", "retry", 300)]
    assert hits(play(chain(stages, (branch,)), execution=execution)) == [0, 105]


@BOTH
def test_an_entry_stays_while_a_child_is_there(execution: Execution) -> None:
    """Room is made from the leaves; the root, used first, is not dropped under its branches."""
    tokens = 40_000  # 5.2 GB of 5.5 that an A10G has beside the weights
    prefixes = (
        Prefix(group="left", parent="root", shared_tokens=20_000),
        Prefix(group="right", parent="left", shared_tokens=30_000),
    )
    stages = [
        call("a", "right", 35_000),
        call("b", "other", tokens),
        call("c", "right", 35_000),
    ]
    trace = play(chain(stages, prefixes), execution=execution, gpus=("A10G",))
    evicted = trace.evictions[trace.evictions["kind"] == EVICT_PREFIX]
    names = [trace.prefix_keys[int(row["key"])][1] for row in evicted]
    assert names[:3] == ["right", "left", "root"]
    sizes = [round(float(row["bytes"]) / 131_072) for row in evicted]
    assert sizes[:3] == [5_000, 10_000, 20_000]


@BOTH
def test_a_group_that_shares_less_than_its_parent_branches_off_further_up(
    execution: Execution,
) -> None:
    prefixes = (
        Prefix(group="a", parent="root", shared_tokens=400),
        Prefix(group="b", parent="a", shared_tokens=300),
    )
    stages = [call("x", "b", 600), call("y", "root", 350), call("z", "a", 500)]
    trace = play(chain(stages, prefixes), execution=execution)
    # Of the root "x" has computed 300 tokens, and nothing of "a".
    assert hits(trace) == [0, 300, 350]
    assert ("Llama-3.1-8B", "a") in trace.prefix_keys


Path = list[tuple[str, int]]


@st.composite
def trees(draw: st.DrawFn) -> tuple[tuple[Prefix, ...], list[tuple[str, int, bool]]]:
    """Draw branches of a tree, and calls: group, prefix tokens, whether the call extends them."""
    groups = ["g0"]
    branches: list[Prefix] = []
    for i in range(draw(st.integers(0, 4))):
        parent = draw(st.sampled_from(groups))
        groups.append(f"g{i + 1}")
        shared = draw(st.integers(1, 60))
        branches.append(Prefix(group=groups[-1], parent=parent, shared_tokens=shared))
    calls = st.tuples(st.sampled_from(groups), st.integers(0, 80), st.booleans())
    return tuple(branches), draw(st.lists(calls, min_size=1, max_size=8))


def tokens_of(branches: dict[str, Prefix], group: str, count: int) -> list[str]:
    """Return the first tokens of a group as literal tokens."""
    if group not in branches:
        return [f"{group}:{i}" for i in range(count)]
    shared = min(count, branches[group].shared_tokens)
    start = tokens_of(branches, branches[group].parent, shared)
    return start + [f"{group}:{i}" for i in range(shared, count)]


@settings(max_examples=60, deadline=None)
@given(trees(), st.sampled_from(["exclusive", "batching"]))
def test_hits_are_those_of_spelt_out_tokens(
    tree: tuple[tuple[Prefix, ...], list[tuple[str, int, bool]]], execution: Execution
) -> None:
    """One device with room for all: whatever was computed or put out before is found."""
    prefixes, calls = tree
    branches = {prefix.group: prefix for prefix in prefixes}
    stages = [
        call(f"s{i}", group, tokens, extends_prefix=extends, prompt_tokens=7, output_tokens=3)
        for i, (group, tokens, extends) in enumerate(calls)
    ]
    expected: list[int] = []
    cached: set[tuple[str, ...]] = {()}
    for group, tokens, extends in calls:
        prompt = tokens_of(branches, group, tokens)
        longest = max(n for n in range(tokens + 1) if tuple(prompt[:n]) in cached)
        expected.append(longest)
        left = tokens_of(branches, group, tokens + 10 if extends else tokens)
        cached |= {tuple(left[:n]) for n in range(len(left) + 1)}
    assert hits(play(chain(stages, prefixes), execution=execution)) == expected


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 4000), min_size=1, max_size=6),
    st.integers(1, 4000),
    st.sampled_from(["exclusive", "batching"]),
)
def test_a_chain_of_groups_takes_as_long_as_a_flat_one(
    lengths: list[int], cut: int, execution: Execution
) -> None:
    """Where a sequence is cut into entries changes nothing as long as all fits."""
    branch = Prefix(group="chat", parent="root", shared_tokens=cut)
    stages = [call(f"s{i}", "chat", tokens) for i, tokens in enumerate(lengths)]
    flat = play(chain(stages), execution=execution)
    cuts = play(chain(stages, (branch,)), execution=execution)
    for name in ("end", "prefix_hit", "prefix_new", "prefill_s"):
        assert flat.shards[name].tolist() == cuts.shards[name].tolist()
