"""Arrival times of the workflows of a stream: configuration, and pure functions."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from fate_gym.catalog.limits import PositiveAmount, Seconds
from fate_gym.errors import InputError
from fate_gym.problem.workflow import Frozen

Floats = NDArray[np.float64]


class Arrivals(Frozen):
    """How the workflows of a stream arrive.

    ``poisson`` and ``bursty`` need a rate, as exactly one of ``load`` and ``rate_per_s``.
    ``at_once`` has none. ``given`` takes ``times``, and as many workflows as there are times.
    ``trace`` takes the times that the source recorded, with gaps stretched to a rate if one is
    given.
    """

    process: Literal["poisson", "bursty", "at_once", "given", "trace"] = "poisson"
    load: PositiveAmount | None = Field(
        None,
        description="work that arrives / work that the cluster does; see fate_gym.workloads.load",
    )
    rate_per_s: PositiveAmount | None = Field(None, description="workflows per second")
    burst_ratio: float = Field(8.0, gt=1, le=1e6, description="rate in bursts / rate between them")
    burst_share: float = Field(0.2, ge=1e-6, lt=1, description="share of time that bursts take")
    burst_workflows: PositiveAmount = Field(10.0, description="mean number of a burst's arrivals")
    times: tuple[Seconds, ...] | None = Field(None, description="seconds, ascending")

    @model_validator(mode="after")
    def _complete(self) -> Arrivals:
        rates = (self.load is not None) + (self.rate_per_s is not None)
        if self.process in ("poisson", "bursty") and rates != 1:
            raise ValueError(f"{self.process} needs exactly one of load and rate_per_s")
        if self.process == "trace" and rates > 1:
            raise ValueError("trace takes one of load and rate_per_s at most")
        if self.process == "given":
            if not self.times:
                raise ValueError("given needs times")
            if any(late < early for early, late in pairwise(self.times)):
                raise ValueError("times have to ascend")
        return self


def arrival_times(
    arrivals: Arrivals, generator: np.random.Generator, count: int, *, capacity_per_s: float
) -> Floats:
    """Return ascending arrival times of ``count`` workflows, shape (count,), seconds.

    Args:
        arrivals: the process.
        generator: source of randomness.
        count: number of workflows; a process of given times may return fewer times.
        capacity_per_s: workflows per second at a load of 1.

    Raises:
        InputError: if more times are given than there are workflows.
    """
    if arrivals.process == "at_once":
        return np.zeros(count)
    if arrivals.process == "given":
        times = np.array(arrivals.times)
        if len(times) > count:
            raise InputError(
                f"{len(times)} times for {count} workflows",
                field="arrivals.times",
                remedy="give fewer times, or make the suite larger",
            )
        return times
    rate = arrivals.rate_per_s or (arrivals.load or 0.0) * capacity_per_s
    if arrivals.process == "poisson":
        return poisson(generator, count, rate)
    return bursty(
        generator,
        count,
        rate,
        ratio=arrivals.burst_ratio,
        share=arrivals.burst_share,
        workflows=arrivals.burst_workflows,
    )


def recorded_times(starts: Floats, arrivals: Arrivals, *, capacity_per_s: float, of: str) -> Floats:
    """Return seconds from the first of the recorded ``starts``, gaps stretched to the rate.

    Args:
        starts: seconds, as the source has them.
        arrivals: process ``trace``; without a rate the gaps stay as they are.
        capacity_per_s: arrivals per second at a load of 1.
        of: what has the starts, for messages.

    Raises:
        InputError: if all starts are the same.
    """
    times: Floats = starts - starts.min()
    span = float(times.max())
    if span == 0.0:
        raise InputError(
            f"the {of} have no arrival times of their own",
            field="arrivals.process",
            remedy="use poisson, bursty, at_once or given",
        )
    rate = arrivals.rate_per_s if arrivals.load is None else arrivals.load * capacity_per_s
    return times if rate is None else times * (len(times) / (rate * span))


def poisson(generator: np.random.Generator, count: int, rate: float) -> Floats:
    """Return the first ``count`` arrivals of a Poisson process, seconds; ``rate`` is per second."""
    times: Floats = np.cumsum(generator.exponential(1.0 / rate, count))
    return times


def bursty(
    generator: np.random.Generator,
    count: int,
    rate: float,
    *,
    ratio: float,
    share: float,
    workflows: float,
) -> Floats:
    """Return ``count`` arrivals of a two-state Markov-modulated Poisson process, seconds.

    The process alternates between calm and burst, each for an exponential time, and starts in its
    steady state (Fischer & Meier-Hellstern, "The Markov-modulated Poisson process cookbook", 1993).

    Args:
        generator: source of randomness.
        count: number of arrivals.
        rate: long-run mean arrivals per second.
        ratio: rate in a burst / rate in the calm.
        share: share of the time that is burst.
        workflows: mean arrivals in a burst.
    """
    calm_rate = rate / (1.0 - share + share * ratio)
    rates = (calm_rate, calm_rate * ratio)
    burst_s = workflows / rates[1]
    means = (burst_s * (1.0 - share) / share, burst_s)
    state = int(generator.random() < share)
    start, found = 0.0, 0
    times: list[Floats] = []
    while found < count:
        length = generator.exponential(means[state])
        # Given their number, the arrivals of a Poisson process are uniform over the time.
        number = generator.poisson(rates[state] * length)
        times.append(start + np.sort(generator.uniform(0.0, length, number)))
        found += number
        start += length
        state = 1 - state
    return np.concatenate(times)[:count]
