"""A proxy of Parrot: longest chains first; requests that share a prefix go together."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from policies.base import Assignment, Decision, DecisionView
from policies.bounds import Count, Tokens
from policies.proxies.base import Ordered, least
from policies.proxies.dag import HopsLeft


class Parrot(Ordered):
    """Sends groups of requests to one engine, up to its capacity.

    Source: Lin et al., "Parrot: Efficient Serving of LLM-based Applications with Semantic Variable"
    (OSDI 2024), section 5.4.

    Taken: requests in the order of the graph; those that share a prefix with others in the queue,
    or belong to one task group, go to one engine; else to an engine that holds the prefix; else
    to the one with the least load. An engine takes requests up to 256 tasks and 2048 tokens, the
    bounds of a request about which nothing else is known.

    On batching devices the tasks are the queries that run or wait, in whatever order they end, and
    an engine takes as many tokens as its KV holds: a stage goes where it starts now. That is what
    Parrot does for throughput-oriented requests, and task groups are such requests.

    Inferred: the order is by the longest remaining chain of stages; the queries of a stage already
    are the tasks of a group, so a group is the ready stages with one prefix, or else the siblings
    released by one parent; an idle engine takes any stage; the load is the queries under way.
    Stages that find no engine wait for the next event.

    Does not see costs.

    Args:
        name: the policy's name in results.
        most_tasks: most queries that an engine takes.
        most_tokens: most prompt tokens that an engine takes, on exclusive devices.
        boosted: keep the order, but choose the device by EFT*, without groups.
    """

    def __init__(
        self,
        *,
        name: str = "parrot",
        most_tasks: Count = 256,
        most_tokens: Tokens = 2048,
        boosted: bool = False,
    ) -> None:
        super().__init__(name=name)
        self._tasks, self._tokens, self._boosted = most_tasks, most_tokens, boosted

    def reset(self, view: DecisionView, seed: int) -> None:
        """Empty the engines."""
        super().reset(view, seed)
        self._hops = HopsLeft(view)
        # (queries, tokens) of each stage sent to an engine that may still be there.
        self._sent: list[deque[tuple[int, int]]] = [deque() for _ in range(view.devices)]
        self._together: dict[object, int] = {}
        self._instant = -1

    def order(self, view: DecisionView) -> Sequence[int]:
        """Return the ready stages, longest remaining chain first; ties by time ready."""
        self._hops.update(view)
        return sorted(view.ready, key=lambda stage: -int(self._hops.counts[stage]))

    def decide(self, view: DecisionView) -> Sequence[Decision]:
        """Fill the engines in order."""
        if self._boosted:
            return super().decide(view)
        order = self.order(view)
        used = self._used(view)
        sizes = {stage: self.size(view, stage) for stage in order}
        if not view.batching or self._instant != view.instant:
            self._together = {}
            self._instant = view.instant
        assignments = []
        for stage in order:
            room = self._room(view, stage, used, sizes[stage])
            if not room.size:
                continue
            group = self.group(view, stage)
            device = self._together.get(group, -1)
            if device not in room:
                device = self._engine(view, stage, room, used)
            self._together[group] = device
            assignments.append(Assignment(stage, (device,)))
            if view.batching:
                break  # where the next stage starts depends on this one; `decide` is called again
            used[device] += sizes[stage]
            self._sent[device].append(sizes[stage])
        return assignments

    def group(self, view: DecisionView, stage: int) -> object:
        """Key that the stages of a group have in common."""
        request = view.request(stage)
        if request.prefix >= 0 and request.prefix_tokens > 0:
            return "prefix", request.prefix
        parents = view.parents(stage)
        return ("task", request.model, parents[0]) if parents else ("alone", stage)

    def size(self, view: DecisionView, stage: int) -> tuple[int, int]:
        """Return (queries, prompt tokens) of a stage."""
        request = view.request(stage)
        return request.queries, request.prefix_tokens + request.queries * request.own_tokens

    def _used(self, view: DecisionView) -> np.ndarray:
        """Queries and tokens (D, 2) under way on each device.

        Exclusive devices serve in order, so the stages under way are those sent last. On batching
        devices tokens do not matter and are 0.
        """
        used = np.zeros((view.devices, 2))
        if view.batching:
            used[:, 0] = view.outstanding_queries()
            return used
        for device, count in enumerate(view.outstanding().tolist()):
            sent = self._sent[device]
            while len(sent) > count:
                sent.popleft()
            if sent:
                used[device] = np.sum(sent, axis=0)
        return used

    def _room(
        self, view: DecisionView, stage: int, used: np.ndarray, size: tuple[int, int]
    ) -> np.ndarray:
        """Return the engines (n,) that take a stage of this size."""
        able = view.eligible(stage)
        if view.batching:
            able = able[view.starts_now(stage)[able]]
            size = size[0], 0
        return able[self._fits(used[able], size)]

    def _fits(self, used: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Whether (n,) engines with ``used`` (n, 2) queries and tokens can take ``size`` more."""
        most = np.array([self._tasks, self._tokens])
        return (used[:, 0] == 0) | (used + np.array(size) <= most).all(axis=1)

    def _engine(self, view: DecisionView, stage: int, room: np.ndarray, used: np.ndarray) -> int:
        cached = view.cached_prefix_tokens(stage)
        return least(-(cached > 0).astype(int), room, used[:, 0], ~view.resident(stage))
