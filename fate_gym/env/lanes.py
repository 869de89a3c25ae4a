"""The runs of environments that step together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fate_gym.env import play
from fate_gym.env.output import Words
from fate_gym.env.schema import LaneArrays, RunArrays
from fate_gym.env.source import Instance
from fate_gym.kernel.advance import start
from fate_gym.kernel.schema import NO_LOG

# Called without checks of their arguments.
_START: Any = start
_ENTER: Any = play.enter
_STEP_LANES: Any = play.step_lanes


class Lanes:
    """B runs, and the table by which compiled code finds them.

    Args:
        count: B.

    Attributes:
        instances, seeds: what each lane plays; None before its first episode.
        runs: its arrays, None before its first episode.
        action: (B,) to play next.
        reward, time, ended, invalid: (B,) what came of the last step. A lane that has ended rests.
    """

    def __init__(self, count: int) -> None:
        self.instances: list[Instance | None] = [None] * count
        self.runs: list[RunArrays | None] = [None] * count
        self.seeds = [0] * count
        self._make_table()

    def begin(self, i: int, instance: Instance, seed: int, buffer: Words) -> None:
        """Start an episode in lane ``i``; its observation is written to the buffer."""
        run, before = self.runs[i], self.instances[i]
        if run is None or before is not instance:
            if run is not None and before is not None:
                before.release(run)
            run = instance.acquire()
            self.instances[i], self.runs[i] = instance, run
            self._enter_addresses(i, run)
        self.seeds[i] = seed
        _START.entry(run.problem, run.state, NO_LOG, seed)
        _ENTER.entry(run, buffer, i)
        self.ended[i] = False
        self.time[i] = run.state.now

    def step(self, buffer: Words) -> int:
        """Play ``action`` in every lane that does not rest; returns how many episodes ended."""
        return int(_STEP_LANES.entry(self._table, NO_LOG, buffer))

    def _make_table(self) -> None:
        self._table = LaneArrays.allocate(N=len(self.runs))
        rows = self._table.lanes
        self.action, self.reward, self.time = rows["action"], rows["reward"], rows["time"]
        self.ended, self.invalid = rows["ended"], rows["invalid"]

    def _enter_addresses(self, i: int, run: RunArrays) -> None:
        for name, arrays in run._asdict().items():
            self._table.lanes[name][i] = arrays.address

    # The table has addresses: a copy has its own.

    def __getstate__(self) -> dict[str, Any]:
        return {
            "instances": self.instances,
            "runs": self.runs,
            "seeds": self.seeds,
            "rows": self._table.lanes.copy(),
        }

    def __setstate__(self, kept: Mapping[str, Any]) -> None:
        self.instances, self.runs = kept["instances"], kept["runs"]
        self.seeds = kept["seeds"]
        self._make_table()
        self._table.lanes[:] = kept["rows"]
        for i, run in enumerate(self.runs):
            if run is not None:
                self._enter_addresses(i, run)
