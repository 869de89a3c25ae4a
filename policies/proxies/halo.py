"""A proxy of Halo: matches ready stages to idle devices by searching epochs of the known graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from policies.base import Assignment, DecisionView
from policies.bounds import Share, Some, Window
from policies.proxies.halo_search import new_search, search


class Halo:
    """Beam search over matchings of stages to devices, by the cost of loading and running.

    Source: Shen et al., "Halo: Batch Query Processing and Optimization for Agentic Workflows"
    (arXiv 2509.02121).

    Taken: a worker's context is the model it holds and the prefix it has computed; the time of a
    worker in an epoch is T_w = load + inference after prefix hits; each epoch of a plan over the
    graph of the admitted workflows costs mu max T_w + (1 - mu) sum T_w; beam search keeps the
    4 best partial plans; if workers are left over, the heavy stages (at least 0.6 of the
    heaviest) are split evenly over them.

    Inferred: mu; the search looks ``epochs`` epochs and ``window`` stages ahead, and its first
    epoch fills the devices that are open now; stages not placed count as if run on their best
    device; a stage is split only if the model predicts an earlier end. A batching device is open
    as long as nothing waits there, and each epoch joins its batch; a stage of another model than
    the one it serves keeps it closed for that instant, so that it drains.

    Sees neither links between devices, arrivals, nor more than the last model on each device.

    Args:
        name: the policy's name in results.
        beam: number of partial plans kept.
        mu: weight of the slowest worker against the sum.
        epochs: number of epochs searched.
        window: most stages considered.
        split: demand, as a share of the largest, from which a stage may be split.
        boosted: also take account of all resident models and of input transfers.
    """

    def __init__(
        self,
        *,
        name: str = "halo",
        beam: Some = 4,
        mu: Share = 0.5,
        epochs: Some = 3,
        window: Window = 128,
        split: Share = 0.6,
        boosted: bool = False,
    ) -> None:
        self.name = name
        self._beam, self._mu, self._epochs, self._window = beam, mu, epochs, window
        self._split, self._boosted = split, boosted

    def reset(self, view: DecisionView, seed: int) -> None:
        """Allocate the search."""
        self._search, self._plans = new_search(view.compiled.arrays, self._beam, self._window)
        self._search.mu, self._search.epochs = self._mu, self._epochs
        self._search.boosted = int(self._boosted)

    def decide(self, view: DecisionView) -> Sequence[Assignment]:
        """Match stages to the devices that are open."""
        if not view.any_open:
            return []
        spare = view.open_devices()
        stages, devices, seconds = self.match(view, spare)
        placements = {
            int(stage): [int(device)] for stage, device in zip(stages, devices, strict=True)
        }
        spare[devices] = False
        demand = dict(zip(placements, seconds.tolist(), strict=True))
        self._share(view, placements, demand, np.flatnonzero(spare))
        return [
            Assignment(stage, tuple(used), even(view.request(stage).queries, len(used)))
            for stage, used in placements.items()
            if view.starts_now(stage)[used[0]]
        ]

    def match(
        self, view: DecisionView, workers: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Return the first epoch of the best plan: (n,) stages, their devices and their seconds.

        ``workers`` (D,) marks the devices of that epoch; later epochs use all devices.
        """
        p, room = view.compiled.arrays, self._search
        arrived = np.asarray(view.arrived, np.int64)
        plan = self._plans[search(p, view.state, arrived, np.flatnonzero(workers), room)]
        first = np.flatnonzero(plan.place[: room.count] >= 0)
        return room.stages[first], plan.place[first], plan.took[first]

    def _share(
        self,
        view: DecisionView,
        placements: dict[int, list[int]],
        demand: dict[int, float],
        spare: NDArray[np.int64],
    ) -> None:
        """Split the heavy stages over the remaining devices where they then end earlier."""
        if not placements or not spare.size or len(view.ready) > len(placements):
            return
        heaviest = max(demand.values())
        left = spare.tolist()
        for stage in sorted(placements, key=lambda stage: -demand[stage]):
            if demand[stage] < self._split * heaviest:
                break
            queries = view.request(stage).queries
            clean = view.clean_seconds(stage)
            load = np.where(view.resident(stage), 0.0, view.load_seconds(stage))
            used = placements[stage]
            starts = view.starts_now(stage)
            for device in [d for d in left if starts[d]]:
                if len(used) >= min(view.compiled.arrays.max_shards, queries):
                    break
                wider = [*used, device]
                # The search's estimate covers the first device; the others load and run a share.
                ends = [demand[stage] / len(wider)]
                ends += [load[d] + clean[d] / len(wider) for d in wider[1:]]
                now = [demand[stage] / len(used)]
                now += [load[d] + clean[d] / len(used) for d in used[1:]]
                if max(ends) < max(now):
                    used.append(device)
                    left.remove(device)


def even(queries: int, shards: int) -> tuple[int, ...] | None:
    """Split queries evenly over ``shards`` shards; None for a single shard."""
    if shards == 1:
        return None
    return tuple(queries // shards + (i < queries % shards) for i in range(shards))
