"""The replay of a trace of batching devices."""

from __future__ import annotations

import math

from fate_gym.validator.batching.compare import (
    compare_ended,
    compare_evictions,
    compare_lost,
    compare_tool,
)
from fate_gym.validator.batching.run import Run
from fate_gym.validator.batching.waves import Job
from fate_gym.validator.placements import check_all_ran, placements
from fate_gym.validator.shards import run_tool
from fate_gym.validator.state import Row, Shard, State
from fate_gym.validator.world import HOST, Node


def replay_batching(state: State, rows: list[Row]) -> None:
    """Replay and compare all shards and evictions."""
    Replay(state, rows).run()
    check_all_ran(state)
    compare_evictions(state)


class Replay(Run):
    """A run that takes its placements from a trace and compares the trace's rows."""

    def __init__(self, state: State, rows: list[Row]) -> None:
        super().__init__(state)
        self.coming = list(placements(rows))

    def next_commit(self) -> tuple[float, bool]:
        """Return when the next rows are committed, and whether they are a tool's."""
        if not self.coming:
            return math.inf, False
        row = self.coming[0][0]
        now = row["committed"]
        if not math.isfinite(now):
            self.state.faults.stop(f"{self.state.at(row)}: committed at {now!r}")
        return now, row["device"] == HOST

    def next_placement(self) -> list[Row]:
        """Return the next rows."""
        return self.coming.pop(0)

    def run_tool(self, node: Node, row: Row) -> Shard:
        """Run a tool and compare its row."""
        shard = run_tool(self.state, node, row)
        compare_tool(self.state, row, shard.end)
        return shard

    def on_end(self, job: Job, end: float) -> None:
        """Compare the row of a shard that has ended."""
        compare_ended(self.state, job, end)

    def on_loss(self, job: Job, down: float) -> None:
        """Compare the row of a shard that was lost."""
        compare_lost(self.state, job, down)
