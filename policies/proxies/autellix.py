"""A proxy of Autellix: programs that have received the least service go first."""

from __future__ import annotations

import math
from typing import Any

from policies.base import DecisionView
from policies.bounds import Period, Some, Tokens
from policies.proxies.base import Routed, least


class Autellix(Routed):
    """Multi-level queues by the service that a stage's workflow has attained.

    Source: Luo et al., "Autellix: An Efficient Serving Engine for LLM Agents as General Programs"
    (arXiv 2502.13965).

    Taken: the attained service of a call, the largest over its parents of their attained service
    plus what they took (the form for programs with parallel threads); levels served in order, first
    come first served within a level; calls of at most 2048 tokens go to the engine with fewest
    outstanding calls, longer ones to the engine that the program's state is on.

    A call is a query on batching devices, where running and waiting ones count; on exclusive
    devices it is a stage.

    Inferred: levels are geometric (``quantum`` seconds, each level twice the one before); the
    program's state is what its stages of one model leave, so the pin is by (workflow, model);
    among engines with equally many outstanding calls, those that hold the model come first. Left
    out: preemption and the promotion of starved calls, since started stages run to completion.

    Sees neither the graph ahead, estimates, prefix tables nor transfers.

    Args:
        name: the policy's name in results.
        short_tokens: the longest prompt that counts as short.
        quantum: seconds of attained service at which the first level ends.
        levels: number of levels.
        boosted: keep the order, but choose the device by EFT*.
    """

    def __init__(
        self,
        *,
        name: str = "autellix",
        short_tokens: Tokens = 2048,
        quantum: Period = 8.0,
        levels: Some = 8,
        boosted: bool = False,
    ) -> None:
        super().__init__(name=name, boosted=boosted)
        self._short, self._quantum, self._levels = short_tokens, quantum, levels

    def reset(self, view: DecisionView, seed: int) -> None:
        """Forget the workflows."""
        super().reset(view, seed)
        self._attained: dict[int, float] = {}
        self._pins: dict[tuple[int, int], int] = {}

    def attained(self, view: DecisionView, stage: int) -> float:
        """Seconds of service on the longest chain of stages before this one."""
        if stage not in self._attained:
            self._attained[stage] = max(
                (
                    self.attained(view, parent) + view.service_seconds(parent)
                    for parent in view.parents(stage)
                ),
                default=0.0,
            )
        return self._attained[stage]

    def level(self, view: DecisionView, stage: int) -> int:
        """Level of a stage: 0 up to one quantum of service, 1 up to two, 2 up to four, etc."""
        service = self.attained(view, stage)
        if service < self._quantum:
            return 0
        return min(self._levels - 1, 1 + int(math.log2(service / self._quantum)))

    def key(self, view: DecisionView, stage: int) -> Any:
        return self.level(view, stage), self._turn[stage]

    def route(self, view: DecisionView, stage: int) -> int:
        request = view.request(stage)
        eligible = view.eligible(stage)
        fewest = least(self.load(), eligible, ~view.resident(stage))
        if request.prefix_tokens + request.own_tokens <= self._short:
            return fewest
        pin = self._pins.setdefault((request.workflow, request.model), fewest)
        return pin if pin in eligible else fewest
