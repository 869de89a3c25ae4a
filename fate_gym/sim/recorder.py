"""Record why stages run where they do: what was compared, and the state at that time.

Nothing here affects a run: with a recorder it makes the same schedule as without.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fate_gym.kernel.cost import split_queries
from fate_gym.kernel.estimate import placement_end
from fate_gym.sim.policy import Assignment, ExplainingPolicy, Explanation, Policy
from fate_gym.sim.view import DecisionView

Floats = NDArray[np.float64]

PARTS = ("turn", "load", "transfer", "prefill", "decode", "end")
"""Parts of the estimated cost of a whole stage on one device (`fate_gym.kernel.cost.Cost`)."""


class Estimates(NamedTuple):
    """What a placement was expected to cost, right before it was made.

    Attributes:
        time: when it was decided, seconds.
        row: log row of its first shard.
        parts: (D, P) the `PARTS` of the whole stage on each device alone, turn and end in simulated
            seconds; NaN where it cannot run.
        end: when the placement that was made was expected to end, seconds.
    """

    time: float
    row: int
    parts: Floats
    end: float


class Placed(NamedTuple):
    """A placement that was made, and what it was compared with."""

    assignment: Assignment
    estimates: Estimates
    explanation: Explanation | None


class Held(NamedTuple):
    """What a device holds.

    Attributes:
        device: its number.
        row: log row of the shard from whose start on this holds; -1: it holds from ``time`` on.
        time: seconds.
        weights, cached: bytes of weights, and of KV that is cached or in use.
        models: numbers of the models whose weights these are.
    """

    device: int
    row: int
    time: float
    weights: float
    cached: float
    models: tuple[int, ...]


class Recorder:
    """Records the decisions of one run, and what devices hold.

    On exclusive devices memory is recorded as each shard leaves it, from its start on; on batching
    devices, whenever the policy is asked.

    Attributes:
        placed_stages: the placements, in order.
        held: what devices hold, by device in order of time.
    """

    def __init__(self) -> None:
        self.placed_stages: list[Placed] = []
        self.held: list[Held] = []
        self._explanation: Explanation | None = None
        self._latest: dict[int, Held] = {}

    def decided(self, policy: Policy, view: DecisionView) -> None:
        """Record a policy's decision before it takes effect."""
        self._explanation = policy.explain(view) if isinstance(policy, ExplainingPolicy) else None
        if view.batching:
            for device in range(view.devices):
                self._look_at(view, device, -1)

    def estimates(self, view: DecisionView, assignment: Assignment) -> Estimates:
        """Return what a placement is expected to cost, before it is made."""
        stage, devices = assignment.stage, assignment.devices
        parts = np.full((view.devices, len(PARTS)), np.nan)
        for device in view.eligible(stage).tolist():
            source = assignment.migrate_from if device in devices else None
            cost = view.estimate(stage, device, source)
            parts[device] = [getattr(cost, name) for name in PARTS]
        end = float(parts[devices[0], -1])
        if len(devices) > 1:
            end = _end_of_team(view, assignment)
        return Estimates(view.now, view.state.shard_rows, parts, end)

    def placed(self, view: DecisionView, assignment: Assignment, met: Estimates) -> None:
        """Record a placement that was made; ``met`` are its `estimates`."""
        self.placed_stages.append(Placed(assignment, met, self._explanation))
        if not view.batching:
            for place, device in enumerate(assignment.devices):
                self._look_at(view, device, met.row + place)

    def _look_at(self, view: DecisionView, device: int, row: int) -> None:
        state = view.state
        models = tuple(np.flatnonzero(state.resident[device]).tolist())
        weights, cached = (float(state.devices[n][device]) for n in ("weight_bytes", "kv_bytes"))
        held = Held(device, row, view.now, weights, cached, models)
        before = self._latest.get(device)
        if before is None or before[3:] != held[3:]:
            self._latest[device] = held
            self.held.append(held)


def _end_of_team(view: DecisionView, assignment: Assignment) -> float:
    """Return when a stage shared by several devices is expected to end."""
    p, width = view.compiled.arrays, len(assignment.devices)
    devices = np.array(assignment.devices, np.int64)
    counts = np.array(assignment.counts or [0] * width, np.int64)
    if assignment.counts is None:
        split_queries(p, assignment.stage, devices, width, counts)
    return float(placement_end(p, view.state, assignment.stage, devices, counts, width))
