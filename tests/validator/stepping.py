"""Runs of batching devices without an engine: the validator's own stepping, played forward.

    trace = play(problem, least_loaded)

gives the trace of a run in which every stage is placed as soon as it is ready and one of its
devices is up, first come first served, on devices chosen by a rule. An engine that is given the
same placements must produce the same rows; `validate` accepts them by construction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fate_gym.kernel.schema import EvictionRow, ShardRow
from fate_gym.problem import Problem
from fate_gym.sim.trace import OUTAGE_ROW
from fate_gym.validator.batching import Job, Run
from fate_gym.validator.choices import check_draws
from fate_gym.validator.network import inflow_of_tool
from fate_gym.validator.state import Row, Shard, State
from fate_gym.validator.world import HOST, Node

COLUMNS = ShardRow.dtype.names or ()


class Share(NamedTuple):
    """A device, its queries, and the device that sends it the prefix (-1: none)."""

    device: int
    queries: int
    source: int = -1


Rule: TypeAlias = Callable[["Player", Node, Sequence[int]], list[Share]]
"""Chooses the shares of a stage among the devices that are up and can host it."""

Noise: TypeAlias = Callable[[int, int], float]
"""Factor on durations, by stage and device."""

Length: TypeAlias = Callable[[int], float]
"""By stage."""


def certain(*_: int) -> float:
    """Return 1: no deviation from the estimate."""
    return 1.0


def least_loaded(player: Player, node: Node, devices: Sequence[int]) -> list[Share]:
    """Place the whole stage on the device with the fewest running and waiting queries."""
    return [Share(min(devices, key=player.sequences), node.stage.queries)]


def play(
    problem: Problem,
    rule: Rule,
    *,
    noise: Noise = certain,
    length: Length = certain,
    draws: Sequence[float] = (),
    outages: Sequence[tuple[int, float, float]] = (),
) -> Any:
    """Run a problem to its end; return the parts of a `Trace` that the validator reads.

    Args:
        problem: the problem, on batching devices.
        rule: chooses the devices of its stages.
        noise: factor on the durations of a stage on a device (-1 for a tool).
        length: actual / estimated output tokens.
        draws: draw of each stage, used by those that decide which others live (default: 0.5).
        outages: (device, down, up) by time.
    """
    count = problem.stage_count
    given = SimpleNamespace(
        problem=problem,
        retentions=[],
        draws=np.array(draws or [0.5] * count),
        outages=np.array(list(outages), OUTAGE_ROW),
    )
    player = Player(State(given), rule, noise, length)  # type: ignore[arg-type]
    player.run()
    return player.trace()


class Player(Run):
    """A run with placements by a rule, which records the rows of the trace."""

    def __init__(self, state: State, rule: Rule, noise: Noise, length: Length) -> None:
        super().__init__(state)
        check_draws(state)
        # It minds that stages have drawn which do not choose.
        state.faults.clear()
        self.rule, self.noise, self.length = rule, noise, length
        self.rows: list[Row] = []
        self._known: tuple[Any, list[tuple[float, bool, int]]] = ((), [])

    def sequences(self, device: int) -> int:
        """Return the number of queries that run or wait on a device."""
        engine = self.engines[device]
        waiting = sum(job.left + (job.paused.queries if job.paused else 0) for job in engine.queue)
        return waiting + sum(wave.queries for wave in engine.admitted)

    def hosts(self, node: Node) -> list[int]:
        """Return the devices that can host a stage, up or down."""
        machines = self.state.world.machines
        return [d for d, machine in enumerate(machines) if self.state.world.can_host(node, machine)]

    def _open(self) -> list[tuple[float, bool, int]]:
        """Return (time to place it, whether on a device, number) of the ready stages, in order."""
        state = self.state
        # Whatever happens changes one of these.
        now = (len(state.done), len(self.running), len(self.rows), *state.up_at)
        if self._known[0] == now:
            return self._known[1]
        found = []
        for node in state.world.nodes:
            if node.number in {*state.done, *state.vanished_by, *self.running}:
                continue
            if any(state.decider(before) not in state.done for before in state.awaited(node)):
                continue
            time, is_tool = state.ready(node), node.stage.kind == "tool"
            if not is_tool:
                time = max(time, min(state.up_at[device] for device in self.hosts(node)))
            found.append((time, not is_tool, node.number))
        self._known = now, sorted(found)
        return self._known[1]

    def next_commit(self) -> tuple[float, bool]:
        """Return when the first ready stage can be placed, and whether it is a tool."""
        time, on_device, _ = next(iter(self._open()), (math.inf, True, -1))
        return time, not on_device

    def next_placement(self) -> list[Row]:
        """Return the rows of the first ready stage, placed by the rule."""
        now, on_device, number = self._open()[0]
        node = self.state.world.nodes[number]
        shares = [Share(HOST, node.stage.queries)]
        if on_device:
            up = [device for device in self.hosts(node) if self.state.up_at[device] <= now]
            shares = self.rule(self, node, up)
        options = self.state.world.problem.options
        placed = []
        for slot, (device, queries, source) in enumerate(shares):
            row: Row = dict.fromkeys(COLUMNS, 0)
            row |= {"index": len(self.rows), "stage": number, "slot": slot, "device": device}
            row |= {"queries": queries, "committed": now, "source": source, "waves": 1}
            row["noise"] = self.noise(number, device) if options.uncertainty else 1.0
            is_uncertain = options.length_uncertainty > 0 and node.model is not None
            row["length"] = self.length(number) if is_uncertain else 1.0
            self.rows.append(row)
            placed.append(row)
        return placed

    def run_tool(self, node: Node, row: Row) -> Shard:
        """Run a tool and fill in its row."""
        inflow, seconds = inflow_of_tool(self.state, node, row), node.stage.tool_seconds or 0.0
        first = inflow.turn + inflow.transfer
        row |= {"start": inflow.turn, "transfer_s": inflow.transfer, "decode_s": seconds}
        row |= {"first": first, "end": first + seconds * row["noise"]}
        row["bytes_moved"] = inflow.bytes_moved
        return Shard(row, inflow.turn, row["end"])

    def on_end(self, job: Job, end: float) -> None:
        """Fill in the row of a shard."""
        _fill(job, end)

    def on_loss(self, job: Job, down: float) -> None:
        """Fill in the row of a shard that was lost."""
        job.row["lost"] = 1
        _fill(job, down)

    def trace(self) -> Any:
        """Return the trace of the run."""
        state, world = self.state, self.state.world
        workflows = world.problem.workflows
        ends = np.array([state.done[state.decider(node.number)].end for node in world.nodes])
        gone = np.array([node.number in state.vanished_by for node in world.nodes])
        ready = [end if gone[i] else state.ready(world.nodes[i]) for i, end in enumerate(ends)]
        arrival = np.array([state.arrival(w) for w in range(len(workflows))])
        workflow_of = np.array([node.workflow for node in world.nodes])
        last = np.array([ends[~gone & (workflow_of == w)].max() for w in range(len(workflows))])
        choosers = set(state.chooser.values()) - set(state.vanished_by)
        drawn = [d if i in choosers else np.nan for i, d in enumerate(state.trace.draws)]
        return SimpleNamespace(
            problem=world.problem,
            retentions=[],
            outages=state.trace.outages,
            draws=np.array(drawn),
            stage_ids=[(w.id, stage.id) for w in workflows for stage in w.stages],
            model_names=world.models,
            prefix_keys=world.prefixes,
            device_ids=[machine.name for machine in world.machines],
            shards=_array(ShardRow, [[row[c] for c in COLUMNS] for row in self.rows]),
            evictions=_array(EvictionRow, state.evicted),
            stage_ready=np.array(ready),
            stage_end=ends,
            stage_vanished=gone,
            workflow_arrival=arrival,
            workflow_end=last,
            workflow_of=workflow_of,
            decision_seconds=np.zeros(0),
            makespan=last.max() - arrival.min(),
            latencies=last - arrival,
            planning_seconds=0.0,
        )


def _fill(job: Job, end: float) -> None:
    row, found = job.row, job.found
    start, first = min(found.start, end), min(found.first, end)
    row |= {"start": start, "first": first, "end": end, "waves": job.waves}
    row |= {"load_s": found.load, "transfer_s": found.transfer, "decode_s": end - first}
    row["prefill_s"] = first - (start + max(found.load, found.transfer))
    row |= {"preempted": found.preempted, "copied": found.copied}
    if not found.copied:
        row["source"] = -1
    row |= {"context_hit": found.context_hit, "context_new": found.context_new}
    row["bytes_moved"] = found.bytes_moved
    if found.prefix is not None:
        row["prefix_hit"] = found.prefix
        row["prefix_new"] = job.node.stage.prefix_tokens - found.prefix


def _array(table: Any, rows: Sequence[Sequence[float]]) -> Any:
    return np.array([tuple(row) for row in rows], dtype=table.dtype)
