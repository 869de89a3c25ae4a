"""The runs of environments that step together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fate_gym.env import play
from fate_gym.env.output import Words
from fate_gym.env.schema import EpisodeArrays, LaneArrays, Run
from fate_gym.env.source import Instance
from fate_gym.kernel.advance import start
from fate_gym.kernel.placements import Placements
from fate_gym.kernel.schema import NO_LOG, StateArrays

# The entries skip the argument checks.
_START: Any = start
_ENTER: Any = play.enter
_STEP_LANES: Any = play.step_lanes


@dataclass(frozen=True, eq=False)
class LaneMoment:
    """A moment of a lane's episode."""

    instance: Instance
    seed: int
    state: StateArrays
    episode: EpisodeArrays
    placements: Placements


class Lanes:
    """N runs, and the table in which compiled code finds them.

    Args:
        count: N.
        objectives: O.
        most_steps: steps that truncate an episode; None: no limit.

    Attributes:
        instances, seeds: what each lane plays; no instance (None) before its first episode.
        runs: the arrays of each lane, None before its first episode.
        table: the actions to play, and the results of the last step.
    """

    def __init__(self, count: int, objectives: int, most_steps: int | None) -> None:
        self.instances: list[Instance | None] = [None] * count
        self.runs: list[Run | None] = [None] * count
        self.seeds = [0] * count
        self.table = LaneArrays.allocate(N=count, O=objectives)
        self.table.most_steps = most_steps or 0

    def begin(self, i: int, instance: Instance, seed: int, buffer: Words) -> None:
        """Start an episode in lane ``i`` and write its observation to the buffer."""
        run = self._room(i, instance)
        self.seeds[i] = seed
        _START.entry(run.problem, run.state, NO_LOG, seed)
        _ENTER.entry(run, buffer, i)
        table = self.table
        table.terminated[i] = table.truncated[i] = False
        table.placements[i] = table.waits[i] = table.invalid_steps[i] = 0
        table.time[i] = run.state.now

    def moment(self, i: int, run: Run) -> LaneMoment:
        """Return a copy of the present moment of lane ``i``."""
        instance = self.instances[i]
        assert instance is not None
        copies = run.state.copy(), run.episode.copy(), run.placements.copy()
        return LaneMoment(instance, self.seeds[i], *copies)

    def resume(self, i: int, moment: LaneMoment) -> None:
        """Let lane ``i`` go on from a moment."""
        run = self._room(i, moment.instance)
        self.seeds[i] = moment.seed
        run.state.buffer[:] = moment.state.buffer
        run.episode.buffer[:] = moment.episode.buffer
        run.placements.buffer[:] = moment.placements.buffer

    def recall(self, table: LaneArrays) -> None:
        """Take over the results of the last step, but keep the addresses of the own arrays."""
        lanes = self.table.lanes.copy()
        self.table.buffer[:] = table.buffer
        self.table.lanes[:] = lanes

    def step(self, buffer: Words) -> int:
        """Play the actions in every lane that does not rest; return how many episodes ended."""
        return int(_STEP_LANES.entry(self.table, NO_LOG, buffer))

    def _room(self, i: int, instance: Instance) -> Run:
        """Return the arrays of lane ``i``, which plays this problem from now on."""
        run, before = self.runs[i], self.instances[i]
        if run is None or before is not instance:
            if run is not None and before is not None:
                before.release(run)
            run = instance.acquire()
            self.instances[i], self.runs[i] = instance, run
            self.table.lanes[i] = _addresses(run)
        return run

    def __setstate__(self, kept: Mapping[str, Any]) -> None:
        """Restore a copy, which has its own arrays at other addresses."""
        self.__dict__.update(kept)
        for i, run in enumerate(self.runs):
            if run is not None:
                self.table.lanes[i] = _addresses(run)


def _addresses(run: Run) -> tuple[int, ...]:
    return tuple(arrays.address for arrays in run)
