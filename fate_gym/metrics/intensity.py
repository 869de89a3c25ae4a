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
    """What state intensity is made of, seconds summed over stages; see `state_parts`."""

    load: float
    transfer: float
    prefix: float
    execution: float

    @property
    def intensity(self) -> float:
        """(load + transfer + prefix) / execution; NaN when nothing executes."""
        return self.share(self.load + self.transfer + self.prefix)

    def share(self, seconds: float) -> float:
        """Seconds over those of execution; NaN when nothing executes."""
        return seconds / self.execution if self.execution > 0 else float("nan")


def problem_state_intensity(compiled: CompiledProblem) -> float:
    """State intensity of a compiled problem, see `state_intensity`."""
    return problem_state_parts(compiled).intensity


def problem_state_parts(compiled: CompiledProblem) -> StateParts:
    """The parts of the state intensity of a compiled problem."""
    return state_parts(
        exec_seconds=compiled.exec_seconds,
        prefix_seconds=compiled.prefix_seconds,
        load_seconds=compiled.load_seconds,
        model_of=compiled.model_of,
        edge_parent=compiled.edge_parent,
        edge_child=compiled.edge_child,
        edge_bytes=compiled.edge_bytes,
        bandwidth=compiled.bandwidth,
        host_bandwidth=compiled.view.devices["host_bandwidth"],
    )


def state_intensity(
    *,
    exec_seconds: Floats,
    prefix_seconds: Floats,
    load_seconds: Floats,
    model_of: Ints,
    edge_parent: Ints,
    edge_child: Ints,
    edge_bytes: Floats,
    bandwidth: Floats,
    host_bandwidth: Floats,
) -> float:
    """State intensity, a ratio without unit; the arguments are those of `state_parts`."""
    return state_parts(
        exec_seconds=exec_seconds,
        prefix_seconds=prefix_seconds,
        load_seconds=load_seconds,
        model_of=model_of,
        edge_parent=edge_parent,
        edge_child=edge_child,
        edge_bytes=edge_bytes,
        bandwidth=bandwidth,
        host_bandwidth=host_bandwidth,
    ).intensity


def state_parts(
    *,
    exec_seconds: Floats,
    prefix_seconds: Floats,
    load_seconds: Floats,
    model_of: Ints,
    edge_parent: Ints,
    edge_child: Ints,
    edge_bytes: Floats,
    bandwidth: Floats,
    host_bandwidth: Floats,
) -> StateParts:
    """The parts of Σ (load + transfer + prefix prefill, all cold) / Σ execution, seconds.

    Load, prefix and execution of a stage are means over its eligible devices; the transfer of an
    edge is the mean over the pairs of different places that may run its two ends (tools: the
    host), bandwidth alone. Execution is prefill + decode with nothing cached, so prefix prefill
    counts in both sums; the seconds of tools do not. NaN when nothing executes.

    Args:
        exec_seconds: (S, D) prefill + decode; inf where not eligible.
        prefix_seconds: (S, D) the part of it that a cached prefix saves.
        load_seconds: (M, D) seconds to load each model.
        model_of: (S,) model of each stage, -1 without one.
        edge_parent: (E,) stage that an edge leaves.
        edge_child: (E,) stage that it enters.
        edge_bytes: (E,) bytes that it carries.
        bandwidth: (D, D) bytes/s from row to column; the diagonal is not read.
        host_bandwidth: (D,) bytes/s between each device and the host.
    """
    eligible = np.isfinite(exec_seconds)
    execution = _mean_over(eligible, exec_seconds).sum()
    of_model = model_of >= 0
    load = _mean_over(eligible[of_model], load_seconds[model_of[of_model]]).sum()
    prefix = _mean_over(eligible, prefix_seconds).sum()
    places = np.column_stack([eligible, ~eligible.any(axis=1)])
    links = np.block([[bandwidth, host_bandwidth[:, None]], [host_bandwidth, np.inf]])
    transfer = transfer_means(places, edge_parent, edge_child, links) @ edge_bytes
    return StateParts(float(load), float(transfer), float(prefix), float(execution))


def transfer_means(
    places: Bools,
    edge_parent: Ints,
    edge_child: Ints,
    bandwidth: Floats,
) -> Floats:
    """(E,) mean seconds a byte over the pairs of different places that may run an edge's ends.

    ``places`` is (S, P): where each stage may run; ``bandwidth`` is (P, P), bytes/s. 0 for an
    edge of which one place must run both ends.
    """
    apart = ~np.eye(len(bandwidth), dtype=bool)
    seconds = np.divide(1.0, bandwidth, where=apart, out=np.zeros(bandwidth.shape))
    # Few sets of places occur: the means are taken over pairs of sets, not over edges.
    sets, set_of = np.unique(places, axis=0, return_inverse=True)
    members = sets.astype(np.float64)
    total = members @ seconds @ members.T
    pairs = members @ apart @ members.T
    mean = np.divide(total, pairs, where=pairs > 0, out=np.zeros(total.shape))
    set_of = set_of.reshape(-1)
    return np.asarray(mean[set_of[edge_parent], set_of[edge_child]])


def _mean_over(eligible: Bools, seconds: Floats) -> Floats:
    """(S,) row means over the eligible devices; 0 for a row without any."""
    total = np.where(eligible, seconds, 0.0).sum(axis=1)
    return np.asarray(total / np.maximum(eligible.sum(axis=1), 1))


__all__ = [
    "StateParts",
    "problem_state_intensity",
    "problem_state_parts",
    "state_intensity",
    "state_parts",
    "transfer_means",
]
