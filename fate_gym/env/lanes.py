"""The runs of environments that step together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fate_gym.env import play
from fate_gym.env.output import Words
from fate_gym.env.schema import LaneArrays, Run
from fate_gym.env.source import Instance
from fate_gym.kernel.advance import start
from fate_gym.kernel.schema import NO_LOG

# Called without checks of their arguments.
_START: Any = start
_ENTER: Any = play.enter
_STEP_LANES: Any = play.step_lanes


class Lanes:
    """N runs, and the table by which compiled code finds them.

    Args:
        count: N.

    Attributes:
        instances, seeds: what each lane plays; None before its first episode.
        runs: its arrays, None before its first episode.
        table: actions to play, and what came of the last step.
    """

    def __init__(self, count: int) -> None:
        self.instances: list[Instance | None] = [None] * count
        self.runs: list[Run | None] = [None] * count
        self.seeds = [0] * count
        self.table = LaneArrays.allocate(N=count)

    def begin(self, i: int, instance: Instance, seed: int, buffer: Words) -> None:
        """Start an episode in lane ``i``; its observation is written to the buffer."""
        run, before = self.runs[i], self.instances[i]
        if run is None or before is not instance:
            if run is not None and before is not None:
                before.release(run)
            run = instance.acquire()
            self.instances[i], self.runs[i] = instance, run
            self.table.lanes[i] = _addresses(run)
        self.seeds[i] = seed
        _START.entry(run.problem, run.state, NO_LOG, seed)
        _ENTER.entry(run, buffer, i)
        self.table.ended[i] = False
        self.table.time[i] = run.state.now

    def step(self, buffer: Words) -> int:
        """Play the actions in every lane that does not rest; returns how many episodes ended."""
        return int(_STEP_LANES.entry(self.table, NO_LOG, buffer))

    def __setstate__(self, kept: Mapping[str, Any]) -> None:
        """A copy has arrays of its own, at other addresses."""
        self.__dict__.update(kept)
        for i, run in enumerate(self.runs):
            if run is not None:
                self.table.lanes[i] = _addresses(run)


def _addresses(run: Run) -> tuple[int, ...]:
    return tuple(arrays.address for arrays in run)
