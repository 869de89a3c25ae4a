"""A proxy of Mooncake's Conductor: least time to first token; prefixes are moved if that pays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from policies.base import Assignment, DecisionView
from policies.bounds import Weight
from policies.proxies.base import least


class Mooncake:
    """First come, first served; the device with the least transfer + queue + load + prefill.

    Source: Qin et al., "Mooncake: A KVCache-centric Disaggregated Architecture for LLM Serving"
    (FAST 2025), algorithm 1.

    Taken: for each instance, if the best cached prefix anywhere is more than ``threshold`` times
    the instance's own, the instance is priced as if it fetched the best one first (its transfer +
    queue + prefill of the rest), else with its own (queue + prefill); the least time to first
    token wins, and the prefix is fetched if that is how the winner was priced.

    The queue is the algorithm's prefill queue: on an exclusive device everything in front, on a
    batching one the wait for admission and the prompts that came before, while others decode.

    Inferred: ``threshold``; on batching devices a prefix that is still being computed is not
    fetched, since it could not be sent; loading the model and fetching the parents' outputs are
    added (Mooncake, with one model on every instance, needs neither). Left out: separate decode
    instances, and rejecting requests.

    Does not see the graph ahead.

    Args:
        name: the policy's name in results.
        threshold: ratio of best to own prefix above which a fetch is considered.
        boosted: compare EFT* (decode and contexts included), with and without a fetched prefix.
    """

    def __init__(
        self, *, name: str = "mooncake", threshold: Weight = 1.2, boosted: bool = False
    ) -> None:
        self.name = name
        self._threshold, self._boosted = threshold, boosted

    def reset(self, view: DecisionView, seed: int) -> None:
        """Do nothing: no state is kept from one run to the next."""

    def decide(self, view: DecisionView) -> Sequence[Assignment]:
        """Place the stage that has been ready longest."""
        stage = view.ready[0]
        eligible = view.eligible(stage)
        own = view.cached_prefix_tokens(stage)
        there = self.fetchable(view, stage, own)
        holder = least(-there, eligible)
        best = int(there[holder])
        fetch = (own < best) & (best > self._threshold * own)
        if self._boosted:
            ends = view.end_estimates(stage)
            fetched = ends.copy()
            for device in eligible[fetch[eligible]]:
                fetched[device] = view.estimate(stage, int(device), migrate_from=holder).end
            fetch = fetched < ends
            seconds = np.minimum(ends, fetched)
        else:
            seconds = self.first_token(view, stage, own, holder, best, fetch)
        device = least(seconds, eligible)
        return [Assignment(stage, (device,), None, holder if fetch[device] else None)]

    def fetchable(self, view: DecisionView, stage: int, own: np.ndarray) -> np.ndarray:
        """Return the prefix tokens (D,) that each device could send, of ``own`` (D,) cached."""
        if not view.batching:
            return own
        return np.where(view.prefix_loading(stage), 0, own)

    def first_token(
        self,
        view: DecisionView,
        stage: int,
        own: np.ndarray,
        holder: int,
        best: int,
        fetch: np.ndarray,
    ) -> np.ndarray:
        """Estimate when prefill would end on each device (D,), seconds.

        ``fetch`` (D,) marks devices that fetch ``best`` tokens of the prefix from ``holder``.
        """
        load = np.where(view.resident(stage), 0.0, view.load_seconds(stage))
        prefill = view.prefill_seconds(stage, np.where(fetch, best, own))
        moved = np.where(fetch, view.prefix_transfer_seconds(stage, holder, best - own), 0.0)
        inputs = np.maximum(load, view.transfer_seconds(stage))
        turn = view.prompt_estimates(stage)
        if view.prefix_loading(stage)[holder]:
            turn = np.where(fetch, np.maximum(turn, turn[holder]), turn)
        return turn + np.maximum(inputs, moved) + prefill
