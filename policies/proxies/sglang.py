"""A proxy of SGLang's cache-aware router, with an approximate prompt history per worker."""

from __future__ import annotations

from policies.base import DecisionView, OneAtATime
from policies.bounds import CountOrNone, Share, Weight
from policies.proxies.base import least


class Sglang(OneAtATime):
    """Chooses the worker whose history matches the prompt best, unless loads are out of balance.

    Source: the cache-aware policy of sgl-router (github.com/sgl-project/sglang, sgl-router).

    Taken: out of balance means max - min > ``balance_abs`` and max > ``balance_rel`` x min of the
    requests under way; then the shortest queue. In balance: the worker with the best match in the
    router's own tree, if the match is more than ``cache_threshold`` of the prompt, else the worker
    with the smallest tree. Thresholds 1.5 and 0.3 are the router's.

    On batching devices a request is a query, running or waiting, and out of balance means a
    difference of more than 64 (``balance_requests``), as in the router.

    Inferred: on an exclusive device a request is a stage, so ``balance_abs`` counts stages; the
    tree of a worker is the longest prefix of each key that was sent to it, and its size the tokens
    sent. Left out: eviction from the tree, as runs are short.

    Sees neither real caches nor costs: the router treats slow and fast workers alike, and ignores
    which model a worker has loaded (its workers have one each).

    Args:
        cache_threshold: share of the prompt that must match.
        balance_abs: difference of loads, in stages, on exclusive devices.
        balance_rel: ratio of loads.
        balance_requests: difference of loads, in queries, on batching devices.
    """

    name = "sglang"

    def __init__(
        self,
        *,
        cache_threshold: Share = 0.3,
        balance_abs: CountOrNone = 4,
        balance_rel: Weight = 1.5,
        balance_requests: CountOrNone = 64,
    ) -> None:
        self._threshold, self._abs, self._rel = cache_threshold, balance_abs, balance_rel
        self._requests = balance_requests

    def reset(self, view: DecisionView, seed: int) -> None:
        """Empty the histories."""
        self._tree: list[dict[int, int]] = [{} for _ in range(view.devices)]
        self._size = [0] * view.devices

    def choose(self, view: DecisionView, stage: int) -> int:
        request = view.request(stage)
        device = self._worker(view, stage)
        tree, path = self._tree[device], view.prefix_path(stage, prompt=True)
        length = path[0][1] if path else 0
        own = request.prefix_tokens + request.own_tokens - length
        self._size[device] += length - _match(tree, path) + request.queries * own
        for key, tokens in path:
            tree[key] = max(tokens, tree.get(key, 0))
        return device

    def _worker(self, view: DecisionView, stage: int) -> int:
        request = view.request(stage)
        eligible = view.eligible(stage)
        load = view.outstanding_queries() if view.batching else view.outstanding()
        apart = self._requests if view.batching else self._abs
        most, fewest = load[eligible].max(), load[eligible].min()
        if most - fewest > apart and most > self._rel * fewest:
            return least(load, eligible)
        prompt = request.prefix_tokens + request.own_tokens
        path = view.prefix_path(stage)
        matched = [_match(tree, path) for tree in self._tree]
        best = max(matched[device] for device in eligible)
        if best > self._threshold * prompt:
            return least([-tokens for tokens in matched], eligible)
        return least(self._size, eligible)


def _match(tree: dict[int, int], path: list[tuple[int, int]]) -> int:
    """Return the length of the longest prefix of a path that is in a tree, tokens."""
    matched = 0
    for key, tokens in reversed(path):
        known = tree.get(key, 0)
        matched = max(matched, min(known, tokens))
        if known < tokens:
            break
    return matched
