"""The simulator: one loop for every kind of policy."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fate_gym.catalog.limits import MOST_SEED
from fate_gym.errors import FateGymError, IllegalActionError
from fate_gym.kernel.advance import pass_time, start, wait
from fate_gym.kernel.commit import NOBODY, commit
from fate_gym.kernel.cost import split_queries
from fate_gym.kernel.draws import outage
from fate_gym.kernel.lookups import draws_made
from fate_gym.kernel.memory import rank_cached
from fate_gym.kernel.schema import (
    DONE,
    LIVE,
    NO_LOG,
    READY,
    VANISHED,
    LogArrays,
    ProblemArrays,
    StateArrays,
    new_log,
    new_state,
)
from fate_gym.problem import Problem
from fate_gym.sim.compile import CompiledProblem, compile_problem
from fate_gym.sim.policy import Assignment, CountingPolicy, Decision, Policy, Retention
from fate_gym.sim.recorder import Recorder
from fate_gym.sim.trace import OUTAGE_ROW, Trace
from fate_gym.sim.view import DecisionView

Floats = NDArray[np.float64]

_ATTEMPTS = 4
"""Log room in placements per stage when devices fail; `Simulator.place` extends it."""


@dataclass(frozen=True, eq=False)
class Moment:
    """A saved moment of a run (`Simulator.moment`)."""

    seed: int
    state: StateArrays
    log: LogArrays
    retentions: tuple[tuple[int, Retention], ...]


class Simulator:
    """Plays a problem forward, one decision at a time.

    Args:
        problem: a problem, or one compiled already (compile once, simulate often).
        seed: seed of noise, lengths, choices and failures (common random numbers: every policy
            meets the same).
        record: keep the rows of a `Trace`; otherwise only times are available.

    Attributes:
        compiled: the problem.
        state: the live state, which only the kernel may change.
        log: the rows so far; counted in ``state``.
        seed: seed of the run.
    """

    def __init__(
        self, problem: Problem | CompiledProblem, *, seed: int = 0, record: bool = True
    ) -> None:
        self.compiled = compile_problem(problem)
        self.state = new_state(self.compiled.arrays)
        stages, _, _, _, _, shards = self.compiled.shape
        self._record = record
        attempts = _ATTEMPTS if self.compiled.problem.options.failures else 1
        rows = stages * shards * attempts if record else 0
        waves = _further_waves(self.compiled.arrays) * attempts if record else 0
        self.log = new_log(rows, _entries_of_a_wave(self.compiled.arrays) * (rows + waves))
        self._devices = np.zeros(shards, np.int64)
        self._counts = np.zeros(shards, np.int64)
        self._decision_seconds: list[float] = []
        self._retentions: list[tuple[int, Retention]] = []
        self.reset(seed)

    def reset(self, seed: int = 0) -> None:
        """Go back to time 0, at the first decision."""
        if not 0 <= seed <= MOST_SEED:
            raise IllegalActionError(f"seed {seed} is not within 0 and {MOST_SEED}")
        self.seed = seed
        self._decision_seconds = []
        self._retentions = []
        start(self.compiled.arrays, self.state, self.log, seed)

    @property
    def now(self) -> float:
        """Simulated seconds."""
        return self.state.now

    @property
    def ready(self) -> list[int]:
        """Ready stages by (time they became ready, number)."""
        return self.view().ready

    @property
    def done(self) -> bool:
        """Whether every stage of every workflow has ended."""
        return bool((self.state.stages["status"] == DONE).all())

    def restore(self, state: StateArrays) -> None:
        """Copy the state of a simulator of the same compiled problem."""
        if state.buffer.shape != self.state.buffer.shape:
            raise IllegalActionError("the state belongs to another problem")
        self.state.buffer[:] = state.buffer
        del self._retentions[self.state.retentions :]

    def moment(self) -> Moment:
        """Save this moment of the run, its log included, for `resume`."""
        log = new_log(self.state.shard_rows, self.state.eviction_rows) if self._record else NO_LOG
        _copy_rows(self.log, log)
        return Moment(self.seed, self.state.copy(), log, tuple(self._retentions))

    def resume(self, moment: Moment) -> None:
        """Go to a saved moment of a run of the same problem, in this or another simulator."""
        self.restore(moment.state)
        self.seed = moment.seed
        self._retentions = list(moment.retentions)
        if self._record:
            self._reserve_rows(moment.log.shards.size, moment.log.evictions.size)
            _copy_rows(moment.log, self.log)

    def view(self) -> DecisionView:
        """Return what a policy sees now."""
        return DecisionView(self.compiled, self.state)

    def copy(self) -> Simulator:
        """Return an independent simulator in the same state."""
        other = Simulator(self.compiled, seed=self.seed, record=self._record)
        other.state.buffer[:] = self.state.buffer
        other.log = self.log.copy()
        other._decision_seconds = list(self._decision_seconds)
        other._retentions = list(self._retentions)
        return other

    def place(
        self,
        stage: int,
        devices: Sequence[int],
        counts: Sequence[int] | None = None,
        migrate_from: int | None = None,
    ) -> None:
        """Commit a ready stage to devices. Without counts the queries are split by speed.

        With ``migrate_from``, that device first sends them what it caches of the stage's prefix.

        Raises:
            IllegalActionError: the stage is not ready, a device cannot host it or is named twice,
                there are more devices than ``max_shards`` or queries, the counts are wrong, or
                ``migrate_from`` is no device.
        """
        k = self._check(stage, devices, counts)
        if migrate_from is not None and not 0 <= migrate_from < len(self.compiled.device_ids):
            raise IllegalActionError(
                f"stage {self.compiled.stage_ids[stage]}: no device {migrate_from} to migrate from"
            )
        self.extend_log()
        self._devices[:k] = devices
        if counts is None:
            split_queries(self.compiled.arrays, stage, self._devices, k, self._counts)
        else:
            self._counts[:k] = counts
        source = NOBODY if migrate_from is None else migrate_from
        p, st, log = self.compiled.arrays, self.state, self.log
        commit(p, st, log, stage, self._devices, self._counts, k, source)

    def retain(self, retention: Retention) -> None:
        """Evict by these values from now on, instead of by LRU or by an earlier retention.

        Raises:
            IllegalActionError: an array has the wrong shape or contains NaN.
        """
        rank_cached(self.state, *_values(self.compiled, retention))
        rows = self.state.shard_rows
        copied = [None if a is None else np.array(a) for a in _arrays(retention)]
        self._retentions.append((rows, Retention(*copied)))

    def wait(self) -> None:
        """Go to the next event at which a stage is ready (or to the end).

        Raises:
            IllegalActionError: no event lies ahead.
        """
        self.extend_log()
        before = self.state.copy() if self._preempts else None
        if not wait(self.compiled.arrays, self.state, self.log):
            raise IllegalActionError(
                "waiting is illegal when no event lies ahead: place a ready stage"
            )
        while before is not None and self.state.eviction_rows > self.log.evictions.size:
            # How often shards are preempted is not known in advance: repeat with more room.
            self._reserve_rows(self.log.shards.size, 2 * self.state.eviction_rows)
            self.state.buffer[:] = before.buffer
            wait(self.compiled.arrays, self.state, self.log)

    def run(
        self,
        policy: Policy,
        *,
        seed: int | None = None,
        charge_planning: bool = False,
        recorder: Recorder | None = None,
    ) -> Trace:
        """Play a whole run.

        Args:
            policy: the policy that decides.
            seed: seed of the run (default: the simulator's) and of the policy.
            charge_planning: let the wall-clock time that a decision takes pass in the simulated
                world before its placements are made. Runs are then no longer reproducible.
            recorder: records what was compared in each decision; it does not change the run.
        """
        self.reset(self.seed if seed is None else seed)
        view = self.view()
        policy.reset(view, self.seed)
        while True:
            if self.state.ready_count == 0:
                if self.done:
                    break
                self.wait()
                continue
            start = perf_counter()
            decisions = policy.decide(view)
            seconds = perf_counter() - start
            self._decision_seconds.append(seconds)
            if recorder is not None:
                recorder.decided(policy, view)
            events = self._pass_time(seconds) if charge_planning else 0
            if events:
                # The world has moved on: apply what is still legal, then ask again.
                self._apply_what_is_legal(decisions, recorder)
            elif not self.apply(decisions, recorder):
                self.wait()
        counters = policy.counters if isinstance(policy, CountingPolicy) else {}
        return self.trace(policy.name, counters)

    def _pass_time(self, seconds: float) -> int:
        """Let ``seconds`` pass, events included; return the number of instants with events."""
        return pass_time(self.compiled.arrays, self.state, self.log, seconds)

    def _apply_what_is_legal(
        self, decisions: Sequence[Decision], recorder: Recorder | None
    ) -> None:
        for one in decisions:
            with suppress(IllegalActionError):
                self.apply([one], recorder)

    def apply(self, decisions: Sequence[Decision], recorder: Recorder | None = None) -> int:
        """Apply a policy's decisions in order; return how many stages were placed."""
        placed = 0
        for one in decisions:
            if isinstance(one, Assignment):
                met = None if recorder is None else recorder.estimates(self.view(), one)
                self.place(one.stage, one.devices, one.counts, one.migrate_from)
                if recorder is not None and met is not None:
                    recorder.placed(self.view(), one, met)
                placed += 1
            else:
                self.retain(one)
        return placed

    def trace(self, policy: str = "", counters: dict[str, float] | None = None) -> Trace:
        """Return the trace so far; it is complete when `done`."""
        compiled = self.compiled
        shards, evictions = self.state.shard_rows, self.state.eviction_rows
        if self._record and (shards > self.log.shards.size or evictions > self.log.evictions.size):
            raise FateGymError(
                "so many shards were lost or preempted that the log of the run is not complete: "
                "play it with Simulator.run, whose log grows"
            )
        ends = self.state.stages["end"].copy()
        draws = np.full(ends.size, np.nan)
        draws_made(compiled.arrays, self.state, draws)
        firsts = compiled.arrays.workflows["stages_from"]
        return Trace(
            problem=compiled.problem,
            policy=policy,
            seed=self.seed,
            stage_ids=compiled.stage_ids,
            device_ids=compiled.device_ids,
            model_names=compiled.model_names,
            prefix_keys=compiled.prefix_keys,
            shards=self.log.shards[:shards].copy(),
            evictions=self.log.evictions[:evictions].copy(),
            stage_ready=self.state.stages["ready_at"].copy(),
            stage_end=ends,
            workflow_arrival=self.state.workflows["arrived_at"].copy(),
            workflow_end=np.maximum.reduceat(ends, firsts),
            workflow_of=compiled.workflow_of.copy(),
            stage_vanished=self.state.stages["note"] == VANISHED,
            draws=draws,
            outages=self._outages(),
            decision_seconds=np.array(self._decision_seconds),
            counters=dict(counters or {}),
            retentions=list(self._retentions),
        )

    def extend_log(self) -> None:
        """Make room in the log for what a placement or a wait can write: lost shards need rows too.

        `place` and `wait` call it. A caller that lets compiled code play step by step has to call
        it too, and to read `log` again afterwards: it may have been replaced.
        """
        if not self._record:
            return
        if self._preempts and 2 * self.state.eviction_rows > self.log.evictions.size:
            self._reserve_rows(self.log.shards.size, 2 * self.log.evictions.size)
        if self.compiled.problem.options.failures is None:
            return
        # Each tool starts once, and one placement is made at a time.
        stages, _, _, _, _, shards = self.compiled.shape
        rows = self.state.shard_rows + stages + shards
        if rows > self.log.shards.size:
            self._reserve_rows(2 * self.log.shards.size, 2 * self.log.evictions.size)

    @property
    def _preempts(self) -> bool:
        """Whether shards may be preempted and evict again on return, any number of times."""
        p = self.compiled.arrays
        return bool(self._record and p.batching and p.length_uncertainty > 0.0)

    def _reserve_rows(self, shards: int, evictions: int) -> None:
        if shards > self.log.shards.size or evictions > self.log.evictions.size:
            longer = new_log(
                max(shards, self.log.shards.size), max(evictions, self.log.evictions.size)
            )
            _copy_rows(self.log, longer)
            self.log = longer

    def _outages(self) -> NDArray[Any]:
        """Return (O,) the failures so far: device, down, up."""
        failures = self.compiled.problem.options.failures
        devices = len(self.compiled.device_ids)
        rows: list[tuple[int, float, float]] = []
        if failures is not None and self.state.origin == LIVE:
            for d in range(devices):
                for number in range(-(-int(self.state.devices["changes"][d]) // 2)):
                    down, up = outage(self.compiled.arrays, self.state, d, number)
                    rows.append((d, down, up))
        rows.sort(key=lambda row: (row[1], row[0]))
        return np.array(rows, OUTAGE_ROW)

    def _check(self, stage: int, devices: Sequence[int], counts: Sequence[int] | None) -> int:
        p = self.compiled.arrays
        k = len(devices)
        if not 0 <= stage < p.stages.size or self.state.stages["status"][stage] != READY:
            raise IllegalActionError(f"stage {stage} is not ready")
        name = self.compiled.stage_ids[stage]
        if not 1 <= k <= self._devices.size:
            raise IllegalActionError(
                f"stage {name}: {k} devices; 1 to {self._devices.size} are legal"
            )
        if len(set(devices)) < k:
            raise IllegalActionError(f"stage {name}: a device stands twice in {list(devices)}")
        clean = p.clean_seconds[stage]
        for d in devices:
            if not 0 <= d < clean.size or clean[d] == np.inf:
                raise IllegalActionError(f"stage {name}: device {d} cannot host it")
            if self.state.devices["drains_at"][d] == np.inf:
                raise IllegalActionError(f"stage {name}: device {d} is down")
        queries = int(p.stages["queries"][stage])
        if k > queries:
            raise IllegalActionError(f"stage {name}: {k} devices for {queries} queries")
        if counts is not None and (len(counts) != k or min(counts) < 1 or sum(counts) != queries):
            raise IllegalActionError(
                f"stage {name}: counts {list(counts)} are not {k} positive numbers "
                f"that sum to {queries}"
            )
        return k


def _entries_of_a_wave(p: ProblemArrays) -> int:
    """Return the most cached entries that a wave adds, and that can thus be evicted.

    These are a prefix path, its contexts and its weights.
    """
    depths = np.ones(p.prefixes.size + 1, np.int64)
    for q, parent in enumerate(p.prefixes["parent"]):
        depths[q] = 1 + (depths[parent] if parent >= 0 else 0)
    return int(depths.max()) + 2


def _further_waves(p: ProblemArrays) -> int:
    """Return the most waves beyond the first of each shard, over all stages; batching only."""
    if not p.batching:
        return 0
    smallest = np.maximum(1, p.batch.min(axis=1, where=np.isfinite(p.clean_seconds), initial=2**31))
    return int((-(-p.stages["queries"] // smallest)).sum())


def _copy_rows(source: LogArrays, target: LogArrays) -> None:
    """Copy as many rows as both logs have room for."""
    for name in ("shards", "evictions"):
        rows, room = getattr(source, name), getattr(target, name)
        count = min(rows.size, room.size)
        room[:count] = rows[:count]


def _arrays(retention: Retention) -> tuple[NDArray[Any] | None, ...]:
    return retention.prefixes, retention.contexts, retention.models, retention.until


def _values(compiled: CompiledProblem, retention: Retention) -> tuple[Floats, Floats]:
    """Return a retention as the state's ``keep`` and ``keep_until``.

    Raises:
        IllegalActionError: an array has the wrong shape or contains NaN.
    """
    stages, devices, models, prefixes, _, _ = compiled.shape
    names = ("prefixes", "contexts", "models", "until")
    shapes: tuple[list[tuple[int, ...]], ...] = (
        [(prefixes,), (devices, prefixes)],
        [(stages,)],
        [(models,), (devices, models)],
        [(prefixes,), (devices, prefixes)],
    )
    for name, given, legal in zip(names, _arrays(retention), shapes, strict=True):
        if given is not None and (given.shape not in legal or np.isnan(given).any()):
            expected = " or ".join(map(str, legal))
            raise IllegalActionError(
                f"retention: {name} has shape {given.shape}; {expected} without NaN is legal"
            )
    on_prefixes, on_contexts, on_models = (0.0 if a is None else a for a in _arrays(retention)[:3])
    until = np.inf if retention.until is None else retention.until
    values = np.concatenate(
        [
            np.broadcast_to(on_prefixes, (devices, prefixes)).ravel(),
            np.broadcast_to(on_contexts, stages),
            np.broadcast_to(on_models, (devices, models)).ravel(),
        ],
        dtype=np.float64,
    )
    ends = np.array(np.broadcast_to(until, (devices, prefixes)), np.float64, order="C")
    return values, ends
