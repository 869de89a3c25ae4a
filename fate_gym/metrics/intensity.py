"""State intensity: how much of a problem's cost depends on what is already in place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fate_gym.metrics.arrays import Bools, Floats, Ints

if TYPE_CHECKING:
    from fate_gym.sim import CompiledProblem


@dataclass(frozen=True)
class StateParts:
    """The parts of state intensity, seconds summed over stages; see `problem_state_parts`."""

    load: float
    transfer: float
    prefix: float
    execution: float

    @property
    def intensity(self) -> float:
        """(load + transfer + prefix) / execution; NaN when nothing executes."""
        return self.share(self.load + self.transfer + self.prefix)

    def share(self, seconds: float) -> float:
        """Return ``seconds`` / execution; NaN when nothing executes."""
        return seconds / self.execution if self.execution > 0 else float("nan")


def problem_state_intensity(compiled: CompiledProblem) -> float:
    """Return the state intensity of a compiled problem, a ratio; see `problem_state_parts`."""
    return problem_state_parts(compiled).intensity


def problem_state_parts(compiled: CompiledProblem) -> StateParts:
    """Return the parts of Σ (load + transfer + prefix prefill, all cold) / Σ execution, seconds.

    Load, prefix and execution of a stage are means over its eligible devices. The transfer of an
    edge is the mean over pairs of different places that may run its two ends (tools: the host), by
    bandwidth alone. Execution is prefill + decode with nothing cached, so prefix prefill counts in
    both sums; the seconds of tools do not count.
    """
    eligible = np.isfinite(compiled.clean_seconds)
    model_of, of_model = compiled.model_of, compiled.model_of >= 0
    load = _mean_over(eligible[of_model], compiled.load_seconds[model_of[of_model]])
    places = np.column_stack([eligible, ~eligible.any(axis=1)])
    to_host = compiled.arrays.devices["host_bandwidth"]
    links = np.block([[compiled.bandwidth, to_host[:, None]], [to_host, np.inf]])
    transfer = _transfer_means(places, compiled.edge_parent, compiled.edge_child, links)
    return StateParts(
        load=float(load.sum()),
        transfer=float(transfer @ compiled.edge_bytes),
        prefix=float(_mean_over(eligible, compiled.prefix_seconds).sum()),
        execution=float(_mean_over(eligible, compiled.clean_seconds).sum()),
    )


def _transfer_means(
    places: Bools, edge_parent: Ints, edge_child: Ints, bandwidth: Floats
) -> Floats:
    """Return (E,) mean seconds per byte over pairs of different places for an edge's two ends.

    ``places`` is (S, P): where each stage may run; ``bandwidth`` is (P, P), bytes/s. 0 for an
    edge whose ends can only run in the same place.
    """
    apart = ~np.eye(len(bandwidth), dtype=bool)
    seconds = np.divide(1.0, bandwidth, where=apart, out=np.zeros(bandwidth.shape))
    # Few sets of places occur, so take means over pairs of sets, not over edges.
    sets, set_of = np.unique(places, axis=0, return_inverse=True)
    members = sets.astype(np.float64)
    total = members @ seconds @ members.T
    pairs = members @ apart @ members.T
    mean = np.divide(total, pairs, where=pairs > 0, out=np.zeros(total.shape))
    set_of = set_of.reshape(-1)
    return np.asarray(mean[set_of[edge_parent], set_of[edge_child]])


def _mean_over(eligible: Bools, seconds: Floats) -> Floats:
    """Return (S,) row means over the eligible devices; 0 for a row without any."""
    total = np.where(eligible, seconds, 0.0).sum(axis=1)
    return np.asarray(total / np.maximum(eligible.sum(axis=1), 1))
