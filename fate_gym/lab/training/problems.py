"""The problems for training, validating and testing an agent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import reduce
from itertools import product
from typing import Any

from fate_gym.catalog.agentic import agentic_templates
from fate_gym.env.options import EnvOptions
from fate_gym.env.spec import Limits
from fate_gym.errors import InputError
from fate_gym.lab.training.config import ProblemSet
from fate_gym.problem import Cluster
from fate_gym.sim import CompiledProblem, compile_problem
from fate_gym.workloads import SuiteSpec, build_suite, load_cluster, load_suite
from fate_gym.workloads.suites import TEST_FAMILIES


def build_problems(sets: Iterable[ProblemSet], *, train: bool) -> list[list[CompiledProblem]]:
    """Compile the problems of some sets; return one list per suite, load, cluster and execution.

    Args:
        sets: the sets of problems.
        train: whether families that are kept for testing are an error.

    Raises:
        InputError: unknown names, no problem chosen, or a test family to train on.
    """
    found = []
    for chosen in sets:
        for name, load, place in product(
            chosen.suites, chosen.loads or (None,), chosen.clusters or (None,)
        ):
            suite = load_suite(name)
            if load is not None:
                suite = _loaded(suite, load)
            for cluster in _clusters(place or suite.cluster, chosen):
                found.append(list(_compiled(suite, cluster, chosen, train=train)))
    if not any(found):
        raise InputError(
            "no problem is chosen",
            source="curriculum",
            field="max_stages",
            remedy="raise max_stages or name more suites",
        )
    return found


def _loaded(suite: SuiteSpec, load: float) -> SuiteSpec:
    """Return a stream whose workflows arrive at a load."""
    if suite.arrivals is None or suite.arrivals.process in ("at_once", "given"):
        raise InputError(
            "its workflows do not arrive at a rate, so that they have no load",
            source=f"suite {suite.name!r}",
            field="curriculum loads",
            remedy="give loads to sets of streams only",
        )
    arrivals = suite.arrivals.model_copy(update={"load": load, "rate_per_s": None})
    return suite.model_copy(update={"arrivals": arrivals})


def _clusters(name: str, chosen: ProblemSet) -> Iterator[Cluster]:
    """Yield a cluster with each execution that the set names, or as it is if it names none."""
    cluster = load_cluster(name)
    if not chosen.executions:
        yield cluster
    for execution in chosen.executions:
        yield cluster.model_copy(update={"execution": execution})


def _compiled(
    suite: SuiteSpec, cluster: Cluster, chosen: ProblemSet, *, train: bool
) -> Iterator[CompiledProblem]:
    """Yield the problems of a suite for each seed, without those that are too large."""
    for seed in chosen.seeds:
        problems = build_suite(suite, cluster, seed)
        if train:
            _check_families(suite.name, {w.family for p in problems for w in p.workflows})
        for problem in problems:
            if chosen.max_stages is None or problem.stage_count <= chosen.max_stages:
                yield compile_problem(problem)


def common_limits(problems: Iterable[CompiledProblem]) -> Limits:
    """Return sizes with room for every problem."""
    return reduce(Limits.join, map(Limits.of, problems))


def env_arguments(options: EnvOptions, limits: Limits) -> dict[str, Any]:
    """Return arguments of an environment whose observations have room for ``limits``."""
    return options.model_dump() | {
        "max_devices": limits.devices,
        "max_models": max(1, limits.models),
        "max_stages": limits.stages,
        "max_edges": max(1, limits.edges),
    }


def _check_families(suite: str, families: set[str]) -> None:
    templates = agentic_templates().values()
    kept = set(TEST_FAMILIES) | {t.family for t in templates if t.split == "test"}
    for family in sorted(families & kept):
        raise InputError(
            f"the family {family!r} is kept for testing",
            source=f"suite {suite!r}",
            field="curriculum.phases",
            remedy="train on suites of the split 'train'",
        )
