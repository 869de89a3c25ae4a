"""Learning curves of trainings, aggregated over seeds.

Interquartile means with 95 % bootstrap intervals, as Agarwal et al. 2021 recommend for few runs.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap, trim_mean

from fate_gym.errors import InputError
from fate_gym.lab.tables import Estimate
from fate_gym.lab.training.result import RESULT, TrainResult, read_train_result
from fate_gym.lab.training.state import Progress, read_progress


@dataclass(frozen=True)
class Curve:
    """The seeds of one agent on one curriculum.

    Attributes:
        steps: (n,) steps at which all seeds were validated.
        latency_ratios: (seeds, n) validation results at these steps.
        best: (seeds,) validation results of the checkpoints that were kept.
        seconds: (seeds,) durations of the trainings.
    """

    curriculum: str
    agent: str
    steps: NDArray[np.int64]
    latency_ratios: NDArray[np.float64]
    best: NDArray[np.float64]
    seconds: NDArray[np.float64]


def iqm(values: NDArray[np.float64], axis: int = 0) -> NDArray[np.float64]:
    """Compute the interquartile mean, which leaves out the lowest and the highest quarter."""
    return np.asarray(trim_mean(values, 0.25, axis=axis))


def iqm_estimate(values: NDArray[np.float64]) -> Estimate:
    """Compute the interquartile mean and its interval, of zero width for equal values."""
    mean = float(iqm(values))
    if values.size < 2 or float(np.ptp(values)) == 0.0:
        return Estimate(mean, mean, mean)
    found = bootstrap(
        (values,), iqm, method="percentile", n_resamples=2000, rng=np.random.default_rng(0)
    )
    return Estimate(mean, *map(float, found.confidence_interval))


def read_curves(root: Path) -> list[Curve]:
    """Read the curves of all finished trainings below a directory, by curriculum and agent.

    Raises:
        InputError: there is none, a file is damaged, or seeds have no validation in common.
    """
    runs: dict[tuple[str, str], dict[int, tuple[Progress, TrainResult]]] = defaultdict(dict)
    for path in sorted(root.glob(f"**/{RESULT}")):
        result = read_train_result(path.parent)
        assert result is not None
        progress, _ = read_progress(path.parent)
        runs[result.curriculum, result.agent][result.seed] = (progress, result)
    if not runs:
        raise InputError(
            "no finished training", source=root, remedy="run fate-gym train with paths.runs there"
        )
    return [_curve(*names, list(seeds.values())) for names, seeds in runs.items()]


def _curve(curriculum: str, agent: str, runs: list[tuple[Progress, TrainResult]]) -> Curve:
    by_step = [
        {int(row["steps"]): row["latency_ratio"] for row in progress.curve} for progress, _ in runs
    ]
    steps = sorted(set.intersection(*map(set, by_step)))
    if not steps:
        raise InputError(
            f"the trainings of {agent} on {curriculum} have no validation in common",
            remedy="delete the damaged ones and train them again",
        )
    return Curve(
        curriculum,
        agent,
        np.array(steps),
        np.array([[ratios[step] for step in steps] for ratios in by_step]),
        np.array([result.best for _, result in runs]),
        np.array([result.seconds for _, result in runs]),
    )
