"""When the stages of a script begin and end, given the seconds of its operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fate_gym.lab.replay.script import Close, Open, Pass, Script


@dataclass(frozen=True)
class Timeline:
    """Begin and end of the stages that the device runs, by stage number, seconds."""

    begin: dict[int, float]
    end: dict[int, float]
    makespan: float


def timeline(script: Script, seconds: Sequence[float]) -> Timeline:
    """Compute the timeline by going through the operations; a part waits until its stage is ready.

    Nothing really waits: time is the sum of what the operations took, and is moved forward where
    the device would wait for a tool, an arrival or another device. Tools and other devices take as
    long as in the trace.
    """
    clock = _Clock(script)
    for operation, taken in zip(script.operations, seconds, strict=True):
        if isinstance(operation, Open):
            clock.open(operation.part)
        clock.now += taken
        if isinstance(operation, Close):
            clock.close(operation)
        elif isinstance(operation, Pass):
            # A pass does not begin before its inputs have arrived.
            clock.now = max(clock.now, clock.inputs_at + taken)
    first = min(clock.arrival(number) for number in range(len(script.world.stages)))
    ends = [clock.end_of(number) for number in range(len(script.world.nodes))]
    return Timeline(clock.begin, clock.end, max(ends) - first)


class _Clock:
    def __init__(self, script: Script) -> None:
        self.script, self.trace, self.world = script, script.trace, script.world
        self.mine = {part.stage for part in script.parts}
        self.now = self.inputs_at = 0.0
        self.begin: dict[int, float] = {}
        self.end: dict[int, float] = {}

    def open(self, number: int) -> None:
        part = self.script.parts[number]
        ready = self.ready(part.stage)
        self.now = max(self.now, ready)
        self.begin.setdefault(part.stage, self.now)
        # A batching device fetches while it serves others.
        fetches_at = ready if part.first_comes_with_prompt else self.now
        self.inputs_at = max(self.inputs_at, fetches_at + part.transfer_s)

    def close(self, operation: Close) -> None:
        if operation.last:
            self.end[self.script.parts[operation.part].stage] = self.now

    def ready(self, stage: int) -> float:
        node = self.world.nodes[stage]
        parents = [self.end_of(parent) for parent, _ in node.parents]
        return max([self.arrival(node.workflow), *parents])

    def arrival(self, workflow: int) -> float:
        flow, before = self.trace.problem.workflows[workflow], self.world.before[workflow]
        if before is None:
            return flow.arrival
        ended = max(self.end_of(stage) for stage in self.world.stages[before])
        return max(flow.arrival, ended + flow.think_seconds)

    def end_of(self, stage: int) -> float:
        if stage in self.mine:
            return self.end[stage]
        if self.world.nodes[stage].stage.kind == "tool" and not self.trace.stage_vanished[stage]:
            # The same duration as in the trace, from when it is ready here.
            took = float(self.trace.stage_end[stage] - self.trace.stage_ready[stage])
            return self.ready(stage) + took
        return float(self.trace.stage_end[stage])
