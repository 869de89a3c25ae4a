"""The problem as the planner sees it, blind to chosen dimensions of state (ablation).

The run itself is not changed: only the planner's plays use the blinded problem. Its arrays keep
their shapes, so the bytes of a state mean the same in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from fate_gym.errors import InputError, near_matches
from fate_gym.jit import kernel
from fate_gym.kernel.cost import batch_limit
from fate_gym.kernel.schema import MODEL_STAGE, ProblemArrays

Dimension = Literal["residency", "locality", "prefix", "reachability"]
DIMENSIONS: tuple[str, ...] = get_args(Dimension)


class Sight(NamedTuple):
    """How a planner sees a problem.

    Attributes:
        ignore: dimensions of state that it is blind to (`blinded`).
        load_share: share of a lasting load that is charged to known work in a stream
            (`policies.fate.lasting`).
        thrift: what device time costs in a stream (`policies.fate.device_time`).
    """

    ignore: Sequence[Dimension] = ()
    load_share: float = 1.0
    thrift: float = 0.0


EVERYTHING = Sight()
"""The problem as it is."""


def blinded(arrays: ProblemArrays, ignore: Sequence[Dimension]) -> ProblemArrays:
    """Copy a problem so that some dimensions of state make no difference; with none, return it.

    ``residency``: models load in no time. ``locality``: edges carry no bytes. ``prefix``: no
    stage shares a prefix with another (its tokens belong to its own prompts). ``reachability``:
    every device can run every stage in the mean time of those that can.

    Raises:
        InputError: unknown dimension.
    """
    for name in ignore:
        if name not in DIMENSIONS:
            raise InputError(
                f"unknown dimension {name!r}",
                field="params.ignore",
                remedy=near_matches(name, DIMENSIONS),
            )
    if not ignore:
        return arrays
    p = arrays.copy()
    if "residency" in ignore:
        p.load_seconds[:] = 0.0
    if "locality" in ignore:
        p.edges["bytes"] = 0.0
    if "prefix" in ignore:
        p.stages["prompt_tokens"] += p.stages["prefix_tokens"] // np.maximum(1, p.stages["queries"])
        p.stages["prefix_tokens"] = 0
        p.stages["written_tokens"] = 0
        p.stages["prefix"] = p.stages["written"] = -1
    if "reachability" in ignore:
        for table in (p.clean_seconds, p.decode_seconds):
            finite = np.isfinite(p.clean_seconds)
            mean = np.where(finite, table, 0.0).sum(axis=1) / np.maximum(1, finite.sum(axis=1))
            table[:] = np.where(finite, table, mean[:, None])
    _find_batches(p)
    return p


@kernel
def _find_batches(p: ProblemArrays) -> None:
    """Recompute batch limits: they depend on prefixes, and stages may now run on more devices."""
    for s in range(p.stages.size):
        if p.stages[s].kind == MODEL_STAGE:
            for d in range(p.devices.size):
                p.batch[s, d] = batch_limit(p, s, d)
