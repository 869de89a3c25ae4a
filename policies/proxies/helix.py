"""A proxy of Helix: flows from a linear program, dispatched by interleaved weighted round robin."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policies.base import DecisionView, OneAtATime
from policies.bounds import Share
from policies.proxies.base import profile


class Helix(OneAtATime):
    """Each model's work is spread over devices in proportion to the flow of an optimal placement.

    Source: Mei et al., "Helix: Serving Large Language Models over Heterogeneous GPUs and Network
    via Max-Flow" (arXiv 2406.01566).

    Taken: the placement that lets most work flow through the cluster, found by a linear program;
    flows of less than 5 % are masked; requests are dealt by interleaved weighted round robin: the
    device with the least (load given so far + work) / flow.

    A device's speed is its throughput: on batching devices that of the largest batches that fit in
    memory, as in Helix's profiles, on exclusive ones the stage's own time.

    Inferred: a device holds whole models and shares its time between them, so the program
    maximises the common multiple of all models' demands that the devices can carry; demands and
    speeds are those of the stages seen so far, and the program is solved again when a model is
    seen for the first time (the published one is solved once, for one model, before serving). Left
    out: the filter of devices whose expected KV is above a high-water mark (ends of stages are not
    seen here, and engines queue what does not fit), and that of prompts that are too long for a
    device, which cannot host them anyway.

    Sees neither prefixes, the devices of parents, the graph nor live queues.

    Args:
        mask: smallest flow that counts, as a share of the model's largest.
    """

    name = "helix"

    def __init__(self, *, mask: Share = 0.05) -> None:
        self._mask = mask

    def reset(self, view: DecisionView, seed: int) -> None:
        """Forget the models."""
        self._work: dict[int, float] = {}
        self._speed: dict[int, NDArray[np.float64]] = {}
        self._given: dict[int, NDArray[np.float64]] = {}
        self._flow: dict[int, NDArray[np.float64]] = {}
        self._counted: set[int] = set()

    def choose(self, view: DecisionView, stage: int) -> int:
        new = False
        # Demand covers all ready stages; each stage counts once.
        for other in view.ready:
            if other not in self._counted:
                self._counted.add(other)
                new |= self._count(view, other)
        if new:
            models = list(self._work)
            flows = max_flow(
                np.array([self._work[model] for model in models]),
                np.array([self._speed[model] for model in models]),
            )
            for model, flow in zip(models, flows, strict=True):
                self._flow[model] = np.where(flow < self._mask * flow.max(), 0.0, flow)
        return self._deal(view, stage)

    def _count(self, view: DecisionView, stage: int) -> bool:
        """Add a stage's work and its model's speeds; return whether the model is new."""
        clean = np.maximum(profile(view, stage), 1e-9)
        finite = clean[clean < np.inf]
        work = float(finite.sum()) / finite.size
        model = view.request(stage).model
        speed = work / clean  # 0 where it cannot run
        new = model not in self._work
        self._work[model] = self._work.get(model, 0.0) + work
        # A device belongs to the model if it can run any of its stages.
        self._speed[model] = np.maximum(self._speed.get(model, 0.0), speed)
        if new:
            self._given[model] = np.zeros(clean.size)
        return new

    def _deal(self, view: DecisionView, stage: int) -> int:
        """Choose the device by interleaved weighted round robin over the model's flows."""
        model = view.request(stage).model
        eligible = view.eligible(stage)
        flow = self._flow[model]
        carriers = eligible[flow[eligible] > 0.0]
        if carriers.size == 0:
            carriers, flow = eligible, np.maximum(self._speed[model], 1e-9)
        work = float(profile(view, stage)[eligible].mean())
        loads = (self._given[model][carriers] + work) / flow[carriers]
        device = int(carriers[loads.argmin()])
        self._given[model][device] += work
        return device


def max_flow(demand: NDArray[np.float64], speed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the flow (M, D) of each model through each device, work per second.

    Maximises the common multiple of all demands that can flow if no device is over-utilised.

    Args:
        demand: (M,) work of each model.
        speed: (M, D) work per second; 0 where the device cannot run the model.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    models, devices = speed.shape
    share = models * devices  # variables: share of device d's time for model m; then the multiple
    demand = np.maximum(demand, 1e-9) / max(demand.sum(), 1e-9)
    scale = max(float(speed.max()), 1e-9)
    objective = np.zeros(share + 1)
    objective[-1] = -1.0
    carries = np.zeros((models + devices, share + 1))
    for m in range(models):
        carries[m, m * devices : (m + 1) * devices] = -speed[m] / scale
        carries[m, -1] = demand[m]
    for d in range(devices):
        carries[models + d, d:share:devices] = 1.0
    limits = np.r_[np.zeros(models), np.ones(devices)]
    most = np.r_[(speed.ravel() > 0.0).astype(float), np.inf]
    # Without integer variables `milp` solves what `linprog` does, with less overhead.
    result = milp(
        objective, constraints=LinearConstraint(carries, -np.inf, limits), bounds=Bounds(0.0, most)
    )
    shares: NDArray[np.float64] = result.x[:share].reshape(models, devices)
    return shares * speed
