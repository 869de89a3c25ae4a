"""What a policy sees of a run: read-only, estimates only, nothing of the future."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fate_gym.compiled import compiled
from fate_gym.sim import cost, engine
from fate_gym.sim.layout import Array, Buffer, ProblemView, StateView, problem_view, state_view

if TYPE_CHECKING:
    from fate_gym.sim.compile import CompiledProblem

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Estimate(NamedTuple):
    """The parts of what a stage is expected to cost on one device, seconds."""

    turn: float
    load: float
    transfer: float
    prefill: float
    decode: float

    @property
    def end(self) -> float:
        return self.turn + max(self.load, self.transfer) + self.prefill + self.decode


class DecisionView:
    """A window on a running simulation. Arrays are fresh copies: writing to them changes nothing.

    Stage and device numbers are those of ``compiled``. Residency and caches of a device are as
    they will be when its queue has drained: just what the next shard placed on it will meet.
    """

    def __init__(self, compiled: CompiledProblem, state: StateView, buffer: Buffer) -> None:
        self._compiled = compiled
        self._problem: ProblemView = compiled.view
        self._state = state
        self._buffer = buffer
        self._matrix = np.empty(compiled.view.devices.size)

    @property
    def compiled(self) -> CompiledProblem:
        """The problem. A policy reads of it only what has arrived."""
        return self._compiled

    @property
    def now(self) -> float:
        """Simulated seconds."""
        return float(self._state.head[0]["now"])

    @property
    def instant(self) -> int:
        """Counts the instants with events so far; two of them may have the same time."""
        return int(self._state.head[0]["instants"])

    @property
    def any_idle(self) -> bool:
        """Whether some device runs nothing."""
        return bool((self._state.devices["queue_head"] < 0).any())

    @property
    def ready(self) -> list[int]:
        """Ready stages by (time they became ready, number)."""
        count = int(self._state.head[0]["ready"])
        return self._state.ready[:count].tolist()

    @property
    def arrived(self) -> list[int]:
        """Workflows that have arrived, in order of arrival."""
        return self._problem.arrivals[: int(self._state.head[0]["next_arrival"])].tolist()

    @property
    def can_wait(self) -> bool:
        """Whether an event lies ahead."""
        return bool(_can_wait(self._compiled.buffer, self._buffer))

    def stage(self, stage: int) -> dict[str, Any]:
        """The static record of a stage (fields: `fate_gym.sim.layout.STAGE`)."""
        record = self._problem.stages[stage]
        return {name: record[name].item() for name in record.dtype.names}

    def eligible(self, stage: int) -> Integers:
        """(n,) devices that can host the stage."""
        return np.flatnonzero(self._problem.clean_seconds[stage] < np.inf)

    def clean_seconds(self, stage: int) -> Floats:
        """(D,) prefill + decode with nothing cached; inf where the stage cannot run."""
        return self._problem.clean_seconds[stage].copy()

    def drain_estimates(self) -> Floats:
        """(D,) when each device's queue is expected to be empty, not before now."""
        _drains(self._compiled.buffer, self._buffer, self._matrix)
        return self._matrix.copy()

    def end_estimates(self, stage: int) -> Floats:
        """(D,) EFT*: expected end of the whole stage on each device; inf where it cannot run."""
        _ends(self._compiled.buffer, self._buffer, stage, self._matrix)
        return self._matrix.copy()

    def estimate(self, stage: int, device: int) -> Estimate:
        """The parts of the cost of the whole stage on one device."""
        return Estimate(*_parts(self._compiled.buffer, self._buffer, stage, device))

    def resident(self, stage: int) -> NDArray[np.bool_]:
        """(D,) where the stage's model is loaded. All False for a stage without a model."""
        model = int(self._problem.stages[stage]["model"])
        if model < 0:
            return np.zeros(self._problem.devices.size, np.bool_)
        return self._state.resident[:, model] > 0

    def cached_prefix_tokens(self, stage: int) -> Integers:
        """(D,) tokens of the stage's prefix that each device caches."""
        key = int(self._problem.stages[stage]["prefix"])
        if key < 0:
            return np.zeros(self._problem.devices.size, np.int64)
        cached = self._state.prefix_tokens[:, key]
        return np.minimum(cached, self._problem.stages[stage]["prefix_tokens"]).astype(np.int64)

    def fork(self, out: Buffer | None = None) -> Buffer:
        """A state of one's own to play forward: estimates for durations, no future arrivals."""
        if out is None:
            out = self._buffer.copy()
        else:
            out[:] = self._buffer
        _fork(self._compiled.buffer, self._buffer, out)
        return out


@compiled
def _can_wait(problem: Buffer, state: Buffer) -> bool:
    p = problem_view(problem)
    return engine.next_event_time(p, state_view(state, p)) < np.inf


@compiled
def _drains(problem: Buffer, state: Buffer, out: Array) -> None:
    p = problem_view(problem)
    st = state_view(state, p)
    for d in range(out.size):
        out[d] = cost.drain_estimate(p, st, d)


@compiled
def _ends(problem: Buffer, state: Buffer, s: int, out: Array) -> None:
    p = problem_view(problem)
    st = state_view(state, p)
    for d in range(out.size):
        out[d] = cost.end_estimate(p, st, s, d)


@compiled
def _parts(
    problem: Buffer, state: Buffer, s: int, d: int
) -> tuple[float, float, float, float, float]:
    p = problem_view(problem)
    st = state_view(state, p)
    turn = cost.drain_estimate(p, st, d)
    load, transfer, prefill, decode, _ = cost.shard_cost(
        p, st, s, d, int(p.stages[s].queries), turn
    )
    return turn, load, transfer, prefill, decode


@compiled
def _fork(problem: Buffer, state: Buffer, out: Buffer) -> None:
    p = problem_view(problem)
    engine.fork(p, state_view(state, p), state_view(out, p))
