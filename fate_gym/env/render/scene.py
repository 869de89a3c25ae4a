"""The interface of environments that renderings use, and the scale of their time axes."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fate_gym.env.schema import Run
from fate_gym.sim import CompiledProblem, DecisionView, Trace


class Scene(Protocol):
    """A running episode; `fate_gym.env.WorkflowSchedulingEnv` is one."""

    @property
    def compiled(self) -> CompiledProblem: ...

    @property
    def time(self) -> float: ...

    @property
    def arrays(self) -> Run: ...

    @property
    def window(self) -> list[int]: ...

    def trace(self) -> Trace: ...

    def view(self) -> DecisionView: ...


def shards_until(trace: Trace, now: float) -> NDArray[Any]:
    """Return (R,) the shards of a run so far, with unknown times set to the present.

    On batching devices nothing is settled ahead: queued shards have no start, running ones no end.
    """
    shards = trace.shards.copy()
    running = np.isinf(shards["end"])
    for name in ("start", "first", "end"):
        shards[name][running] = np.minimum(shards[name][running], now)
    return shards


def horizon(time: float, shards: NDArray[Any]) -> float:
    """Return the end of a time axis that shows all that has been placed, seconds."""
    return rounded_up(max(time, float(shards["end"].max(initial=0.0))))


def rounded_up(seconds: float) -> float:
    """Round up to the next of 1, 1.5, 2, 3, 5, 7.5, 10 times a power of ten."""
    if seconds <= 0.0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(seconds))
    steps = (1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0)
    return next((step * power for step in steps if step * power >= seconds), 10.0 * power)
