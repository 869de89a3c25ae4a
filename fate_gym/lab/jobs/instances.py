"""The problems of a job, with what does not depend on its policy.

Jobs of a sweep that differ only in their policy follow one another, so the last job's are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np

from fate_gym.lab.jobs.config import EvaluateConfig
from fate_gym.lab.jobs.schedules import ShardRow, shard_rows
from fate_gym.metrics.arrays import Bools
from fate_gym.metrics.bounds import LowerBounds, problem_bounds
from fate_gym.metrics.intensity import problem_state_intensity
from fate_gym.problem import Problem
from fate_gym.sim import CompiledProblem, Simulator, Trace, compile_problem
from fate_gym.workloads import build_suite
from policies.registry import make_policy

REFERENCE = "round_robin"


class Instance:
    """A problem and a seed, and round robin's run of it.

    Attributes:
        compiled: the compiled problem.
        seed: of the run, as configured.
    """

    def __init__(self, problem: Problem, seed: int) -> None:
        self.compiled: CompiledProblem = compile_problem(problem)
        self.seed = seed

    @property
    def problem(self) -> Problem:
        return self.compiled.problem

    @property
    def drawn(self) -> int:
        """Seed of the random draws: see `draw_seed`."""
        return draw_seed(self.problem.id, self.seed)

    @cached_property
    def reference(self) -> Trace:
        """Round robin's run, with the same random draws as every other policy's."""
        return Simulator(self.compiled).run(make_policy(REFERENCE), seed=self.drawn)

    @cached_property
    def reference_shards(self) -> list[ShardRow]:
        """The shards of round robin's run, seconds."""
        return shard_rows(self.reference, self.compiled, REFERENCE)

    @cached_property
    def state_intensity(self) -> float:
        """See `fate_gym.metrics.intensity`."""
        return problem_state_intensity(self.compiled)

    def bounds(self, vanished: Bools) -> LowerBounds:
        """Return the lower bounds of a run in which these stages vanish, (S,)."""
        return problem_bounds(self.compiled, vanished) if vanished.any() else self._bounds

    @cached_property
    def _bounds(self) -> LowerBounds:
        return problem_bounds(self.compiled, np.zeros(self.problem.stage_count, dtype=bool))


@dataclass(frozen=True)
class _Key:
    """Identifies the instances of a job; the configuration itself is not compared."""

    suite_hash: str
    seed: int
    config: EvaluateConfig = field(compare=False)


def job_instances(config: EvaluateConfig) -> Sequence[Instance]:
    """Return the instances of a job, those of the job before if they are the same.

    Raises:
        InputError: as `fate_gym.workloads.build_suite` does.
    """
    return _instances(_Key(config.suite_hash, config.seed, config))


@lru_cache(maxsize=1)
def _instances(key: _Key) -> Sequence[Instance]:
    config = key.config
    problems = build_suite(config.suite, config.cluster, config.seed)
    return tuple(Instance(problem, config.seed) for problem in problems)


def draw_seed(problem: str, seed: int) -> int:
    """Derive the seed of a problem's random draws from its id and the run's seed.

    Noise depends only on seed, stage number and device: without this all problems of a suite would
    share it, and intervals over problems would be far too narrow.
    """
    digest = hashlib.blake2b(f"{problem} {seed}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big")
