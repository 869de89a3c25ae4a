"""Suites of requests: an hour of chats, its parts, and prefixes that requests share."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, pairwise
from typing import Any

import pytest

from fate_gym.errors import InputError
from fate_gym.sim import compile_problem
from fate_gym.workloads import build_suite, load_cluster, load_suite, parse_suite
from fate_gym.workloads.agent_traces import TraceSplit, sessions
from fate_gym.workloads.load import device_seconds, own_reuse
from fate_gym.workloads.requests import PARTS, SOURCE, part, requests, session_starts
from tests.workloads.streams import assert_valid_with_hits, stream

NAMES = (
    "requests",
    "requests_train",
    "requests_validation",
    "requests_test",
    "requests_busy",
    "requests_one_model",
)
SPLITS: tuple[TraceSplit, ...] = ("train", "validation", "test")


def suite(**fields: Any) -> Any:
    return parse_suite(load_suite("requests").model_dump(mode="json") | fields, source="test")


def test_the_hour_has_every_request_once_and_no_two_at_once() -> None:
    every = requests()
    assert len(every) == sum(len(row["calls"]) for row in sessions(SOURCE))
    assert len({(request.chat, request.number) for request in every}) == len(every)
    assert all(early.at < late.at for early, late in pairwise(every))
    for request in every[::97]:
        row = sessions(SOURCE)[request.chat]
        tick = row["arrival_s"] + row["calls"][request.number]["start_s"]
        assert tick <= request.at < tick + 10


def test_splits_are_parts_of_the_hour() -> None:
    parts = [set(part(split)) for split in SPLITS]
    assert all(len(found) > 1500 for found in parts)
    assert not any(a & b for a, b in combinations(parts, 2))
    assert set.union(*parts) == set(part("all")) == set(requests())


@pytest.mark.parametrize("execution", ["exclusive", "batching"])
@pytest.mark.parametrize("name", NAMES)
def test_a_request_is_a_workflow_of_one_stage(name: str, execution: str) -> None:
    problem = stream(name, 0, execution=execution)
    assert len(problem.workflows) == problem.stage_count == 200
    assert len({workflow.id for workflow in problem.workflows}) == 200
    assert all(workflow.id.endswith("/s0") for workflow in problem.workflows)
    compile_problem(problem)


@pytest.mark.parametrize("execution", ["exclusive", "batching"])
def test_schedules_are_valid_and_reuse_prefixes(execution: str) -> None:
    assert_valid_with_hits(stream("requests_test", 0, execution=execution))


def test_draws_are_repeatable_and_seeds_differ() -> None:
    assert stream("requests", 0) == stream("requests", 0)
    assert stream("requests", 0).workflows != stream("requests", 1).workflows


@pytest.mark.parametrize(("name", "load"), [("requests", 0.7), ("requests_busy", 0.9)])
def test_gaps_are_stretched_to_the_load(name: str, load: float) -> None:
    problem = stream(name, 1)
    times = [workflow.arrival for workflow in problem.workflows]
    assert times == sorted(times) and times[0] == 0.0
    arriving = sum(device_seconds(problem)) / (times[-1] * len(problem.cluster.devices))
    assert arriving == pytest.approx(load)


def test_tokens_are_those_of_the_trace() -> None:
    rows = {row["id"]: row for row in sessions(SOURCE)}
    of_trace: Counter[tuple[int, int]] = Counter()
    drawn: Counter[tuple[int, int]] = Counter()
    problem = stream("requests_test", 3)
    for workflow in problem.workflows:
        (stage,) = workflow.stages
        drawn[stage.prefix_tokens + stage.prompt_tokens, stage.output_tokens] += 1
    for name in {workflow.session or "" for workflow in problem.workflows}:
        for call in rows[name]["calls"]:
            of_trace[call["prompt_tokens"], call["output_tokens"]] += 1
    assert drawn <= of_trace


def test_requests_follow_what_they_continue_and_find_it() -> None:
    problem = stream("requests", 0)
    names = {workflow.id: workflow for workflow in problem.workflows}
    later = [workflow for workflow in problem.workflows if workflow.follows is not None]
    assert len(later) > 30
    for workflow in later:
        assert workflow.follows is not None
        before = names[workflow.follows]
        assert (before.session, before.arrival < workflow.arrival) == (workflow.session, True)
        assert workflow.stages[0].model == before.stages[0].model
    for workflow, reused in zip(problem.workflows, own_reuse(problem.workflows), strict=True):
        assert workflow.follows is None or sum(reused.values()) >= 1024


def test_first_blocks_are_one_prefix_of_all_chats() -> None:
    problem = stream("requests_one_model", 0)
    roots = {
        prefix.parent
        for workflow in problem.workflows
        for prefix in workflow.prefixes
        if not prefix.parent.startswith("session/")
    }
    assert roots == {f"system/{SOURCE}"}


def test_chats_keep_their_model() -> None:
    models: dict[str, set[str]] = {}
    for workflow in stream("requests", 0).workflows:
        models.setdefault(workflow.session or "", set()).add(workflow.stages[0].model or "")
    assert {len(found) for found in models.values()} == {1}
    assert len(set.union(*models.values())) == 3


def test_session_starts_are_times_of_the_split() -> None:
    times = session_starts("validation", 50, 0, "x")
    first, end = PARTS["validation"]
    assert times == sorted(times) and first <= times[0] < times[-1] < end
    assert times != session_starts("validation", 50, 1, "x")
    with pytest.raises(InputError, match="beginnings"):
        session_starts("test", 5000, 0, "x")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mode": "alone", "arrivals": None}, ["mode"]),
        ({"arrivals": {"process": "poisson", "load": 0.5}}, ["arrivals", "trace"]),
        ({"models": []}, ["models"]),
        ({"requests": 0}, ["requests"]),
    ],
)
def test_bad_suites(fields: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        suite(**fields)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"requests": 3000}, ["requests", "window", "seconds"]),
        ({"models": ["Llama-3.1-70"]}, ["Llama-3.1-70B"]),
    ],
)
def test_what_cannot_be_drawn(fields: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        build_suite(suite(**fields), load_cluster("serving_8"), 0)
    assert all(word in str(caught.value) for word in ["suite 'requests'", *words])
