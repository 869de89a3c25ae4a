"""The state of a trace's replay: devices, placements, choices, and faults found so far.

Re-implements when a workflow arrives and when a stage is ready, from the sections "Sessions" and
"Time" of docs/execution-model.md.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from fate_gym.validator.world import HOST, TOLERANCE, Link, Node, World

if TYPE_CHECKING:
    from fate_gym.sim.trace import Trace

Row: TypeAlias = dict[str, Any]
"""A row of the trace's shards by field name; ``index`` is its number."""

OVERLAP = 1e-9
"""Seconds by which two fetches may overlap."""


class StopError(Exception):
    """The replay cannot go on."""


class Faults(list[str]):
    """The faults found so far."""

    def differ(self, where: str, name: str, expected: float, got: Any, scale: float = 0.0) -> None:
        """Report a value that differs from the expected one; ``scale`` widens the tolerance."""
        if not close(expected, float(got), scale):
            self.append(f"{where}: {name}: expected {expected!r}, got {float(got)!r}")

    def stop(self, fault: str) -> NoReturn:
        """Report a fault that makes the rest meaningless."""
        self.append(fault)
        raise StopError


def close(a: float, b: float, scale: float = 0.0) -> bool:
    """Return whether two numbers are equal up to rounding; False with NaN."""
    if math.isinf(a) or math.isinf(b):
        return a == b
    return abs(a - b) <= TOLERANCE * max(abs(a), abs(b), scale)


@dataclass
class Entry:
    """A cached KV entry; ``amount`` is the last token of a prefix, or the queries of a context.

    ``there`` is when the shard that last added to a prefix ends. ``computed`` is for batching
    devices: tokens of a prefix that are computed, or that a wave which has joined will compute.
    """

    amount: int
    bytes: float
    there: float = 0.0
    computed: int = 0


@dataclass
class Memory:
    """A device as it will be when its queue drains.

    Both dictionaries are in the order of use, least recent first.
    """

    drains: float = 0.0
    weights: dict[int, float] = field(default_factory=dict)
    kv: dict[tuple[int, int], Entry] = field(default_factory=dict)

    def used(self) -> float:
        return math.fsum([*self.weights.values(), *(entry.bytes for entry in self.kv.values())])

    def touch(self, key: tuple[int, int]) -> None:
        self.kv[key] = self.kv.pop(key)

    def touch_path(self, keys: list[tuple[int, int]]) -> float:
        """Touch the entries of a path that are there; return when all of them are computed."""
        held = [key for key in keys if key in self.kv]
        for key in held:
            self.touch(key)
        return max((self.kv[key].there for key in held), default=0.0)


@dataclass(frozen=True)
class Hits:
    """What a shard finds cached: prefix tokens, and tokens of every edge (by parent).

    ``copied`` tokens of the prefix come from another device.
    """

    prefix: int
    tokens: dict[int, float]
    copied: int = 0
    gone: int = 0
    """Tokens that each query would have inherited from parents that vanished."""

    @property
    def cached(self) -> float:
        """Inherited tokens of each query that need no prefill."""
        return sum(self.tokens.values())


@dataclass(frozen=True)
class Flow:
    """A transfer over one link; ``since`` is the earliest time at which it can leave."""

    link: Link
    bytes: float
    since: float

    @property
    def seconds(self) -> float:
        return self.link.latency + self.bytes / self.link.bandwidth


@dataclass(frozen=True)
class Fetch:
    """A shard's booking of the network: into one node, out of others."""

    receiver: str
    senders: frozenset[str]
    start: float
    end: float

    def meets(self, other: Fetch) -> bool:
        """Return whether two fetches need an interface in the same direction at the same time."""
        shared = self.receiver == other.receiver or bool(self.senders & other.senders)
        return shared and min(self.end - other.start, other.end - self.start) > OVERLAP


@dataclass(eq=False)
class Shard:
    """A placed shard: its row, its turn, and its end if its device does not fail."""

    row: Row
    turn: float
    end: float
    busy: float = 0.0
    """Estimated seconds from its turn to its end."""
    fetch: Fetch | None = None
    lost: bool = False


@dataclass(eq=False)
class Placement:
    """A placed stage: its shards by device number, and its end."""

    node: Node
    shards: dict[int, Shard]
    end: float
    away: set[int] = field(default_factory=set)
    """Devices that failed after their shard ended: its output is on their host."""
    barrier: float = math.inf
    """After a loss: when the last of the other shards ends."""


class State:
    """The replay so far."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.world = world = World.of(trace.problem)
        self.faults = Faults()
        self.memories = [Memory() for _ in world.machines]
        self.placed: list[list[Shard]] = [[] for _ in world.machines]
        """The shards of each device in the order of their commits."""
        self.up_at = [0.0] * len(world.machines)
        """When each device is up again after its last failure."""
        self.outages = [(float(o["down"]), float(o["up"]), int(o["device"])) for o in trace.outages]
        """The failures still to come."""
        self.events = [flow.arrival for flow in world.problem.workflows if flow.follows is None]
        self.events += [time for down, up, _ in self.outages for time in (down, up)]
        self.events.sort()
        self.done: dict[int, Placement] = {}
        self.losing: list[Placement] = []
        """Placements that have lost a shard while others of their shards still run."""
        self.again: dict[int, float] = {}
        """When stages that had lost a shard became ready again."""
        self.vanished_by: dict[int, int] = {}
        """For each stage that vanished, the chooser whose draw made it vanish."""
        self.chooser: dict[int, int] = {}
        """For each chosen stage, the stage at whose end its fate is drawn."""
        self.evicted: list[tuple[int, int, int, int, float]] = []
        self.retention: Any = None
        self.retentions = list(trace.retentions)
        """The retentions still to come."""
        self.last_commit = 0.0

    def at(self, row: Row) -> str:
        """Return the name of a shard, for messages."""
        place = "host" if row["device"] == HOST else self.device_name(row["device"])
        return f"{self.world.nodes[row['stage']].name}, {place}"

    def device_name(self, device: int) -> str:
        return f"device '{self.world.machines[device].name}'"

    def ready(self, node: Node) -> float:
        """Return when a stage was ready."""
        if node.number in self.again:
            return self.again[node.number]
        return max(self.arrival(node.workflow), *self._ends(self._before(node)), 0.0)

    def arrival(self, workflow: int) -> float:
        """Return when a workflow arrived; a workflow that it follows must have ended."""
        flow, before = self.world.problem.workflows[workflow], self.world.before[workflow]
        if before is None:
            return flow.arrival
        return max(flow.arrival, max(self._ends(self.world.stages[before])) + flow.think_seconds)

    def awaited(self, node: Node) -> list[int]:
        """Return the stages that a stage awaits, including those of its session's previous turn."""
        before = self.world.before[node.workflow]
        return [*(() if before is None else self.world.stages[before]), *self._before(node)]

    def end(self, placement: Placement) -> None:
        """Note the end of a placement, and arrivals of followers if it ends its workflow."""
        self.done[placement.node.number] = placement
        insort(self.events, placement.end)
        workflow = placement.node.workflow
        followers = [w for w, before in enumerate(self.world.before) if before == workflow]
        if followers and all(self.decider(s) in self.done for s in self.world.stages[workflow]):
            for follower in followers:
                insort(self.events, self.arrival(follower))

    def _before(self, node: Node) -> list[int]:
        """Return the parents of a stage, and its chooser."""
        own = [self.chooser[node.number]] if node.number in self.chooser else []
        return [parent for parent, _ in node.parents] + own

    def _ends(self, stages: Iterable[int]) -> Iterator[float]:
        return (self.done[self.decider(stage)].end for stage in stages)

    def decider(self, stage: int) -> int:
        """Return the stage whose end completes a stage: itself, or the chooser if it vanished."""
        return self.vanished_by.get(stage, stage)
