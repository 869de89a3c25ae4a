"""The replay of a trace of batching devices, in the order of time."""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import dataclass

from fate_gym.validator.batching.border import at_border, commit
from fate_gym.validator.batching.compare import (
    compare_ended,
    compare_evictions,
    compare_lost,
    compare_tool,
)
from fate_gym.validator.batching.engine import Engine
from fate_gym.validator.batching.waves import Job, slack
from fate_gym.validator.memory import CONTEXT
from fate_gym.validator.placements import check_all_ran, check_placement, node_of, placements
from fate_gym.validator.shards import drawn, run_tool
from fate_gym.validator.state import Placement, Row, Shard, State
from fate_gym.validator.world import HOST, Node


def replay_batching(state: State, rows: list[Row]) -> None:
    """Replay and compare all shards and evictions."""
    Replay(state, rows).run()
    check_all_ran(state)
    compare_evictions(state)


@dataclass(eq=False)
class Running:
    """A placement whose shards have not all ended; ``lost``: a device of it has failed."""

    node: Node
    jobs: dict[int, Job]
    away: set[int]
    lost: set[int]


class Replay:
    """What has happened so far on all devices."""

    def __init__(self, state: State, rows: list[Row]) -> None:
        self.state = state
        self.engines = [Engine(state, d, self._ended) for d in range(len(state.world.machines))]
        self.running: dict[int, Running] = {}
        self.coming = list(placements(rows))

    def run(self) -> None:
        """Go through time until nothing happens any more.

        Borders come first in their instant, then failures, then commits. (A tool starts by itself,
        before them.) An iteration starts when no more can happen in the instant of its border.
        """
        while True:
            border = min((engine.next_border for engine in self.engines), default=math.inf)
            down = self.state.outages[0][0] if self.state.outages else math.inf
            now, is_tool = self._next_commit()
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
                self._place(self.coming.pop(0))

    def _next_commit(self) -> tuple[float, bool]:
        if not self.coming:
            return math.inf, False
        row = self.coming[0][0]
        now = row["committed"]
        if not math.isfinite(now):
            self.state.faults.stop(f"{self.state.at(row)}: committed at {now!r}")
        return now, row["device"] == HOST

    def _start_before(self, time: float) -> bool:
        """Start the iterations whose border is behind at ``time``; whether there were any."""
        ready = [engine for engine in self.engines if engine.about_to_run]
        ready = [engine for engine in ready if engine.border + slack(engine.border) < time]
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
            shard = run_tool(state, node, rows[0])
            compare_tool(state, rows[0], shard.end)
            state.done[node.number] = Placement(node, {HOST: shard}, shard.end)
            insort(state.events, shard.end)
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
        """A shard has ended."""
        job.end = end
        compare_ended(self.state, job, end)
        insort(self.state.events, end)
        self._settle(self.running[job.node.number], end)

    def _settle(self, running: Running, now: float) -> None:
        """End a stage whose last shard has ended, or make it ready again if it has lost one."""
        state, node = self.state, running.node
        ends = {d: job.end for d, job in running.jobs.items() if d not in running.lost}
        over = [end for end in ends.values() if end is not None]
        if len(over) < len(ends):
            return
        del self.running[node.number]
        if running.lost:
            state.again[node.number] = now
            insort(state.events, now)
            for memory in state.memories:
                memory.kv.pop((CONTEXT, node.number), None)
            return
        end = max(over) + (len(over) - 1) * state.world.facts.gather_s
        insort(state.events, end)
        shards = {d: Shard(job.row, job.found.start, end) for d, job in running.jobs.items()}
        state.done[node.number] = Placement(node, shards, end, running.away)

    def _fail(self, down: float, up: float, device: int) -> None:
        """A device loses its memory and the shards that have not ended."""
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
            compare_lost(state, job, down)
            self._settle(running, down)
