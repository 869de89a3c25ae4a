"""Where the problem of an episode comes from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fate_gym.env.facts import problem_facts
from fate_gym.env.faults import bad
from fate_gym.env.features import CANDIDATE_WIDTH
from fate_gym.env.named import is_name_of_object, named_object
from fate_gym.env.options import EnvOptions, SuiteOptions
from fate_gym.env.schema import EpisodeArrays, Run
from fate_gym.env.spec import Limits, Spec
from fate_gym.errors import InputError
from fate_gym.kernel.placements import new_placements
from fate_gym.kernel.schema import NO_LOG, StateArrays, new_state
from fate_gym.problem import Problem
from fate_gym.problem.problem import problem_from
from fate_gym.sim import CompiledProblem, compile_problem
from fate_gym.workloads import build_suite, load_cluster, load_problem_file, load_suite
from fate_gym.workloads.arrivals import Arrivals, arrival_times
from fate_gym.workloads.clusters import with_cluster
from fate_gym.workloads.load import capacity_per_s

_REMEDY = "give a problem, the name of a suite, a file, a list or a function"
Maker = Callable[[int], "Problem | CompiledProblem"]
_ONE = (Problem, CompiledProblem, Mapping, str, Path)
ProblemLike = Problem | CompiledProblem | Mapping[str, Any] | str | Path
ProblemSource = ProblemLike | Sequence[ProblemLike] | Maker
"""What an environment accepts as its problem.

A problem, or the content of a problem file; the name of a suite or the path of a problem file; a
sequence of these, from which each episode draws one; or a function from a seed to a problem, called
for each episode, or its name as ``"module:function"``.
"""


class Instance:
    """A problem ready to be played in a given environment.

    Attributes:
        compiled: the compiled problem.
        facts: the facts that observations need.
    """

    def __init__(self, compiled: CompiledProblem, spec: Spec) -> None:
        spec.check_fits(compiled)
        self.compiled = compiled
        self.facts = problem_facts(compiled, spec)
        self._slots = spec.options.window
        self._free: list[Run] = []

    def run(self, state: StateArrays) -> Run:
        """Allocate the arrays of an episode that begins in a state."""
        p, f = self.compiled.arrays, self.facts
        rows, devices = self._slots * f.positions, p.devices.size
        episode = EpisodeArrays.allocate(
            B=self._slots,
            K=f.shards,
            D=devices,
            S=p.stages.size,
            W=p.workflows.size,
            M=p.models.size,
            R=rows,
            O=f.objectives.size,
            CANDIDATE_F=CANDIDATE_WIDTH,
        )
        scratch = new_state(p) if p.batching else state
        placements = new_placements(rows, f.shards, devices)
        return Run(p, state, f, episode, placements, scratch, NO_LOG)

    def acquire(self) -> Run:
        """Return arrays for an episode with its own state, reusing released ones if possible."""
        if not self._free:
            return self.run(new_state(self.compiled.arrays))
        return self._free.pop()._replace(problem=self.compiled.arrays, facts=self.facts)

    def release(self, run: Run) -> None:
        """Let another episode of this problem, or of an `arriving` copy, reuse the arrays."""
        self._free.append(run)

    def arriving(self, times: NDArray[np.float64]) -> Instance:
        """Return the same workflows with other arrival times, without recompiling.

        Args:
            times: (A,) seconds, of the workflows that follow no other; the rest get arrival 0.
        """
        arrivals = np.zeros(self.compiled.arrays.workflows.size)
        firsts = np.sort(self.compiled.arrays.arrivals)
        arrivals[firsts] = times
        compiled = copy.copy(self.compiled)
        workflows = zip(compiled.problem.workflows, arrivals.tolist(), strict=True)
        compiled.problem = compiled.problem.model_copy(
            update={
                "workflows": tuple(w.model_copy(update={"arrival": time}) for w, time in workflows)
            }
        )
        compiled.arrays = compiled.arrays.copy()
        compiled.arrays.workflows["arrival"] = arrivals
        compiled.arrays.arrivals[:] = firsts[np.argsort(times, kind="stable")]
        other = copy.copy(self)
        other.compiled, other.facts = compiled, self.facts.copy()
        other.facts.first_arrival = float(times.min())
        return other


class Source:
    """Draws the problem of each episode.

    Problems of a fixed set are compiled once, when the source is made; a function makes a new
    problem for each episode, which is then compiled. The sizes for a function's problems are taken
    from its problem for seed 0; if others are larger, set max_devices and the like.

    Args:
        problem: where problems come from.
        options: options of the environment.
        suites: how problems are made from suites given by name.

    Attributes:
        spec: the sizes of the environment.
    """

    def __init__(
        self, problem: ProblemSource, options: EnvOptions, suites: SuiteOptions | None = None
    ) -> None:
        self._maker: Maker | None = None
        self._suites = suites or SuiteOptions()
        if is_name_of_object(problem):
            problem = named_object(problem, "problem")
        if callable(problem):
            self._maker = problem
            self._check_cluster([])
            compiled = [self._compile(problem(0), options)]
        else:
            if not isinstance(problem, (*_ONE, Sequence)):
                raise _not_a_problem(problem)
            items = [problem] if isinstance(problem, _ONE) else list(problem)
            self._check_cluster(items)
            compiled = [self._compile(p, options) for item in items for p in self._problems(item)]
        if not compiled:
            raise bad("environment", "problem", "no problem is given", _REMEDY)
        needs = reduce(Limits.join, (Limits.of(c) for c in compiled))
        self.spec = Spec(options, needs)
        self._instances = [Instance(c, self.spec) for c in compiled]
        for instance in self._instances:
            _check_arrivals(options.arrivals, instance.compiled.problem)

    def __len__(self) -> int:
        """Return the number of problems of a fixed set; 1 for a function."""
        return len(self._instances)

    def draw(self, rng: np.random.Generator) -> Instance:
        """Return the problem of the next episode, with arrivals drawn if the options ask for it."""
        if self._maker is not None:
            instance = self.instance(self._maker(int(rng.integers(2**31))))
        elif len(self._instances) == 1:
            instance = self._instances[0]
        else:
            instance = self._instances[int(rng.integers(len(self._instances)))]
        return self._arrive(instance, rng)

    def _arrive(self, instance: Instance, rng: np.random.Generator) -> Instance:
        process = self.spec.options.arrivals
        if process is None:
            return instance
        problem = instance.compiled.problem
        _check_arrivals(process, problem)
        capacity = capacity_per_s(problem) if process.load is not None else 0.0
        count = instance.compiled.arrays.arrivals.size
        times = np.empty(count)
        times[rng.permutation(count)] = arrival_times(process, rng, count, capacity_per_s=capacity)
        return instance.arriving(times)

    def choose(self, problem: Any, rng: np.random.Generator) -> Instance:
        """Return the problem that ``options["problem"]`` of a reset names, arrivals drawn likewise.

        Args:
            problem: a number of the set, or any single problem.
            rng: draws the arrivals.

        Raises:
            InputError: there is no such problem, or it does not fit the spaces.
        """
        return self._arrive(self._chosen(problem), rng)

    def _chosen(self, problem: Any) -> Instance:
        if isinstance(problem, int | np.integer) and not isinstance(problem, bool):
            if self._maker is None and 0 <= problem < len(self._instances):
                return self._instances[int(problem)]
            remedy = f"choose 0 to {len(self._instances) - 1}"
            if self._maker is not None:
                remedy = "give a problem: those of a function have no numbers"
            raise bad("environment", "problem", f"there is no problem {problem}", remedy)
        found = self._problems(problem)
        if len(found) != 1:
            fault = f"{problem!r} holds {len(found)} problems, an episode has one"
            raise bad("environment", "problem", fault, "give one of them")
        return self.instance(found[0])

    def instance(self, problem: Problem | CompiledProblem) -> Instance:
        """Compile a problem for this environment."""
        return Instance(self._compile(problem, self.spec.options), self.spec)

    def _problems(self, item: Any) -> Sequence[Problem | CompiledProblem]:
        if isinstance(item, Problem | CompiledProblem):
            return [item]
        if isinstance(item, Mapping):
            return [problem_from(with_cluster(dict(item), "problem"), "problem")]
        if _is_file(item):
            return [load_problem_file(item)]
        if isinstance(item, str):
            suite, cluster = load_suite(item), self._suites.cluster
            if cluster is None or isinstance(cluster, str):
                cluster = load_cluster(cluster or suite.cluster)
            return build_suite(suite, cluster, seed=self._suites.seed)
        raise _not_a_problem(item)

    def _check_cluster(self, items: Sequence[Any]) -> None:
        """Raise `InputError` if a cluster is given but no problem uses it."""
        if self._suites.cluster is None:
            return
        if not any(isinstance(item, str) and not _is_file(item) for item in items):
            fault = "the problems bring clusters of their own"
            remedy = "leave cluster out, or name a suite"
            raise bad("environment options", "cluster", fault, remedy)

    @staticmethod
    def _compile(problem: Problem | CompiledProblem, options: EnvOptions) -> CompiledProblem:
        if not isinstance(problem, Problem | CompiledProblem):
            raise _not_a_problem(problem)
        given = problem.problem if isinstance(problem, CompiledProblem) else problem
        names = ("uncertainty", "length_uncertainty")
        wanted = {name: getattr(options, name) for name in names}
        change = {
            name: value
            for name, value in wanted.items()
            if value is not None and value != getattr(given.options, name)
        }
        if not change:
            return compile_problem(problem)
        noisy = given.options.model_copy(update=change)
        return compile_problem(given.model_copy(update={"options": noisy}))


def _check_arrivals(process: Arrivals | None, problem: Problem) -> None:
    count = sum(workflow.follows is None for workflow in problem.workflows)
    if process is None or process.times is None or len(process.times) == count:
        return
    raise InputError(
        f"{len(process.times)} times for {count} workflows that follow no other",
        source="environment options",
        item=f"problem {problem.id!r}",
        field="arrivals.times",
        remedy="give a time for each of them, or a process",
    )


def _is_file(item: Any) -> bool:
    return isinstance(item, Path) or (isinstance(item, str) and item.endswith(".json"))


def _not_a_problem(item: Any) -> InputError:
    return bad("environment", "problem", f"a {type(item).__name__} is not a problem", _REMEDY)
