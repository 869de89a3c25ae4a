"""Suites of real agents: their sessions and turns, tokens and arrivals."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest

from fate_gym import catalog
from fate_gym.errors import InputError
from fate_gym.problem import Problem
from fate_gym.problem.problem import query_tokens
from fate_gym.sim import compile_problem
from fate_gym.workloads import AgentsSuite, build_suite, load_cluster, load_suite, parse_suite
from fate_gym.workloads.agent_traces import Row, sessions
from fate_gym.workloads.agents import (
    AGENT_SOURCES,
    SizeClasses,
    WindowRules,
    window_workflows,
    windows,
    with_turns,
)
from fate_gym.workloads.load import device_seconds, own_reuse
from fate_gym.workloads.requests import PARTS
from tests.workloads.streams import assert_valid_with_hits, stream

MODELS = SizeClasses(large="Llama-3.1-70B", small="Llama-3.1-8B", long="Qwen3-30B-A3B-2507")
RULES = WindowRules(MODELS, turns=4, calls=20, think_cap_s=60.0, tool_cap_s=60.0)
STREAMS = ("agents", "agents_train", "agents_validation", "agents_test")


def suite(**fields: Any) -> Any:
    return parse_suite(load_suite("agents").model_dump(mode="json") | fields, source="test")


def session_ids(problem: Problem) -> set[str]:
    return {workflow.session or "" for workflow in problem.workflows}


@pytest.mark.parametrize("execution", ["exclusive", "batching"])
@pytest.mark.parametrize("name", STREAMS)
def test_a_draw_is_one_problem_of_moderate_size(name: str, execution: str) -> None:
    for seed in range(3):
        problem = stream(name, seed, execution=execution)
        assert 150 <= problem.stage_count <= 500
        assert len(session_ids(problem)) == 14
        compile_problem(problem)


@pytest.mark.parametrize("execution", ["exclusive", "batching"])
def test_schedules_are_valid_and_reuse_prefixes(execution: str) -> None:
    assert_valid_with_hits(stream("agents_test", 0, execution=execution))


def test_draws_are_repeatable_and_seeds_differ() -> None:
    assert stream("agents", 0) == stream("agents", 0)
    assert session_ids(stream("agents", 0)) != session_ids(stream("agents", 1))
    assert all(workflow.id.endswith("/s1") for workflow in stream("agents", 1).workflows)


def test_devices_change_nothing_about_what_arrives_when() -> None:
    assert stream("agents", 2).workflows == stream("agents", 2, execution="batching").workflows


def test_splits_share_no_session() -> None:
    parts = [
        set[str]().union(*(session_ids(stream(name, seed)) for seed in range(10)))
        for name in STREAMS[1:]
    ]
    assert not any(a & b for a, b in combinations(parts, 2))


def test_turns_follow_one_another_and_arrive_with_their_session() -> None:
    problem = stream("agents", 0)
    by_session: dict[str, list[Any]] = {}
    for workflow in problem.workflows:
        by_session.setdefault(workflow.session or "", []).append(workflow)
    for turns in by_session.values():
        assert [turn.follows for turn in turns] == [None, *(turn.id for turn in turns[:-1])]
        assert len({turn.arrival for turn in turns}) == 1
        assert all(turn.think_seconds <= 60 for turn in turns)
    assert any(workflow.think_seconds == 60 for workflow in problem.workflows)


@pytest.mark.parametrize("load", [0.3, 0.9])
def test_a_load_is_uncached_work_that_arrives_over_work_that_is_done(load: float) -> None:
    spec = suite(arrivals={"process": "trace", "load": load})
    (problem,) = build_suite(spec, load_cluster("serving_4"), 0)
    times = [workflow.arrival for workflow in problem.workflows]
    assert times == sorted(times) and times[0] == 0.0
    arriving = sum(device_seconds(problem)) / (times[-1] * len(problem.cluster.devices))
    assert arriving == pytest.approx(load)


def test_arrivals_of_a_split_are_those_of_its_part_of_the_hour() -> None:
    for split in ("train", "test"):
        spec = suite(split=split)
        assert isinstance(spec, AgentsSuite)
        times = [turns[0].arrival for turns in spec.sessions(0)]
        first, end = PARTS[split]
        assert times == sorted(times) and first <= times[0] < times[-1] < end


def test_other_processes_of_arrivals() -> None:
    spec = suite(arrivals={"process": "poisson", "rate_per_s": 0.01})
    (problem,) = build_suite(spec, load_cluster("serving_4"), 0)
    assert 200 < problem.workflows[-1].arrival < 5000


def test_alone_each_session_is_a_problem() -> None:
    spec = load_suite("agents_alone")
    problems = build_suite(spec, load_cluster(spec.cluster), 0)
    assert len(problems) == len({problem.id for problem in problems}) == 14
    assert all(problem.id.endswith("/s0") for problem in problems)
    assert all(len(session_ids(problem)) == 1 for problem in problems)
    assert max(len(problem.workflows) for problem in problems) > 1


def drawn(source: str, count: int) -> list[tuple[Row, Any]]:
    """Return some sessions of a source, each with one of its windows."""
    found = []
    for place, row in enumerate(sessions(source)[:count]):
        turned = with_turns(row)
        starts = windows(RULES, turned, whole=source == "tree_of_thoughts")
        if starts:
            found.append((turned, starts[place % len(starts)]))
    return found


@pytest.mark.parametrize("source", AGENT_SOURCES)
def test_every_token_of_a_window_is_in_its_workflows(source: str) -> None:
    for row, window in drawn(source, 60):
        calls = [row["calls"][number] for number in window.calls]
        llm = [call for call in calls if call["kind"] == "llm"]
        turns = window_workflows(RULES, row, window, source, seed=0)
        stages = [stage for turn in turns for stage in turn.stages if stage.model is not None]
        assert [stage.prefix_tokens + stage.prompt_tokens for stage in stages] == [
            call["prompt_tokens"] for call in llm
        ]
        assert [(stage.queries, stage.output_tokens) for stage in stages] == [
            (call.get("samples", 1), call["output_tokens"]) for call in llm
        ]
        gaps = [call.get("tool_seconds", 0.0) for call in calls[1:]]
        tools = [stage.tool_seconds for turn in turns for stage in turn.stages if not stage.model]
        assert max(tools, default=0.0) <= 60
        # The gap before the first call is none of the window's, those before turns are thinking.
        assert sum(tools) <= sum(min(gap, 60.0) for gap in gaps) + 60 * len(calls)


@pytest.mark.parametrize("source", ["weka_claude_code", "tau_bench", "mini_swe"])
def test_what_a_window_reuses_is_what_the_trace_shares(source: str) -> None:
    for row, window in drawn(source, 40):
        inside = set(window.calls)
        calls = [row["calls"][number] for number in window.calls]
        shared = sum(
            call["shared_with"][1]
            for call in calls
            if "shared_with" in call and call["shared_with"][0] in inside
        )
        turns = window_workflows(RULES, row, window, source, seed=0)
        reused = sum(sum(found.values()) for found in own_reuse(turns))
        total = sum(call.get("prompt_tokens", 0) for call in calls)
        # The outputs of the calls before come on top; shares in calls left out are lost or found.
        assert reused >= shared * 0.99
        assert reused <= total


@pytest.mark.parametrize("source", AGENT_SOURCES)
def test_windows_keep_to_their_limits(source: str) -> None:
    for row in map(with_turns, sessions(source)[:80]):
        for window in windows(RULES, row):
            calls = [row["calls"][number] for number in window.calls]
            turns = [call["turn"] for call in calls]
            assert sum(call["kind"] == "llm" for call in calls) <= 20
            assert turns == sorted(turns) and turns[-1] - turns[0] < 4
            assert window.calls == tuple(range(window.calls[0], window.calls[-1] + 1))


def test_no_context_is_longer_than_its_model_was_made_for() -> None:
    models = set()
    for seed in range(20):
        for workflow in stream("agents", seed).workflows:
            for stage in workflow.stages:
                if stage.model is not None:
                    most = catalog.model(stage.model).max_context
                    assert most is not None and query_tokens(workflow, stage) <= most
                    models.add(stage.model)
    assert models == {MODELS.large, MODELS.small, MODELS.long}


def row_of(*turns: list[int], **fields: Any) -> Row:
    """Return a chain of calls with these contexts, turn by turn."""
    calls = [
        {"kind": "llm", "turn": turn, "prompt_tokens": tokens, "output_tokens": 0} | fields
        for turn, contexts in enumerate(turns)
        for tokens in contexts
    ]
    numbered = [
        {**call, "id": number, "parents": [number - 1] if number else []}
        for number, call in enumerate(calls)
    ]
    return {"id": "w", "calls": numbered}


def test_windows_end_before_contexts_that_no_model_is_made_for() -> None:
    row = row_of([1000, 2000], [3000], [300_000], [4000], [200_000, 300_000])
    found = windows(RULES, row)
    assert [window.calls for window in found] == [(0, 1, 2), (2,)]
    assert [window.large for window in found] == [MODELS.large] * 2
    found = windows(RULES._replace(turns=1), row)
    assert [window.calls for window in found] == [(0, 1), (2,), (4,), (5,)]
    assert [window.large for window in found] == [MODELS.large] * 3 + [MODELS.long]


def test_long_turns_are_cut_off_and_short_ones_taken_whole() -> None:
    row = row_of([1000] * 40, [1000] * 10, [1000] * 20)
    found = windows(RULES._replace(turns=2), row)
    assert [(window.calls[0], len(window.calls)) for window in found] == [(0, 20), (40, 10)]


def test_small_models_of_the_sources_become_the_small_one() -> None:
    (window,) = windows(RULES, row_of([1000], model="claude-haiku-4-5"))
    assert window.small == MODELS.small
    (long,) = windows(RULES, row_of([200_000], model="claude-haiku-4-5"))
    assert (long.small, long.large) == (MODELS.long, MODELS.large)


def test_a_message_of_a_played_customer_begins_a_turn() -> None:
    row = with_turns(sessions("tau_bench")[3])
    for before, call in pairwise(row["calls"]):
        assert call["turn"] - before["turn"] == (call.get("role") == "customer")
    window = windows(RULES, row)[0]
    turns = window_workflows(RULES, row, window, "tau_bench", seed=0)
    assert [turn.stages[0].model for turn in turns] == [MODELS.small] * len(turns)
    assert {s.model for turn in turns for s in turn.stages[1:]} <= {MODELS.large, None}


def test_windows_of_a_session_begin_anywhere() -> None:
    starts = {w.id.rsplit("/", 1)[0] for s in range(30) for w in stream("agents", s).workflows}
    assert len(starts) > 100
    lengths = [stream("agents", seed).stage_count for seed in range(30)]
    assert np.std(lengths) > 10


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"counts": {"weka": 1}}, ["counts", "weka_claude_code"]),
        ({"counts": {"mini_swe": 0}}, ["counts"]),
        ({"counts": {"mini_swe": -1}}, ["counts.mini_swe"]),
        ({"counts": {"mini_swe": 10**9}}, ["counts.mini_swe"]),
        ({"turns": 0}, ["turns"]),
        ({"split": "tets"}, ["split"]),
    ],
)
def test_bad_suites(fields: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        suite(**fields)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"counts": {"mini_swe": 4}, "split": "test"}, ["counts.mini_swe", "'test'", "has 3"]),
        ({"models": MODELS.model_dump() | {"large": "Llama-3.1-70"}}, ["Llama-3.1-70B"]),
        ({"cluster": "mixed_12"}, ["no device can host"]),
    ],
)
def test_what_cannot_be_drawn(fields: dict[str, Any], words: list[str]) -> None:
    spec = suite(**fields)
    with pytest.raises(InputError) as caught:
        build_suite(spec, load_cluster(spec.cluster), 0)
    assert all(word in str(caught.value) for word in ["suite 'agents'", *words])
