"""Streams of suites by name, and a property of those whose prompts share prefixes."""

from __future__ import annotations

from typing import Any

from fate_gym.problem import Problem
from fate_gym.sim import Simulator
from fate_gym.validator import assert_valid
from fate_gym.workloads import build_suite, load_cluster, load_suite
from policies import make_policy


def stream(name: str, seed: int, **cluster: Any) -> Problem:
    """Return the stream of a suite with one problem per seed; ``cluster`` changes its cluster."""
    suite = load_suite(name)
    (problem,) = build_suite(suite, load_cluster(suite.cluster, **cluster), seed)
    return problem


def assert_valid_with_hits(problem: Problem) -> None:
    """Check that a schedule is valid and has prefix hits."""
    trace = Simulator(problem).run(make_policy("eft"))
    assert_valid(trace)
    assert trace.shards["prefix_hit"].sum() > 0
