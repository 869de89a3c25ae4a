"""What a policy sees of a run: read-only, estimates only, nothing of the future."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fate_gym.compiled import compiled
from fate_gym.sim import cost, engine
from fate_gym.sim.groups import ARRAYS, reads
from fate_gym.sim.layout import (
    DONE,
    TOOL_STAGE,
    VANISHED,
    Array,
    Buffer,
    ProblemView,
    StateView,
    problem_view,
    state_view,
)

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


class Request(NamedTuple):
    """What everybody sees of a ready stage: the request as it came in.

    Attributes:
        workflow: number of its workflow.
        model: number of its model, -1 without.
        queries: in the batch.
        prefix: key of the shared prefix, -1 without.
        prefix_tokens: of the shared prefix.
        own_tokens: further prompt tokens of each query, inherited ones included.
    """

    workflow: int
    model: int
    queries: int
    prefix: int
    prefix_tokens: int
    own_tokens: int


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
    @reads(ARRAYS)
    def compiled(self) -> CompiledProblem:
        """The problem. A policy reads of it only what has arrived."""
        return self._compiled

    @property
    def devices(self) -> int:
        """How many devices there are."""
        return int(self._problem.devices.size)

    @property
    def now(self) -> float:
        """Simulated seconds."""
        return float(self._state.head[0]["now"])

    @property
    def instant(self) -> int:
        """Counts the instants with events so far; two of them may have the same time."""
        return int(self._state.head[0]["instants"])

    @property
    @reads("queues")
    def any_idle(self) -> bool:
        """Whether some device is up and runs nothing."""
        devices = self._state.devices
        return bool(((devices["queue_head"] < 0) & (devices["drains_at"] < np.inf)).any())

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
        """Whether an event lies ahead (failures, which nobody foresees, apart)."""
        return bool(_can_wait(self._compiled.buffer, self._buffer))

    @reads(ARRAYS)
    def stage(self, stage: int) -> dict[str, Any]:
        """The static record of a stage (fields: `fate_gym.sim.layout.STAGE`)."""
        record = self._problem.stages[stage]
        return {name: record[name].item() for name in record.dtype.names}

    def eligible(self, stage: int) -> Integers:
        """(n,) devices that can host the stage now: those that are down cannot."""
        up = self._state.devices["drains_at"] < np.inf
        return np.flatnonzero((self._problem.clean_seconds[stage] < np.inf) & up)

    @property
    def up(self) -> NDArray[np.bool_]:
        """(D,) devices that have not failed, or are up again."""
        return self._state.devices["drains_at"] < np.inf

    @reads("costs")
    def clean_seconds(self, stage: int) -> Floats:
        """(D,) prefill + decode with nothing cached; inf where the stage cannot run."""
        return self._problem.clean_seconds[stage].copy()

    @reads("drains")
    def drain_estimates(self) -> Floats:
        """(D,) when each device's queue is expected to be empty, not before now.

        Of a device that is down: when its repair is expected.
        """
        _drains(self._compiled.buffer, self._buffer, self._matrix)
        repaired = self.now + float(self._problem.head["mttr_s"][0])
        return np.where(self._matrix < np.inf, self._matrix, repaired)

    @reads("estimates")
    def end_estimates(self, stage: int) -> Floats:
        """(D,) EFT*: expected end of the whole stage on each device; inf where it cannot run."""
        _ends(self._compiled.buffer, self._buffer, stage, self._matrix)
        return self._matrix.copy()

    @reads("estimates")
    def estimate(self, stage: int, device: int, migrate_from: int | None = None) -> Estimate:
        """The parts of the cost of the whole stage on one device.

        With ``migrate_from`` that device first sends what it caches of the stage's prefix.
        """
        source = -1 if migrate_from is None else migrate_from
        return Estimate(*_parts(self._compiled.buffer, self._buffer, stage, device, source))

    @reads("residency")
    def resident(self, stage: int) -> NDArray[np.bool_]:
        """(D,) where the stage's model is loaded. All False for a stage without a model."""
        model = int(self._problem.stages[stage]["model"])
        if model < 0:
            return np.zeros(self._problem.devices.size, np.bool_)
        return self._state.resident[:, model] > 0

    @reads("prefixes")
    def cached_prefix_tokens(self, stage: int) -> Integers:
        """(D,) tokens of the stage's prefix that each device caches."""
        key = int(self._problem.stages[stage]["prefix"])
        if key < 0:
            return np.zeros(self._problem.devices.size, np.int64)
        cached = self._state.prefix_tokens[:, key]
        return np.minimum(cached, self._problem.stages[stage]["prefix_tokens"]).astype(np.int64)

    def request(self, stage: int) -> Request:
        """What everybody sees of a ready stage."""
        s = self._problem.stages[stage]
        return Request(
            int(s["workflow"]),
            int(s["model"]),
            int(s["queries"]),
            int(s["prefix"]),
            int(s["prefix_tokens"]),
            int(s["prompt_tokens"]) + int(s["inherited_tokens"]),
        )

    @reads("prefixes")
    def prefix_loading(self, stage: int) -> NDArray[np.bool_]:
        """(D,) where the stage's prefix is still being computed, or on its way."""
        key = int(self._problem.stages[stage]["prefix"])
        if key < 0:
            return np.zeros(self._problem.devices.size, np.bool_)
        there: NDArray[np.bool_] = self._state.prefix_there[:, key] > self.now
        return there & (self._state.prefix_tokens[:, key] > 0)

    @reads("queues")
    def idle(self) -> NDArray[np.bool_]:
        """(D,) devices that are up and without a shard."""
        devices = self._state.devices
        return (devices["queue_head"] < 0) & (devices["drains_at"] < np.inf)

    @reads("queues")
    def outstanding(self) -> Integers:
        """(D,) shards that run or wait on each device."""
        _outstanding(self._compiled.buffer, self._buffer, self._matrix)
        return self._matrix.astype(np.int64)

    @reads("memory")
    def free_bytes(self) -> Floats:
        """(D,) memory taken by neither weights nor cached KV."""
        devices = self._state.devices
        free: Floats = self._problem.devices["memory"] - devices["weight_bytes"]
        return free - devices["kv_bytes"]

    @reads("contexts")
    def cached_context_tokens(self, stage: int) -> Floats:
        """(D,) inherited tokens of one query that each device caches, a mean over the queries."""
        _contexts(self._compiled.buffer, self._buffer, stage, self._matrix)
        return self._matrix.copy()

    @reads("memory", "residency")
    def missing_bytes(self, stage: int) -> Floats:
        """(D,) weights of the stage's model where it is not resident; 0 where it is."""
        model = int(self._problem.stages[stage]["model"])
        if model < 0:
            return np.zeros(self._problem.devices.size)
        missing = self._state.resident[:, model] == 0
        return missing * float(self._problem.models[model]["weight_bytes"])

    @reads("costs")
    def load_seconds(self, stage: int) -> Floats:
        """(D,) to load the stage's model where it is not resident; 0 for a stage without one."""
        model = int(self._problem.stages[stage]["model"])
        if model < 0:
            return np.zeros(self._problem.devices.size)
        return self._problem.load_seconds[model].copy()

    @reads("costs")
    def prefill_seconds(self, stage: int, cached: Integers) -> Floats:
        """(D,) prefill of the whole stage with ``cached`` (D,) prefix tokens; inf: cannot run.

        Zero for a stage without a model.
        """
        _prefills(self._compiled.buffer, stage, cached, self._matrix)
        return self._matrix.copy()

    @reads("costs")
    def usd_per_hour(self) -> Floats:
        """(D,) price of each device; 0 for one without a GPU."""
        problem = self._compiled.problem
        gpus = [device.gpu for device in problem.cluster.devices]
        return np.array(
            [0.0 if gpu is None else problem.gpu_facts[gpu].usd_per_hour for gpu in gpus]
        )

    @reads("places")
    def local_bytes(self, stage: int) -> Floats:
        """(D,) bytes of the stage's inputs that lie on each device."""
        _local(self._compiled.buffer, self._buffer, stage, self._matrix)
        return self._matrix.copy()

    @reads("places", "links")
    def transfer_seconds(self, stage: int) -> Floats:
        """(D,) to bring the stage's inputs to each device, from the time its queue has drained.

        With contention the wait for the network is part of it: who sees the links sees what is
        booked on them.
        """
        _transfers(self._compiled.buffer, self._buffer, stage, self._matrix)
        return self._matrix.copy()

    @reads("links")
    def prefix_transfer_seconds(self, stage: int, source: int, tokens: Integers) -> Floats:
        """(D,) to send ``tokens`` (D,) of the stage's prefix from device ``source``."""
        model = int(self._problem.stages[stage]["model"])
        kv = 0.0 if model < 0 else float(self._problem.models[model]["kv"])
        seconds: Floats = tokens * kv / self._problem.link_bandwidth[source]
        return seconds + self._problem.link_latency[source]

    @reads("progress")
    def arrival(self, workflow: int) -> float:
        """When a workflow arrived; inf for one that has not."""
        time = float(self._problem.workflows[workflow]["arrival"])
        return time if time <= self.now else np.inf

    @reads("progress")
    def parents(self, stage: int) -> list[int]:
        """The stages whose outputs a ready stage has got."""
        s = self._problem.stages[stage]
        return self._problem.edges["parent"][s["parents_from"] : s["parents_to"]].tolist()

    @reads("progress")
    def service_seconds(self, stage: int) -> float:
        """Seconds from the first start of a finished stage's shards to its end; 0 for tools."""
        record = self._state.stages[stage]
        if record["status"] != DONE or record["note"] == VANISHED:
            return 0.0
        if self._problem.stages[stage]["kind"] == TOOL_STAGE:
            return 0.0
        return float(record["end"] - self._state.slots[stage, : record["shards"]]["start"].min())

    @reads("dag")
    def vanished(self, stage: int) -> bool:
        """Whether it has been drawn that the stage does not live."""
        return bool(self._state.stages["note"][stage] == VANISHED)

    @reads(ARRAYS)
    def fork(self, out: Buffer | None = None, *, seed: int | None = None) -> Buffer:
        """A state of one's own to play forward: estimates for durations, no future arrivals.

        Choices that are not made yet take the likely outcome; no device fails, and one that is
        down is repaired after the mean time from now. With ``seed`` durations, lengths and
        choices are drawn by it instead: for rollouts over samples.
        """
        if out is None:
            out = self._buffer.copy()
        else:
            out[:] = self._buffer
        if seed is None:
            _fork(self._compiled.buffer, self._buffer, out)
        else:
            engine.fork_sampled(self._compiled.buffer, self._buffer, out, seed)
        return out


@compiled
def _can_wait(problem: Buffer, state: Buffer) -> bool:
    p = problem_view(problem)
    return engine.can_wait(p, state_view(state, p))


@compiled
def _outstanding(problem: Buffer, state: Buffer, out: Array) -> None:
    p = problem_view(problem)
    st = state_view(state, p)
    shards = p.head[0].max_shards
    for d in range(out.size):
        count = 0
        number = st.devices[d].queue_head
        while number >= 0:
            count += 1
            number = st.slots[number // shards, number % shards].next
        out[d] = count


@compiled
def _prefills(problem: Buffer, s: int, cached: Array, out: Array) -> None:
    p = problem_view(problem)
    n = int(p.stages[s].queries)
    for d in range(out.size):
        if p.clean_seconds[s, d] == np.inf:
            out[d] = np.inf
        elif p.stages[s].model < 0:
            out[d] = 0.0
        else:
            hit = float(min(cached[d], p.stages[s].prefix_tokens))
            out[d] = cost.prefill_seconds(p, s, d, n, hit, 0.0)


@compiled
def _local(problem: Buffer, state: Buffer, s: int, out: Array) -> None:
    p = problem_view(problem)
    st = state_view(state, p)
    out[:] = 0.0
    for e in range(p.stages[s].parents_from, p.stages[s].parents_to):
        edge = p.edges[e]
        parent = p.stages[edge.parent]
        if parent.kind == TOOL_STAGE:
            continue
        for k in range(st.stages[edge.parent].shards):
            slot = st.slots[edge.parent, k]
            if slot.kept < 0:
                # The device has failed since; what it had put out is on its host.
                continue
            out[slot.device] += edge.bytes * slot.queries / parent.queries


@compiled
def _contexts(problem: Buffer, state: Buffer, s: int, out: Array) -> None:
    p = problem_view(problem)
    st = state_view(state, p)
    for d in range(out.size):
        out[d] = cost.context_hit_tokens(p, st, s, d)


@compiled
def _transfers(problem: Buffer, state: Buffer, s: int, out: Array) -> None:
    p = problem_view(problem)
    st = state_view(state, p)
    for d in range(out.size):
        turn = cost.drain_estimate(p, st, d)
        out[d] = np.inf
        if turn < np.inf:
            out[d], _ = cost.transfer_seconds(p, st, s, d, 1.0, turn)


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
    problem: Buffer, state: Buffer, s: int, d: int, source: int
) -> tuple[float, float, float, float, float]:
    p = problem_view(problem)
    st = state_view(state, p)
    turn = cost.drain_estimate(p, st, d)
    n = int(p.stages[s].queries)
    load, transfer, prefill, decode, _ = cost.shard_cost(p, st, s, d, n, turn)
    if source >= 0:
        copied, later, fetch, rest, _ = cost.migrated_cost(
            problem, state, s, d, n, turn, source, True
        )
        if copied > 0.0:
            turn, transfer, prefill = later, fetch, rest
    return turn, load, transfer, prefill, decode


@compiled
def _fork(problem: Buffer, state: Buffer, out: Buffer) -> None:
    p = problem_view(problem)
    engine.fork(p, state_view(state, p), state_view(out, p))
