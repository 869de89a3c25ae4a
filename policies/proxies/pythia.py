"""A proxy of Pythia: stages near the end first, and those that keep an idle model busy."""

from __future__ import annotations

from collections.abc import Sequence

from policies.base import Assignment, Decision, DecisionView
from policies.bounds import Weight
from policies.proxies.base import Ordered, least
from policies.proxies.dag import HopsLeft


class Pythia(Ordered):
    """Stages nearest to the end first, with a bonus; to the open device with most room for KV.

    Source: "Pythia" (arXiv 2604.25899).

    Taken: priority 1 / (remaining distance) plus a bonus for a stage that releases work for a
    model that will soon be idle; the instance with most KV headroom, ties by what it has cached.

    Inferred: the distance is the number of stages on the longest remaining chain; a model will
    soon be idle if no ready stage needs it; headroom is the memory left once the model is loaded
    (on batching devices unused cached KV and weights count as free, as engines report it); an
    instance with a free slot is a device on which the stage starts now. A stage that starts
    nowhere waits for the open device with most room, and no later stage joins there.

    Does not see costs.

    Args:
        name: the policy's name in results.
        bonus: added for each model that the stage's children would keep busy.
        boosted: keep the order, but choose the device by EFT*.
    """

    def __init__(self, *, name: str = "pythia", bonus: Weight = 0.5, boosted: bool = False) -> None:
        super().__init__(name=name)
        self._bonus, self._boosted = bonus, boosted

    def reset(self, view: DecisionView, seed: int) -> None:
        """Forget the distances."""
        super().reset(view, seed)
        self._hops = HopsLeft(view)

    def order(self, view: DecisionView) -> Sequence[int]:
        """Return the ready stages by decreasing priority; ties by time ready."""
        self._hops.update(view)
        ready = view.ready
        busy = {view.request(stage).model for stage in ready}
        priority = {stage: self.priority(view, stage, busy) for stage in ready}
        return sorted(ready, key=lambda stage: -priority[stage])

    def priority(self, view: DecisionView, stage: int, busy: set[int]) -> float:
        """Compute a stage's priority; ``busy`` are the models that ready stages need."""
        p = view.compiled.arrays
        s = p.stages[stage]
        children = p.edges["child"][p.out_edges[s["children_from"] : s["children_to"]]]
        wanted = {int(model) for model in p.stages["model"][children]} - busy - {-1}
        return float(1.0 / self._hops.counts[stage] + self._bonus * len(wanted))

    def decide(self, view: DecisionView) -> Sequence[Decision]:
        """Assign open devices to the stages in order."""
        if self._boosted:
            return super().decide(view)
        if not view.any_open:
            return []
        is_open = view.open_devices()
        assignments = []
        for stage in self.order(view):
            able = view.eligible(stage)
            able = able[is_open[able]]
            if able.size == 0:
                continue
            starts = able[view.starts_now(stage)[able]]
            headroom = view.headroom_bytes(stage)
            hosts = starts if starts.size else able
            device = least(-headroom, hosts, -view.cached_prefix_tokens(stage))
            # A batching device may have more slots: `decide` is then called again at this instant.
            is_open[device] = False
            if starts.size:
                assignments.append(Assignment(stage, (device,)))
        return assignments
