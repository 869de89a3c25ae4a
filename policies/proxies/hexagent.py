"""A proxy of HexAGenT: the stage that puts its workflow at most risk goes first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from policies.base import DecisionView
from policies.proxies.base import Ordered


class Hexagent(Ordered):
    """Largest risk first; each stage takes the device with the earliest estimated finish.

    Source: "HexAGenT" (arXiv 2605.16637).

    Taken: the risk of a stage, ((now - arrival) + remaining) / horizon over the part of the graph
    that is revealed; the device by the estimated finish.

    Inferred: remaining is the stage's upward rank; the horizon is the workflow's critical path,
    the largest upward rank of its stages. There is no boosted form: the device is chosen by EFT*
    as it is.

    Does not see stages that are not revealed.
    """

    def __init__(self, *, name: str = "hexagent") -> None:
        super().__init__(name=name)

    def order(self, view: DecisionView) -> Sequence[int]:
        """Return the ready stages by decreasing risk; ties by time ready."""
        ready = np.array(view.ready)
        risk = self.risk(view, ready)
        return [int(stage) for stage in ready[np.argsort(-risk, kind="stable")]]

    def risk(self, view: DecisionView, ready: np.ndarray) -> np.ndarray:
        """Compute the risk (n,) of ready stages."""
        p = view.compiled.arrays
        workflow = view.compiled.workflow_of[ready]
        rank = p.stages["upward_rank"]
        flows, of = np.unique(workflow, return_inverse=True)
        records = p.workflows[flows]
        horizon = np.array(
            [
                rank[first:last].max()
                for first, last in zip(records["stages_from"], records["stages_to"], strict=True)
            ]
        )
        elapsed = view.now - view.state.workflows["arrived_at"][flows]
        return (elapsed[of] + rank[ready]) / np.maximum(horizon[of], 1e-12)
