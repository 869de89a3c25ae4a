"""Small problems of every kind of suite, and digests of policies' traces on them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fate_gym.problem import Problem
from fate_gym.sim import CompiledProblem, Simulator, Trace, compile_problem
from fate_gym.workloads import build_suite, load_suite
from fate_gym.workloads.clusters import load_cluster
from policies import make_policy, policy_names
from tests.policies.instances import ARABNEJAD, SMALL, TOPCUOGLU

DIGESTS = Path(__file__).parent / "digests.json"
"""``{suite: {policy: [digest for each of SEEDS]}}``."""
SEEDS = (0, 1)
LEFT_OUT = {
    "oracle_cpsat": "is for the smallest problems and has a test of its own",
    "learned": "its network adds in an order that BLAS chooses by the CPU",
    "learned_lookahead": "the same network",
}
POLICIES = [name for name in policy_names() if name not in LEFT_OUT]

SHARD_FIELDS = (
    "stage", "slot", "device", "queries", "waves", "lost", "source", "committed", "start",
    "load_s", "transfer_s", "prefill_s", "decode_s", "noise", "length", "end", "prefix_hit",
    "prefix_new", "context_hit", "context_new", "copied", "bytes_moved",
)  # fmt: skip
EVICTION_FIELDS = ("shard", "device", "kind", "key", "bytes")


def _suite(name: str, place: int, **changes: Any) -> Callable[[int], Problem]:
    """Return a function that builds, for a seed, the problem at ``place`` of a suite by size.

    ``changes`` replace fields of the suite.
    """

    def problem(seed: int) -> Problem:
        spec = load_suite(name).model_copy(update=changes)
        problems = build_suite(spec, load_cluster(spec.cluster), seed)
        return sorted(problems, key=lambda one: (one.stage_count, one.id))[place]

    return problem


def _classical(seed: int) -> Problem:
    return (TOPCUOGLU, ARABNEJAD)[seed].problem


CASES: dict[str, Callable[[int], Problem]] = {
    "quick": _suite("quick", 2),
    "agentic_test": _suite("agentic_test", 0, tenants=1, runs=1),
    "stress": _suite("stress", 3),
    "prefix_reuse": _suite("prefix_reuse", 40),
    "uncertain_test": _suite("uncertain_test", 24),
    "uncertain_dag_test": _suite("uncertain_dag_test", 0),
    "contention": _suite("quick", 1, contention=True),
    "classical": _classical,
}


@cache
def golden() -> dict[str, dict[str, list[str]]]:
    """Read the recorded digests."""
    recorded: dict[str, dict[str, list[str]]] = json.loads(DIGESTS.read_text(encoding="utf-8"))
    return recorded


@cache
def case(suite: str, seed: int) -> CompiledProblem:
    """Compile the problem of a case; building its whole suite takes longer than most runs."""
    return compile_problem(CASES[suite](seed))


def play(suite: str, policy: str, seed: int) -> Trace:
    """Run a policy on the case of a suite."""
    return Simulator(case(suite, seed)).run(make_policy(policy, **SMALL.get(policy, {})), seed=seed)


def digest(trace: Trace) -> str:
    """Digest everything that happened, bit for bit, except decision times."""
    found = hashlib.sha256()
    for rows, fields in ((trace.shards, SHARD_FIELDS), (trace.evictions, EVICTION_FIELDS)):
        for name in fields:
            found.update(_bytes(rows[name]))
    for times in (trace.stage_ready, trace.stage_end, trace.workflow_end, trace.draws):
        found.update(_bytes(times))
    return found.hexdigest()[:16]


def _bytes(values: np.ndarray[Any, Any]) -> bytes:
    kind = np.float64 if values.dtype.kind == "f" else np.int64
    return values.astype(kind).tobytes()
