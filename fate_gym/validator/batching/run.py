"""A run of batching devices, in the order of time.

Re-implements the order of events of docs/execution-model.md for devices whose shards end when the
batch lets them. Subclasses decide where placements come from and what happens with the results: a
replay takes placements from a trace and compares the results.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import insort
from dataclasses import dataclass

from fate_gym.validator.batching.border import at_border, commit
from fate_gym.validator.batching.engine import Engine
from fate_gym.validator.batching.waves import Job, slack
from fate_gym.validator.placements import check_placement, node_of
from fate_gym.validator.shards import drawn
from fate_gym.validator.state import Placement, Row, Shard, State
from fate_gym.validator.world import CONTEXT, HOST, Node


@dataclass(eq=False)
class Running:
    """A placement whose shards have not all ended.

    ``lost`` are its devices that have failed; ``away``, those that failed after their shard ended.
    """

    node: Node
    jobs: dict[int, Job]
    away: set[int]
    lost: set[int]


class Run(ABC):
    """The run so far, on all devices."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.engines = [Engine(state, d, self._ended) for d in range(len(state.world.machines))]
        self.running: dict[int, Running] = {}

    @abstractmethod
    def next_commit(self) -> tuple[float, bool]:
        """Return when the next placement is committed, if known, and whether it is a tool."""

    @abstractmethod
    def next_placement(self) -> list[Row]:
        """Return the rows of that placement."""

    @abstractmethod
    def run_tool(self, node: Node, row: Row) -> Shard:
        """Run a tool."""

    @abstractmethod
    def on_end(self, job: Job, end: float) -> None:
        """Handle the end of a shard."""

    @abstractmethod
    def on_loss(self, job: Job, down: float) -> None:
        """Handle the loss of a shard with its device."""

    def run(self) -> None:
        """Go through time until nothing happens any more.

        In one instant borders come first, then failures, then commits. (A tool starts by itself,
        before them.) An iteration starts once no more can happen at the instant of its border.
        """
        while True:
            border = min((engine.next_border for engine in self.engines), default=math.inf)
            down = self.state.outages[0][0] if self.state.outages else math.inf
            now, is_tool = self.next_commit()
            first = min(border, down, now)
            if self._start_before(first):
                continue
            if first == math.inf:
                return
            if border < math.inf and border <= min(down, now) + slack(border):
                limit = border + slack(border)
                engine = next(one for one in self.engines if one.next_border <= limit)
                at_border(engine, self.engines)
            elif down < now or (down == now and not is_tool):
                self._fail(*self.state.outages.pop(0))
            else:
                self._place(self.next_placement())

    def _start_before(self, time: float) -> bool:
        """Start the iterations whose border is before ``time``; return whether there were any.

        Fixed stages start at once: no wave can join them, and they may take no time at all.
        """
        ready = [engine for engine in self.engines if engine.about_to_run]
        ready = [
            engine
            for engine in ready
            if engine.fixed or engine.border + slack(engine.border) < time
        ]
        for engine in ready:
            engine.start()
        return bool(ready)

    def _place(self, rows: list[Row]) -> None:
        """Put a placement into the queues of its devices."""
        state, now = self.state, rows[0]["committed"]
        node = node_of(state, rows)
        if node.number in state.done or node.number in self.running:
            state.faults.stop(f"{node.name}: committed twice")
        check_placement(state, node, rows)
        if node.stage.kind == "tool":
            shard = self.run_tool(node, rows[0])
            state.end(Placement(node, {HOST: shard}, shard.end))
            return
        most = state.world.problem.cluster.serving.max_sequences
        running = Running(node, {}, set(), set())
        self.running[node.number] = running
        for row in rows:
            machine = state.world.machines[row["device"]]
            job = Job.of(node, row, machine, most, drawn(state, node, row))
            running.jobs[row["device"]] = job
        for device, job in running.jobs.items():
            commit(self.engines[device], job, now, self.engines)

    def _ended(self, job: Job, end: float) -> None:
        """Note that a shard has ended."""
        job.end = end
        self.on_end(job, end)
        insort(self.state.events, end)
        self._settle(self.running[job.node.number], end)

    def _settle(self, running: Running, now: float) -> None:
        """End a stage whose last shard has ended, or make it ready again if it lost one."""
        state, node = self.state, running.node
        ends = {d: job.end for d, job in running.jobs.items() if d not in running.lost}
        over = [end for end in ends.values() if end is not None]
        if len(over) < len(ends):
            return
        del self.running[node.number]
        if running.lost:
            state.again[node.number] = now
            insort(state.events, now)
            return
        end = max(over) + (len(over) - 1) * state.world.facts.gather_s
        shards = {d: Shard(job.row, job.found.start, end) for d, job in running.jobs.items()}
        state.end(Placement(node, shards, end, running.away))

    def _fail(self, down: float, up: float, device: int) -> None:
        """Take a device down: it loses its memory and the shards that have not ended."""
        state = self.state
        state.up_at[device] = up
        self.engines[device].clear()
        for placement in state.done.values():
            if device in placement.shards:
                placement.away.add(device)
        for running in list(self.running.values()):
            job = running.jobs.get(device)
            if job is None or device in running.lost:
                continue
            if job.end is not None:
                running.away.add(device)
                continue
            running.lost.add(device)
            for other in running.jobs.values():
                other.is_void = True
            for memory in state.memories:
                memory.kv.pop((CONTEXT, running.node.number), None)
            self.on_loss(job, down)
            self._settle(running, down)
