"""The planner's own picture of a problem, blind to chosen dimensions of state (ablation).

What happens is not changed: only the planner's plays run on the picture. The arrays keep their
shapes, so states of the run and of the picture are the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from fate_gym.compiled import plain
from fate_gym.errors import InputError, near_matches
from fate_gym.sim.layout import Buffer, problem_view

if TYPE_CHECKING:
    from fate_gym.sim import CompiledProblem

Dimension = Literal["residency", "locality", "prefix", "reachability"]
DIMENSIONS: tuple[str, ...] = get_args(Dimension)


def neutralised(compiled: CompiledProblem, ignore: Sequence[Dimension]) -> Buffer:
    """A problem buffer in which some dimensions of state make no difference.

    ``residency``: models load in no time. ``locality``: edges carry no bytes. ``prefix``: no
    stage shares a prefix with another (its tokens belong to its own prompts). ``reachability``:
    every device can run every stage in the mean time of those that can.

    Raises:
        InputError: for a name that is none of these.
    """
    for name in ignore:
        if name not in DIMENSIONS:
            raise InputError(
                f"unknown dimension {name!r}",
                field="params.ignore",
                remedy=near_matches(name, DIMENSIONS),
            )
    if not ignore:
        return compiled.buffer
    buffer = compiled.buffer.copy()
    view = plain(problem_view)(buffer)
    if "residency" in ignore:
        view.load_seconds[:] = 0.0
    if "locality" in ignore:
        view.edges["bytes"] = 0.0
    if "prefix" in ignore:
        stages = view.stages
        own = stages["prefix_tokens"] // np.maximum(1, stages["queries"])
        stages["prompt_tokens"] += own
        stages["prefix_tokens"] = 0
        stages["prefix"] = -1
    if "reachability" in ignore:
        for table in (view.clean_seconds, view.decode_seconds):
            finite = np.isfinite(view.clean_seconds)
            mean = np.where(finite, table, 0.0).sum(axis=1) / np.maximum(1, finite.sum(axis=1))
            table[:] = np.where(finite, table, mean[:, None])
    return buffer
