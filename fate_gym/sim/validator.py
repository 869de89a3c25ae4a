"""An independent check of a trace: a second implementation of the execution model.

Everything here is written from ``docs/execution-model.md`` alone, in plain Python, and shares no
code with the engine: a fault must be made twice, in two ways, to go unseen. Speed does not matter.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, Protocol, TypeVar

from fate_gym import catalog
from fate_gym.catalog import GB, Execution, Gpu, Model
from fate_gym.problem import Device, Problem, Stage, Workflow

T = TypeVar("T")

TOLERANCE = 1e-9
"""Relative difference that counts as rounding."""

PREFIX, CONTEXT, WEIGHTS = 0, 1, 2
"""Kinds of evicted objects."""

HOST = -1
"""Device number of a tool stage."""

GRAZE = 1e-9
"""Seconds by which two fetches may overlap."""


class TraceLike(Protocol):
    """The attributes of `fate_gym.sim.Trace` that the validator reads.

    ``shards`` and ``evictions`` are sequences of rows indexed by field name.
    """

    @property
    def problem(self) -> Problem: ...
    @property
    def stage_ids(self) -> Sequence[tuple[str, str]]: ...
    @property
    def model_names(self) -> Sequence[str]: ...
    @property
    def prefix_keys(self) -> Sequence[tuple[str, str]]: ...
    @property
    def device_ids(self) -> Sequence[str]: ...
    @property
    def shards(self) -> Any: ...
    @property
    def evictions(self) -> Any: ...
    @property
    def retentions(self) -> Sequence[tuple[int, Any]]: ...
    @property
    def stage_ready(self) -> Any: ...
    @property
    def stage_end(self) -> Any: ...
    @property
    def workflow_arrival(self) -> Any: ...
    @property
    def workflow_end(self) -> Any: ...
    @property
    def workflow_of(self) -> Any: ...
    @property
    def stage_vanished(self) -> Any: ...
    @property
    def draws(self) -> Any: ...
    @property
    def outages(self) -> Any: ...
    @property
    def decision_seconds(self) -> Any: ...
    @property
    def makespan(self) -> float: ...
    @property
    def latencies(self) -> Any: ...
    @property
    def planning_seconds(self) -> float: ...


def validate(trace: TraceLike) -> list[str]:
    """Every way in which a trace breaks the execution model; empty for a valid trace.

    The shards are replayed in commit order. Commit times, placements, sources of copied prefixes,
    retentions, draws of choosers, random outages and (with uncertainty) noise and lengths are taken
    from the trace, everything else is computed anew and compared. A fault that makes
    the rest meaningless (wrong numbering, a stage before its parents, a device that cannot host
    the stage) ends the replay, after it was reported.
    """
    world = _World.of(trace.problem)
    faults = _header_faults(world, trace)
    if faults:
        return faults
    replay = _Replay(world, trace)
    try:
        replay.run(trace)
        replay.check_totals(trace)
    except _StopError:
        replay.faults.append("the replay stopped at the fault above")
    return replay.faults


def assert_valid(trace: TraceLike) -> None:
    """Raise `AssertionError` with the violations of a trace, if it has any."""
    faults = validate(trace)
    if faults:
        shown = "\n".join(f"  {fault}" for fault in faults[:20])
        raise AssertionError(f"invalid trace, {len(faults)} violations:\n{shown}")


class _StopError(Exception):
    """The replay cannot go on."""


# --- what is fixed before time starts -----------------------------------------------------------


@dataclass(frozen=True)
class _Parent:
    """An edge into a stage, seen from the child."""

    stage: int
    bytes: float
    tokens: int


@dataclass(frozen=True)
class _Node:
    """A stage with its number and its surroundings."""

    number: int
    workflow: int
    name: str
    stage: Stage
    model: Model | None
    parents: tuple[_Parent, ...]
    heirs: frozenset[int]
    """Children with the same model that inherit tokens."""

    @property
    def inherited(self) -> int:
        return sum(parent.tokens for parent in self.parents)

    @property
    def query_tokens(self) -> int:
        """Tokens of one query that are its own: u + sum of h + o."""
        return self.stage.prompt_tokens + self.inherited + self.stage.output_tokens


@dataclass(frozen=True)
class _Machine:
    """A device with every default filled in, in bytes and bytes/s."""

    name: str
    node: str
    gpu: Gpu | None
    limit: float
    pcie: float
    peer: float
    network: float
    load: float

    @classmethod
    def of(cls, problem: Problem, device: Device, facts: Execution) -> _Machine:
        cluster = problem.cluster
        gpu = problem.gpu_facts[device.gpu] if device.gpu else None
        network = (device.network_gb_s or cluster.network_gb_s) * GB
        pcie = peer = network
        limit = 0.0
        if gpu:
            pcie = facts.pcie_gb_s(gpu.pcie) * GB
            if gpu.nvlink_gb_s:
                peer = facts.nvlink_efficiency * gpu.nvlink_gb_s * GB
            else:
                peer = facts.pcie_peer_efficiency * pcie
            share = cluster.memory_utilisation or facts.memory_utilisation
            limit = gpu.memory_gb * GB * share
        if device.peer_gb_s:
            peer = device.peer_gb_s * GB
        load_gb_s = device.load_gb_s or cluster.load_gb_s
        return cls(
            device.id,
            device.node,
            gpu,
            limit=limit,
            pcie=pcie,
            peer=peer,
            network=network,
            load=load_gb_s * GB if load_gb_s else pcie,
        )


@dataclass(frozen=True)
class _World:
    """The numbered stages and machines of a problem."""

    problem: Problem
    facts: Execution
    nodes: list[_Node]
    machines: list[_Machine]
    models: list[str]
    prefixes: list[tuple[str, str]]
    load_init: float
    links: dict[frozenset[str], tuple[float, float]]
    """Bandwidth and latency between two devices, where the cluster overrides them."""

    @classmethod
    def of(cls, problem: Problem) -> _World:
        facts = catalog.execution()
        cluster = problem.cluster
        nodes: list[_Node] = []
        for number, workflow in enumerate(problem.workflows):
            nodes.extend(_nodes_of(problem, number, workflow, first=len(nodes)))
        stages = [node.stage for node in nodes]
        return cls(
            problem,
            facts,
            nodes,
            machines=[_Machine.of(problem, device, facts) for device in cluster.devices],
            models=_distinct(stage.model for stage in stages if stage.model),
            prefixes=_distinct(
                (stage.model, stage.prefix_group)
                for stage in stages
                if stage.model and stage.prefix_group
            ),
            load_init=(facts.load_init_s if cluster.load_init_s is None else cluster.load_init_s),
            links={
                frozenset((link.a, link.b)): (link.gb_s * GB, link.latency_s)
                for link in cluster.links
            },
        )

    def hosts(self, node: _Node, machine: _Machine) -> bool:
        """Whether a machine may run a stage."""
        stage = node.stage
        if stage.allowed_devices is not None and machine.name not in stage.allowed_devices:
            return False
        if stage.seconds_on is not None:
            return machine.name in stage.seconds_on
        if node.model is None or machine.gpu is None:
            return False
        context = stage.prefix_tokens + node.query_tokens
        need = node.model.weight_bytes + context * node.model.kv_bytes_per_token
        return need <= machine.limit * (1 + TOLERANCE)

    def batch(self, node: _Node, machine: _Machine) -> int:
        """Queries in one full wave."""
        assert node.model is not None
        kv = node.model.kv_bytes_per_token
        query = node.query_tokens * kv
        if query == 0:
            return self.facts.max_batch
        room = machine.limit - node.model.weight_bytes - node.stage.prefix_tokens * kv
        return max(1, min(self.facts.max_batch, math.floor(room / query)))


def _nodes_of(problem: Problem, number: int, workflow: Workflow, *, first: int) -> Iterator[_Node]:
    place = {stage.id: first + i for i, stage in enumerate(workflow.stages)}
    by_id = {stage.id: stage for stage in workflow.stages}
    for stage in workflow.stages:
        yield _Node(
            place[stage.id],
            number,
            f"workflow '{workflow.id}', stage '{stage.id}'",
            stage,
            problem.model_facts[stage.model] if stage.model else None,
            parents=tuple(
                _Parent(place[edge.parent], edge.bytes, edge.inherited_tokens)
                for edge in workflow.edges
                if edge.child == stage.id
            ),
            heirs=frozenset(
                place[edge.child]
                for edge in workflow.edges
                if edge.parent == stage.id
                and edge.inherited_tokens > 0
                and stage.model is not None
                and by_id[edge.child].model == stage.model
            ),
        )


def _distinct(items: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(items))


# --- the state of a device ------------------------------------------------------------------------


@dataclass
class _Entry:
    """A cached KV entry; ``amount`` is tokens of a prefix, queries of a context.

    ``there`` is when the shard that added to a prefix last ends.
    """

    amount: int
    bytes: float
    there: float = 0.0


@dataclass
class _Memory:
    """A device as it will be when its queue drains.

    Both dictionaries are in the order of use, the least recent first.
    """

    drains: float = 0.0
    weights: dict[int, float] = field(default_factory=dict)
    kv: dict[tuple[int, int], _Entry] = field(default_factory=dict)

    def used(self) -> float:
        return math.fsum(self.weights.values()) + math.fsum(e.bytes for e in self.kv.values())

    def touch(self, key: tuple[int, int]) -> None:
        self.kv[key] = self.kv.pop(key)


@dataclass(frozen=True)
class _Flow:
    """A transfer over one link; ``since`` is when it can leave at the earliest."""

    link: tuple[str, str]
    bytes: float
    bandwidth: float
    latency: float
    since: float

    @property
    def seconds(self) -> float:
        return self.latency + self.bytes / self.bandwidth


@dataclass(frozen=True)
class _Fetch:
    """What a shard has booked of the network: into one node, out of others."""

    receiver: str
    senders: frozenset[str]
    start: float
    end: float

    def meets(self, other: _Fetch) -> bool:
        """Whether the two want an interface in the same direction at the same time."""
        shared = self.receiver == other.receiver or bool(self.senders & other.senders)
        return shared and min(self.end - other.start, other.end - self.start) > GRAZE


@dataclass(eq=False)
class _Shard:
    """A shard that was placed: its row, its turn, and its end if its device does not fail."""

    row: Any
    turn: float
    end: float
    lost: bool = False
    busy: float = 0.0
    """Estimated seconds from its turn to its end."""
    fetch: _Fetch | None = None


@dataclass(eq=False)
class _Done:
    """A placement: queries by device number, shards by device number, and the stage's end."""

    node: _Node
    queries: dict[int, int]
    end: float
    shards: dict[int, _Shard]
    away: set[int] = field(default_factory=set)
    """Devices that have failed since they put out their part: it is on their host."""
    barrier: float = math.inf
    """After a loss: when the last of the other shards ends."""


@dataclass(frozen=True)
class _Hits:
    """What a shard finds cached: prefix tokens, and tokens of every edge (by parent).

    ``copied`` tokens of the prefix come from another device.
    """

    prefix: int
    tokens: dict[int, float]
    copied: int = 0
    gone: int = 0
    """Tokens of each query that parents which vanished would have passed on."""


# --- the replay -----------------------------------------------------------------------------------


class _Replay:
    """Runs the commits of a trace again and notes every difference."""

    def __init__(self, world: _World, trace: TraceLike) -> None:
        self.world = world
        self.trace = trace
        self.faults: list[str] = []
        self.memories = [_Memory() for _ in world.machines]
        self.done: dict[int, _Done] = {}
        self.evicted: list[tuple[int, int, int, int, float]] = []
        self.events = sorted({workflow.arrival for workflow in world.problem.workflows})
        self.last_commit = 0.0
        self.retention: Any = None
        self.again: dict[int, float] = {}
        """When stages that had lost a shard were ready once more."""
        self.losing: list[_Done] = []
        self.outages = [(float(o["down"]), float(o["up"]), int(o["device"])) for o in trace.outages]
        self.next_outage = 0
        self.up_at = [0.0] * len(world.machines)
        self.placed: list[list[_Shard]] = [[] for _ in world.machines]
        """The shards of each device in the order of their commits."""
        for down, up, _ in self.outages:
            self.events += [down, up]
        self.events.sort()
        self.vanished_by: dict[int, int] = {}
        """The chooser that did live, of each stage that vanished."""
        self.chooser: dict[int, int] = {}
        """The stage at whose end it is drawn whether a stage lives."""

    # reporting

    def differ(
        self, where: str, name: str, expected: float, got: Any, *, scale: float = 0.0
    ) -> None:
        """Report a value that is not the expected one; ``scale`` widens the tolerance."""
        if not _close(expected, float(got), scale):
            self.faults.append(f"{where}: {name}: expected {expected!r}, got {float(got)!r}")

    def stop(self, fault: str) -> NoReturn:
        self.faults.append(fault)
        raise _StopError

    # the whole trace

    def run(self, trace: TraceLike) -> None:
        """Replay every placement: the rows of one stage stand together."""
        self._check_outages()
        self._check_draws()
        retentions = list(trace.retentions)
        for placed in _placements(trace.shards):
            number = int(placed[0][1]["stage"])
            if not 0 <= number < len(self.world.nodes):
                self.stop(f"shards: unknown stage number {number}")
            node = self.world.nodes[number]
            # Failures come last in their instant: a tool starts before them, a choice is behind.
            now = float(placed[0][1]["committed"])
            self.pass_time(now, failures_too=node.stage.kind != "tool")
            if number in self.done:
                self.stop(f"{node.name}: committed twice")
            if number in self.vanished_by:
                self.stop(f"{node.name}: committed, but it has vanished")
            while retentions and retentions[0][0] <= placed[0][0]:
                self.retention = retentions.pop(0)[1]
            self.place(node, placed)
        self.pass_time(math.inf, failures_too=True)
        for node in self.world.nodes:
            if node.number not in self.done and node.number not in self.vanished_by:
                self.faults.append(f"{node.name}: never ran")
        for done in self.done.values():
            for shard in done.shards.values():
                self._check_survivor(shard)

    def check_totals(self, trace: TraceLike) -> None:
        """Compare evictions, stage and workflow times, makespan and device order."""
        self._check_evictions(trace)
        self._check_turns(trace)
        world, arrivals = self.world, [w.arrival for w in self.world.problem.workflows]
        ends = [0.0] * len(arrivals)
        for node in world.nodes:
            vanished = node.number in self.vanished_by
            if bool(trace.stage_vanished[node.number]) != vanished:
                self.faults.append(f"{node.name}: stage_vanished: expected {vanished}")
            chooser = self.vanished_by.get(node.number, node.number)
            if chooser not in self.done:
                return
            end = self.done[chooser].end
            if vanished:
                self.differ(node.name, "stage_ready", end, trace.stage_ready[node.number])
                self.differ(node.name, "stage_end", end, trace.stage_end[node.number])
                continue
            ends[node.workflow] = max(ends[node.workflow], end)
            self.differ(node.name, "stage_ready", self.ready(node), trace.stage_ready[node.number])
            self.differ(node.name, "stage_end", end, trace.stage_end[node.number])
        for i, workflow in enumerate(world.problem.workflows):
            where = f"workflow '{workflow.id}'"
            self.differ(where, "workflow_end", ends[i], trace.workflow_end[i])
            self.differ(where, "latency", ends[i] - arrivals[i], trace.latencies[i], scale=ends[i])
        self.differ("trace", "makespan", max(ends) - min(arrivals), trace.makespan, scale=max(ends))
        seconds = [float(value) for value in trace.decision_seconds]
        if not all(value >= 0 and math.isfinite(value) for value in seconds):
            self.faults.append("trace: decision_seconds: negative or not finite")
        self.differ("trace", "planning_seconds", math.fsum(seconds), trace.planning_seconds)

    def _check_evictions(self, trace: TraceLike) -> None:
        rows = list(trace.evictions)
        if len(rows) != len(self.evicted):
            self.faults.append(f"evictions: expected {len(self.evicted)} rows, got {len(rows)}")
        for i, (expected, row) in enumerate(zip(self.evicted, rows, strict=False)):
            got = tuple(int(row[name]) for name in ("shard", "device", "kind", "key"))
            if got != expected[:4]:
                self.faults.append(
                    f"eviction {i}: (shard, device, kind, key): expected {expected[:4]}, got {got}"
                )
            self.differ(f"eviction {i}", "bytes", expected[4], row["bytes"])

    def _check_turns(self, trace: TraceLike) -> None:
        """No device runs two shards at once, by the trace's own times."""
        busy: dict[int, float] = {}
        for row in trace.shards:
            device, start, end = int(row["device"]), float(row["start"]), float(row["end"])
            if not start <= end:
                self.faults.append(f"{self.at(row)}: ends at {end!r}, before it starts")
            if device == HOST:
                continue
            before = busy.get(device, 0.0)
            if start < before and not _close(start, before):
                self.faults.append(
                    f"{self.at(row)}: starts at {start!r}, but the device is busy until {before!r}"
                )
            busy[device] = end

    def at(self, row: Any) -> str:
        """The name of a shard, for messages."""
        device, node = int(row["device"]), self.world.nodes[int(row["stage"])]
        if device == HOST:
            return f"{node.name}, host"
        return f"{node.name}, device '{self.world.machines[device].name}'"

    # one placement

    def ready(self, node: _Node) -> float:
        if node.number in self.again:
            return self.again[node.number]
        ends = (self.done[self.decider(before)].end for before in self.awaited(node))
        return max(self.world.problem.workflows[node.workflow].arrival, *ends, 0.0)

    def awaited(self, node: _Node) -> list[int]:
        """What has to be done before a stage is ready: its parents, and what decides on it."""
        own = [self.chooser[node.number]] if node.number in self.chooser else []
        return [parent.stage for parent in node.parents] + own

    def decider(self, stage: int) -> int:
        """The stage at whose end a stage is done: itself, or the chooser that let it vanish."""
        return self.vanished_by.get(stage, stage)

    def place(self, node: _Node, rows: list[tuple[int, Any]]) -> None:
        """Check a placement, run its shards and note the end of the stage."""
        missing = [s for s in self.awaited(node) if self.decider(s) not in self.done]
        if missing:
            names = ", ".join(self.world.nodes[parent].name for parent in missing)
            self.stop(f"{node.name}: committed before its parents ran: {names}")
        shards = [row for _, row in rows]
        self._check_moment(node, shards)
        self._check_split(node, shards)
        if node.stage.kind == "tool":
            placed = [self._run_tool(node, shards[0])]
        else:
            placed = [self._run_shard(node, index, row) for index, row in rows]
        ends = [shard.end for shard in placed]
        end = max(ends) + (len(rows) - 1) * self.world.facts.gather_s
        for moment in (*ends, end):
            insort(self.events, moment)
        queries = {int(row["device"]): int(row["queries"]) for row in shards}
        by_device = {int(shard.row["device"]): shard for shard in placed}
        self.done[node.number] = _Done(node, queries, end, by_device)

    # failures

    def pass_time(self, now: float, *, failures_too: bool) -> None:
        """Apply what happens until ``now``: failures, and ends of placements that lost a shard."""
        while True:
            over = min(self.losing, key=lambda done: done.barrier, default=None)
            barrier = over.barrier if over else math.inf
            down = math.inf
            if self.next_outage < len(self.outages):
                down = self.outages[self.next_outage][0]
            time = min(barrier, down)
            if time > now or time == math.inf:
                return
            if over and barrier <= down:
                self.losing.remove(over)
                self.again[over.node.number] = barrier
                insort(self.events, barrier)
                for device in over.queries:
                    self.memories[device].kv.pop((CONTEXT, over.node.number), None)
            elif failures_too or down < now:
                self.fail(*self.outages[self.next_outage])
                self.next_outage += 1
            else:
                return

    def fail(self, down: float, up: float, device: int) -> None:
        """A device loses its memory and the shards that have not ended."""
        self.up_at[device] = up
        self.memories[device] = _Memory()
        for done in [*self.done.values(), *self.losing]:
            shard = done.shards.get(device)
            if shard is None or shard.lost:
                continue
            # Within rounding of the failure both can be: the trace says which.
            ended = shard.end <= down
            if _close(shard.end, down):
                ended = not shard.row["lost"]
            if ended:
                done.away.add(device)
                continue
            shard.lost = True
            where = self.at(shard.row)
            if not shard.row["lost"]:
                self.faults.append(f"{where}: lost: expected 1, the device fails at {down!r}")
            self.differ(where, "start", min(shard.turn, down), shard.row["start"])
            self.differ(where, "end", down, shard.row["end"])
            if done not in self.losing:
                del self.done[done.node.number]
                self.losing.append(done)
            # By the trace's own ends: at the last of them the stage may be placed again.
            left = [
                other.end if other.row["lost"] else float(other.row["end"])
                for other in done.shards.values()
                if not other.lost
            ]
            done.barrier = max(down, *left, down)

    def _check_survivor(self, shard: _Shard) -> None:
        where = self.at(shard.row)
        if shard.row["lost"]:
            self.faults.append(f"{where}: lost: expected 0, the device does not fail")
        self.differ(where, "start", shard.turn, shard.row["start"])
        self.differ(where, "end", shard.end, shard.row["end"])

    def _check_outages(self) -> None:
        """Failures are those that the problem gives, or alternate with repairs."""
        failures = self.world.problem.options.failures
        names = [machine.name for machine in self.world.machines]
        up_again: dict[int, float] = {}
        for down, up, device in self.outages:
            if not (0 <= device < len(names) and up_again.get(device, -1.0) < down < up):
                self.stop(f"outages: device {device} from {down!r} to {up!r} cannot be")
            up_again[device] = up
        if self.outages != sorted(self.outages, key=lambda outage: (outage[0], outage[2])):
            self.stop("outages: not in the order of their failures")
        if failures is None:
            if self.outages:
                self.stop("outages: none was expected")
        elif failures.outages:
            last = max((float(end) for end in self.trace.stage_end), default=0.0)
            given = {(names.index(o.device), o.at, o.at + o.seconds) for o in failures.outages}
            got = {(device, down, up) for down, up, device in self.outages}
            if not got <= given or any(down < last for _, down, _ in given - got):
                self.stop(f"outages: expected {sorted(given)}, got {sorted(got)}")

    # choices

    def _check_draws(self) -> None:
        """Which stages vanish, from the draws of the choosers that live."""
        number = {(node.workflow, node.stage.id): node.number for node in self.world.nodes}
        waiting: list[tuple[int, int, float, float]] = []
        for w, workflow in enumerate(self.world.problem.workflows):
            for choice in workflow.choices:
                low = 0.0
                for i, option in enumerate(choice.options):
                    last = i == len(choice.options) - 1
                    high = math.inf if last else low + option.probability
                    for stage in option.stages:
                        waiting.append((number[w, stage], number[w, choice.after], low, high))
                    low = high
            for fan_out in workflow.fan_outs:
                low = 0.0
                for replica, weight in zip(fan_out.replicas, fan_out.weights, strict=True):
                    for stage in replica:
                        waiting.append((number[w, stage], number[w, fan_out.after], low, math.inf))
                    low += weight
        self.chooser = {child: chooser for child, chooser, _, _ in waiting}
        choosers = set(self.chooser.values())
        # A chooser may itself have been drawn: whoever depends on one that is settled comes next.
        unsettled = {stage for stage, _, _, _ in waiting}
        while waiting:
            settled = [item for item in waiting if item[1] not in unsettled]
            for child, chooser, low, high in settled:
                if chooser in self.vanished_by:
                    self.vanished_by[child] = self.vanished_by[chooser]
                    continue
                draw = float(self.trace.draws[chooser])
                if not 0.0 <= draw <= 1.0:
                    self.stop(f"{self.world.nodes[chooser].name}: draw: {draw!r} is not in [0, 1)")
                if not low <= draw < high:
                    self.vanished_by[child] = chooser
            unsettled -= {item[0] for item in settled}
            waiting = [item for item in waiting if item not in settled]
        for node in self.world.nodes:
            drawn = not math.isnan(float(self.trace.draws[node.number]))
            if drawn != (node.number in choosers and node.number not in self.vanished_by):
                self.faults.append(f"{node.name}: draw: {self.trace.draws[node.number]!r}")

    def _check_moment(self, node: _Node, shards: list[Any]) -> None:
        """Check when the placement was committed."""
        now, ready = float(shards[0]["committed"]), self.ready(node)
        if not math.isfinite(now):
            self.stop(f"{node.name}: committed at {now!r}")
        if any(float(row["committed"]) != now for row in shards):
            self.faults.append(f"{node.name}: shards of one placement committed at several times")
        if now < self.last_commit:
            self.faults.append(
                f"{node.name}: committed at {now!r}, after a commit at {self.last_commit!r}"
            )
        self.last_commit = now
        if now < ready and not _close(now, ready):
            self.faults.append(f"{node.name}: committed at {now!r}, but ready only at {ready!r}")
        if node.stage.kind == "tool":
            self.differ(f"{node.name}, host", "committed (= ready)", ready, now)
            return
        at = bisect_left(self.events, now)
        if not any(_close(now, event) for event in self.events[max(0, at - 1) : at + 1]):
            self.faults.append(f"{node.name}: committed at {now!r}, which is no event's time")

    def _check_split(self, node: _Node, shards: list[Any]) -> None:
        """Check which devices got how many queries."""
        devices = [int(row["device"]) for row in shards]
        counts = [int(row["queries"]) for row in shards]
        slots = [int(row["slot"]) for row in shards]
        if slots != list(range(len(shards))):
            self.faults.append(f"{node.name}: slots: expected 0..{len(shards) - 1}, got {slots}")
        if min(counts) < 1 or sum(counts) != node.stage.queries:
            self.stop(f"{node.name}: queries: expected a sum of {node.stage.queries}, got {counts}")
        if node.stage.kind == "tool":
            if devices != [HOST]:
                self.stop(f"{node.name}: device: expected [{HOST}] (the host), got {devices}")
            return
        if len(devices) > self.world.problem.options.max_shards:
            self.faults.append(
                f"{node.name}: {len(devices)} shards, more than "
                f"max_shards = {self.world.problem.options.max_shards}"
            )
        if len(set(devices)) != len(devices):
            self.stop(f"{node.name}: device: two shards on one device, {devices}")
        for device in devices:
            if not 0 <= device < len(self.world.machines):
                self.stop(f"{node.name}: device: unknown device number {device}")
            if float(shards[0]["committed"]) < self.up_at[device]:
                name = self.world.machines[device].name
                self.faults.append(f"{node.name}, device '{name}': committed while it is down")
            if not self.world.hosts(node, self.world.machines[device]):
                name = self.world.machines[device].name
                self.stop(f"{node.name}, device '{name}': the device cannot host the stage")

    # one shard

    def _run_tool(self, node: _Node, row: Any) -> _Shard:
        """Check a tool run."""
        where, now = self.at(row), float(row["committed"])
        flows = [
            _Flow(
                ("from", self.world.machines[device].name),
                parent.bytes * queries / self.world.nodes[parent.stage].stage.queries,
                self.world.machines[device].pcie,
                self.world.facts.peer_latency_s,
                self.done[parent.stage].end,
            )
            for parent in node.parents
            if parent.bytes > 0
            and parent.stage not in self.vanished_by
            and self.world.nodes[parent.stage].stage.kind != "tool"
            for device, queries in self.done[parent.stage].queries.items()
            if device not in self.done[parent.stage].away
        ]
        transfer = self._transfer(flows, now)
        self.differ(where, "source", -1, row["source"])
        seconds = node.stage.tool_seconds or 0.0
        end = now + transfer + seconds * self._noise(where, row)
        self._length(where, row, exact=True)
        self._compare(where, row, flows, transfer, start=now, decode=seconds)
        return _Shard(row, now, end)

    def _run_shard(self, node: _Node, index: int, row: Any) -> _Shard:
        """Check one shard on a device and bring the device's memory up to date."""
        where, now = self.at(row), float(row["committed"])
        device, n = int(row["device"]), int(row["queries"])
        machine, memory = self.world.machines[device], self.memories[device]
        turn, planned = max(now, memory.drains), self._expected_turn(device, now)
        noise = self._noise(where, row)
        flows = self._flows(node, device, n)
        hits = self._hits(node, memory)
        source = int(row["source"])
        if source != -1:
            turn, hits, copy = self._copy(where, node, hits, turn, now, source, device)
            flows.append(copy)
            late = copy.since > now and not _close(copy.since, now)
            noisy = self._noisy and late
            planned = max(planned, self._expected_turn(source, now) if noisy else copy.since)
        transfer, fetch = self._transfer(flows, turn), None
        if self.world.problem.options.contention:
            transfer, fetch = self._through_network(flows, machine.node, planned, now)
        self.differ(where, "copied", hits.copied, row["copied"])
        if node.stage.seconds_on is not None:
            seconds = node.stage.seconds_on[machine.name]
            end = turn + (transfer + seconds) * noise
            self._length(where, row, exact=True)
            self._compare(where, row, flows, transfer, start=turn, decode=seconds)
            memory.drains = end
            shard = _Shard(row, turn, end, busy=transfer + seconds, fetch=fetch)
            self.placed[device].append(shard)
            return shard
        assert node.model is not None and node.stage.model is not None
        model = self.world.models.index(node.stage.model)
        load = 0.0
        if model not in memory.weights:
            load = self.world.load_init + node.model.weight_bytes / machine.load
        prefill, new = self._prefill(node, machine, n, hits)
        waves, decode = self._decode(node, machine, n)
        length = self._length(where, row, exact=False)
        end = turn + (max(load, transfer) + prefill + decode * length) * noise
        self._compare(
            where, row, flows, transfer, start=turn, load=load, prefill=prefill, decode=decode,
            waves=waves,
        )  # fmt: skip
        cached = sum(hits.tokens.values())
        whole = n * float(node.inherited)
        self.differ(where, "prefix_hit", hits.prefix, row["prefix_hit"])
        self.differ(where, "prefix_new", new, row["prefix_new"])
        self.differ(where, "context_hit", n * cached, row["context_hit"], scale=whole)
        rest = whole - n * (cached + hits.gone)
        self.differ(where, "context_new", rest, row["context_new"], scale=whole)
        self._remember(node, model, n, index, device, hits, end)
        memory.drains = end
        busy = max(load, transfer) + prefill + decode
        shard = _Shard(row, turn, end, busy=busy, fetch=fetch)
        self.placed[device].append(shard)
        return shard

    def _compare(
        self,
        where: str,
        row: Any,
        flows: list[_Flow],
        transfer: float,
        *,
        start: float,
        load: float = 0.0,
        prefill: float = 0.0,
        decode: float = 0.0,
        waves: int = 1,
    ) -> None:
        """Compare what every kind of shard has, but for its start and end, which may be lost.

        A shard without a model meets no cache.
        """
        # An eager transfer is what is left of a moment after `start`, and one that waits for the
        # network begins at another moment: rounding goes with both.
        options = self.world.problem.options
        scale = start if options.eager_transfers or options.contention else 0.0
        self.differ(where, "load_s", load, row["load_s"])
        self.differ(where, "transfer_s", transfer, row["transfer_s"], scale=scale)
        self.differ(where, "prefill_s", prefill, row["prefill_s"])
        self.differ(where, "decode_s", decode, row["decode_s"])
        self.differ(where, "waves", waves, row["waves"])
        moved = math.fsum(flow.bytes for flow in flows)
        self.differ(where, "bytes_moved", moved, row["bytes_moved"])
        if self.world.nodes[int(row["stage"])].model is None:
            for name in ("prefix_hit", "prefix_new", "context_hit", "context_new", "copied"):
                self.differ(where, name, 0.0, row[name])

    def _noise(self, where: str, row: Any) -> float:
        """The noise of a shard: given by the trace, but 1 without uncertainty."""
        noise = float(row["noise"])
        if self.world.problem.options.uncertainty == 0:
            if noise != 1.0:
                self.faults.append(f"{where}: noise: expected 1.0, got {noise!r}")
            return 1.0
        if not (noise > 0 and math.isfinite(noise)):
            self.stop(f"{where}: noise: expected a positive number, got {noise!r}")
        return noise

    def _length(self, where: str, row: Any, *, exact: bool) -> float:
        """Actual / estimated tokens: given by the trace, but 1 where nothing is uncertain."""
        length = float(row["length"])
        if exact or self.world.problem.options.length_uncertainty == 0:
            if length != 1.0:
                self.faults.append(f"{where}: length: expected 1.0, got {length!r}")
            return 1.0
        if not (length > 0 and math.isfinite(length)):
            self.stop(f"{where}: length: expected a positive number, got {length!r}")
        return length

    # transfers

    def _flows(self, node: _Node, device: int, n: int) -> list[_Flow]:
        """What moves to a shard of ``n`` queries on a device, parent by parent."""
        machine, facts = self.world.machines[device], self.world.facts
        share = n / node.stage.queries
        flows: list[_Flow] = []
        for parent in node.parents:
            if parent.bytes == 0 or parent.stage in self.vanished_by:
                continue
            done, source = self.done[parent.stage], self.world.nodes[parent.stage].stage
            if source.kind == "tool":
                flows.append(
                    _Flow(
                        ("host", ""),
                        parent.bytes * share,
                        machine.pcie,
                        facts.peer_latency_s,
                        done.end,
                    )
                )
                continue
            for other, queries in done.queries.items():
                if other == device and other in done.away:
                    amount = parent.bytes * share * (queries / source.queries)
                    latency = facts.peer_latency_s
                    flows.append(_Flow(("host", ""), amount, machine.pcie, latency, done.end))
                if other != device:
                    link, bandwidth, latency = self._link(self.world.machines[other], machine)
                    amount = parent.bytes * share * (queries / source.queries)
                    flows.append(_Flow(link, amount, bandwidth, latency, done.end))
        return flows

    def _link(self, here: _Machine, there: _Machine) -> tuple[tuple[str, str], float, float]:
        """The link into ``there`` that data from ``here`` take, its bandwidth and latency."""
        override = self.world.links.get(frozenset((here.name, there.name)))
        if override:
            return ("own", here.name), *override
        if here.node == there.node:
            bandwidth = min(here.peer, there.peer)
            return ("peer", here.name), bandwidth, self.world.facts.peer_latency_s
        latency = self.world.problem.cluster.network_latency_s
        return ("node", here.node), min(here.network, there.network), latency

    def _transfer(self, flows: list[_Flow], start: float) -> float:
        """Seconds from ``start`` until everything is there."""
        if self.world.problem.options.eager_transfers:
            there = max((flow.since + flow.seconds for flow in flows), default=start)
            return max(0.0, there - start)
        links: dict[tuple[str, str], float] = {}
        for flow in flows:
            links[flow.link] = links.get(flow.link, 0.0) + flow.seconds
        return max(links.values(), default=0.0)

    @property
    def _noisy(self) -> bool:
        options = self.world.problem.options
        return options.uncertainty > 0 or options.length_uncertainty > 0

    def _queue(self, device: int, now: float) -> list[_Shard]:
        """The shards that run or wait on a device, by the ends that the trace gives."""
        return [shard for shard in self.placed[device] if float(shard.row["end"]) > now]

    def _expected_turn(self, device: int, now: float) -> float:
        """When the queue of a device drains, as far as it is known."""
        if not self._noisy:
            return max(now, self.memories[device].drains)
        queue = self._queue(device, now)
        if not queue:
            return now
        running = max(now, queue[0].turn + queue[0].busy)
        return running + math.fsum(shard.busy for shard in queue[1:])

    def _through_network(
        self, flows: list[_Flow], receiver: str, planned: float, now: float
    ) -> tuple[float, _Fetch | None]:
        """Seconds from the planned turn until everything is there, and what is booked for it."""
        # What takes no time (a fraction of a byte) passes between two others.
        network = [flow for flow in flows if flow.link[0] == "node" and flow.seconds > 0]
        aside = self._transfer([flow for flow in flows if flow.link[0] != "node"], planned)
        if not network:
            return aside, None
        length = math.fsum(flow.seconds for flow in network)
        senders = frozenset(flow.link[1] for flow in network)
        machines = range(len(self.placed))
        shards = [shard for device in machines for shard in self._queue(device, now)]
        booked = [shard.fetch for shard in shards if shard.fetch]
        # At the turn or where another fetch ends: the first that meets nobody.
        moments = {planned} | {fetch.end for fetch in booked if fetch.end > planned}
        fetches = (_Fetch(receiver, senders, t, t + length) for t in sorted(moments))
        fetch = next(one for one in fetches if not any(one.meets(other) for other in booked))
        return max(aside, fetch.start - planned + length), fetch

    def _copy(
        self, where: str, node: _Node, hits: _Hits, turn: float, now: float, source: int, to: int
    ) -> tuple[float, _Hits, _Flow]:
        """A prefix copied from another device: the new turn, the new hits and the transfer."""
        if source == to or not 0 <= source < len(self.memories) or node.model is None:
            self.stop(f"{where}: source: device {source} has nothing to copy from")
        entry = self.memories[source].kv.get(self._prefix_key(node), _Entry(0, 0.0))
        copied = min(node.stage.prefix_tokens, entry.amount) - hits.prefix
        if copied <= 0:
            self.stop(f"{where}: source: device {source} caches no more of the prefix")
        self.memories[source].touch(self._prefix_key(node))
        there = max(now, entry.there)
        link, bandwidth, latency = self._link(self.world.machines[source], self.world.machines[to])
        size = copied * node.model.kv_bytes_per_token
        flow = _Flow(link, size, bandwidth, latency, there)
        hits = replace(hits, prefix=hits.prefix + copied, copied=copied)
        return max(turn, there), hits, flow

    # prefill and decode

    def _hits(self, node: _Node, memory: _Memory) -> _Hits:
        prefix = 0
        entry = memory.kv.get(self._prefix_key(node))
        if entry is not None:
            prefix = min(node.stage.prefix_tokens, entry.amount)
        tokens: dict[int, float] = {}
        gone = sum(p.tokens for p in node.parents if p.stage in self.vanished_by)
        for parent in node.parents:
            source = self.world.nodes[parent.stage].stage
            entry = memory.kv.get((CONTEXT, parent.stage))
            if entry is not None and parent.tokens > 0 and source.model == node.stage.model:
                tokens[parent.stage] = parent.tokens * entry.amount / source.queries
        return _Hits(prefix, tokens, gone=gone)

    def _prefix_key(self, node: _Node) -> tuple[int, int]:
        """The key of a stage's prefix entry; number -1 (never cached) without a group."""
        key = (node.stage.model or "", node.stage.prefix_group or "")
        return PREFIX, self.world.prefixes.index(key) if key in self.world.prefixes else -1

    def _prefill(self, node: _Node, machine: _Machine, n: int, hits: _Hits) -> tuple[float, float]:
        """Seconds of prefill, and the new prefix tokens."""
        model, gpu, facts = node.model, machine.gpu, self.world.facts
        assert model is not None and gpu is not None
        p, u, inherited = node.stage.prefix_tokens, node.stage.prompt_tokens, node.inherited
        new = float(p - hits.prefix)
        each = u + (inherited - sum(hits.tokens.values()) - hits.gone)
        tokens = new + n * each
        peak = gpu.tflops * 1e12
        reading = self._weights(model, tokens) / (gpu.mbu * gpu.bandwidth_gb_s * GB)
        computing = attention = 0.0
        if tokens > 0:
            mfu = gpu.mfu * tokens / (tokens + facts.mfu_ramp_tokens)
            in_layers, in_head = self._params(model)
            computing = 2 * (in_layers * tokens + in_head * n) / (mfu * peak)
            pairs = new * (hits.prefix + new / 2) + n * each * (p + u + inherited - each / 2)
            width = model.hidden if model.heads is None else model.heads * model.head_dim
            attention = 4 * model.layers * width * pairs / (self._attention(gpu)[0] * peak)
        fixed = self._between(model, gpu, tokens) + facts.prefill_launch_s
        return max(computing, reading) + attention + fixed, new

    def _decode(self, node: _Node, machine: _Machine, n: int) -> tuple[int, float]:
        """The number of waves and the seconds of decoding."""
        batch = self.world.batch(node, machine)
        waves = math.ceil(n / batch)
        last = n - (waves - 1) * batch
        steps = (waves - 1) * self._step(node, machine, batch) + self._step(node, machine, last)
        return waves, node.stage.output_tokens * steps

    def _step(self, node: _Node, machine: _Machine, x: int) -> float:
        """Seconds of one decode step with ``x`` queries in the wave."""
        model, gpu, facts = node.model, machine.gpu, self.world.facts
        assert model is not None and gpu is not None
        stage = node.stage
        context = (
            stage.prefix_tokens + stage.prompt_tokens + node.inherited + stage.output_tokens / 2
        )
        bandwidth = gpu.bandwidth_gb_s * GB
        mfu = gpu.mfu * x / (x + facts.mfu_ramp_tokens)
        computing = 2 * sum(self._params(model)) * x / (mfu * gpu.tflops * 1e12)
        reading = self._weights(model, x) / (gpu.mbu * bandwidth)
        contexts = x * context * model.kv_bytes_per_token / (self._attention(gpu)[1] * bandwidth)
        return max(computing, reading) + contexts + self._between(model, gpu, x)

    def _params(self, model: Model) -> tuple[float, float]:
        """Parameters that multiply every token, and those of the output projection."""
        head = model.vocab * model.hidden
        active = (model.params_b if model.active_b is None else model.active_b) * 1e9
        return active - (1 if model.tied_embedding else 2) * head, head

    def _weights(self, model: Model, tokens: float) -> float:
        """Bytes of the weights that are read for so many tokens."""
        total = model.weight_bytes
        if not model.tied_embedding:
            total -= 2 * model.vocab * model.hidden
        if model.expert_weight_share > 0:
            idle = (1 - model.experts_per_token / model.experts) ** tokens
            total -= model.expert_weight_share * model.weight_bytes * idle
        return total

    def _attention(self, gpu: Gpu) -> tuple[float, float]:
        """Shares of the peak and of the bandwidth that attention reaches."""
        facts = self.world.facts
        mfu, mbu = gpu.attention_mfu, gpu.attention_mbu
        return (
            min(1.0, facts.attention_mfu_ratio * gpu.mfu) if mfu is None else mfu,
            min(1.0, facts.attention_mbu_ratio * gpu.mbu) if mbu is None else mbu,
        )

    def _between(self, model: Model, gpu: Gpu, tokens: float) -> float:
        """Seconds of the traffic between GEMMs, and the fixed ones, of all layers."""
        facts = self.world.facts
        width = model.hidden if model.heads is None else model.heads * model.head_dim
        read_and_written = 2 * (width + model.kv_heads * model.head_dim)
        passed = facts.linear_passes * model.hidden + facts.attention_passes * read_and_written
        moved = 2 * passed * tokens / (gpu.bandwidth_gb_s * GB)
        return model.layers * (moved + facts.linear_layer_s + facts.attention_layer_s)

    # memory

    def _remember(
        self,
        node: _Node,
        model: int,
        n: int,
        index: int,
        device: int,
        hits: _Hits,
        end: float,
    ) -> None:
        """The five steps of a commit on the memory of its device."""
        assert node.model is not None
        machine, memory = self.world.machines[device], self.memories[device]
        kv, p = node.model.kv_bytes_per_token, node.stage.prefix_tokens
        for parent in node.parents:
            if parent.stage in hits.tokens:
                memory.touch((CONTEXT, parent.stage))
        # A stage without prefix tokens has no entry of its own, whatever its group.
        own = self._prefix_key(node) if p > 0 else (PREFIX, -1)
        if p > 0 and kv > 0:
            known = memory.kv.pop(own, _Entry(0, 0.0))
            tokens = max(known.amount, p)
            there = end if p > known.amount else known.there
            memory.kv[own] = _Entry(tokens, tokens * kv, there)

        queries = min(n, self.world.batch(node, machine))
        working = queries * node.query_tokens * kv
        missing = 0.0 if model in memory.weights else node.model.weight_bytes

        def fits() -> bool:
            return memory.used() + missing + working <= machine.limit

        def evict(kind: int, key: int, size: float) -> None:
            self.evicted.append((index, device, kind, key, size))

        while not fits():
            # `min` takes the first of equals: the least recently used.
            entries = [key for key in memory.kv if key != own]
            idle = [key for key in memory.weights if key != model]
            if entries:
                victim = min(entries, key=lambda key: self._value(key[0], key[1], device))
                evict(*victim, memory.kv.pop(victim).bytes)
            elif idle:
                unused = min(idle, key=lambda key: self._value(WEIGHTS, key, device))
                evict(WEIGHTS, unused, memory.weights.pop(unused))
            else:
                break
        if not fits() and own in memory.kv:
            memory.kv[own] = _Entry(p, p * kv, memory.kv[own].there)
        held = memory.used() + missing + working
        if held > machine.limit * (1 + TOLERANCE):
            self.faults.append(
                f"{node.name}, device '{machine.name}': memory: limit {machine.limit!r} bytes, "
                f"got {held!r}"
            )
        if node.heirs and kv > 0:
            memory.kv[CONTEXT, node.number] = _Entry(queries, working)
        memory.weights.pop(model, None)
        memory.weights[model] = node.model.weight_bytes

    def _value(self, kind: int, key: int, device: int) -> float:
        """What the policy's retention says a cached thing is worth."""
        if self.retention is None:
            return 0.0
        name = {PREFIX: "prefixes", CONTEXT: "contexts", WEIGHTS: "models"}[kind]
        values = getattr(self.retention, name)
        if values is None:
            return 0.0
        return float(values[device][key] if values.ndim == 2 else values[key])


def _placements(shards: Iterable[Any]) -> Iterator[list[tuple[int, Any]]]:
    """The numbered rows, those of one placement together: a stage that lost a shard has several."""
    placed: list[tuple[int, Any]] = []
    for index, row in enumerate(shards):
        if placed and (int(row["stage"]) != int(placed[-1][1]["stage"]) or int(row["slot"]) == 0):
            yield placed
            placed = []
        placed.append((index, row))
    if placed:
        yield placed


# --- the parts that need no replay ----------------------------------------------------------------


def _close(a: float, b: float, scale: float = 0.0) -> bool:
    """Whether two numbers are equal but for rounding; false with NaN."""
    return abs(a - b) <= TOLERANCE * max(abs(a), abs(b), scale)


def _header_faults(world: _World, trace: TraceLike) -> list[str]:
    """Faults of the numbering and of the lengths of the arrays."""
    problem = world.problem
    faults: list[str] = []
    expected: dict[str, list[Any]] = {
        "stage_ids": [
            (workflow.id, stage.id) for workflow in problem.workflows for stage in workflow.stages
        ],
        "model_names": world.models,
        "prefix_keys": world.prefixes,
        "device_ids": [machine.name for machine in world.machines],
        "workflow_of": [node.workflow for node in world.nodes],
        "workflow_arrival": [workflow.arrival for workflow in problem.workflows],
    }
    for name, want in expected.items():
        got = [tuple(x) if isinstance(x, list) else x for x in getattr(trace, name)]
        if got != want:
            faults.append(f"trace: {name}: expected {want}, got {got}")
    lengths = {
        "stage_ready": len(world.nodes),
        "stage_end": len(world.nodes),
        "stage_vanished": len(world.nodes),
        "draws": len(world.nodes),
        "workflow_end": len(problem.workflows),
        "latencies": len(problem.workflows),
    }
    for name, length in lengths.items():
        if len(getattr(trace, name)) != length:
            got_length = len(getattr(trace, name))
            faults.append(f"trace: {name}: expected {length} values, got {got_length}")
    return faults
