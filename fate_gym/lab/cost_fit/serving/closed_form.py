"""The same engine without stepping: from one change of the batch to the next in closed form.

As long as the same queries decode and the same prompt fills the rest of the budget, every iteration
takes a constant longer than the one before: contexts grow by a token each, and so does what a chunk
attends to by the chunk. The time after k iterations is a quadratic in k.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence

from fate_gym.lab.cost_fit.serving.costs import IterationCost
from fate_gym.lab.cost_fit.serving.queries import (
    Chunk,
    ClosedLoop,
    Engine,
    Query,
    Request,
    Run,
    chunks,
    pairs,
)


def serve(cost: IterationCost, engine: Engine, requests: Sequence[Request], clients: int) -> Run:
    """Serve requests in a closed loop, from change to change of the batch."""
    loop = ClosedLoop(engine, requests, clients)
    batch = _Batch(cost, engine)
    while not loop.over:
        batch.prompts.extend(loop.admit())
        plan = chunks(batch.prompts, engine, len(batch.ends))
        decoding = 0 if plan and engine.prefill == "first" else len(batch.ends)
        seconds, growth = batch.progression(plan, decoding)
        most = batch.same_for(plan, decoding)
        arrival = loop.next_arrival()
        if arrival is not None:
            most = min(most, _until(arrival, loop.now, seconds, growth))
        loop.now += _elapsed(most, seconds, growth)
        loop.run.iterations += most
        loop.run.rounds += 1
        for query in batch.advance(plan, decoding, most, loop.now):
            loop.finish(query)
    return loop.run


class _Batch:
    """Queries that were admitted. ``steps`` counts the iterations in which queries decoded."""

    def __init__(self, cost: IterationCost, engine: Engine) -> None:
        self.cost = cost
        self.engine = engine
        self.prompts: deque[Query] = deque()
        self.ends: list[tuple[int, int, Query]] = []  # heap: steps at the end, order, query
        self.steps = 0
        self.context = 0  # tokens that the decoding queries attend to in the next step

    def progression(self, plan: Sequence[Chunk], decoding: int) -> tuple[float, float]:
        """Seconds of the next iteration, and how much longer each one after it takes."""
        tokens = decoding + sum(tokens for _, tokens in plan)
        logits = decoding + sum(tokens == query.missing for query, tokens in plan)
        context = self.context if decoding else 0
        growth = decoding * self.cost.context_token_s
        growth += self.cost.pair_s * sum(tokens * tokens for _, tokens in plan)
        return self.cost.seconds(tokens, logits, pairs(plan), context), growth

    def same_for(self, plan: Sequence[Chunk], decoding: int) -> int:
        """Iterations until a query ends or the chunks are others, if nobody comes."""
        most = self.ends[0][0] - self.steps if decoding else 0
        if not plan:
            return most
        query, tokens = plan[0]
        alike = 1 if len(plan) > 1 else max(1, (query.missing - 1) // tokens)
        return min(alike, most) if decoding else alike

    def advance(
        self, plan: Sequence[Chunk], decoding: int, iterations: int, now: float
    ) -> list[Query]:
        """Run iterations of one kind; returns the queries that have ended with the last one."""
        ended = []
        if decoding:
            self.steps += iterations
            self.context += iterations * decoding
            while self.ends and self.ends[0][0] == self.steps:
                ended.append(heapq.heappop(self.ends)[2])
        self.context -= sum(query.request.kv_tokens for query in ended)
        for query, tokens in plan:
            query.prefilled += iterations * tokens
            if query.missing:
                continue
            query.first_token = now
            self.prompts.popleft()
            if query.request.output == 1:
                ended.append(query)
            else:
                last = self.steps + query.request.output - 1
                heapq.heappush(self.ends, (last, query.order, query))
                self.context += query.request.prompt + 1
        return sorted(ended, key=lambda query: query.order)


def _elapsed(iterations: int, seconds: float, growth: float) -> float:
    return iterations * (seconds + growth * (iterations - 1) / 2)


def _until(arrival: float, now: float, seconds: float, growth: float) -> int:
    """The first iteration that does not end before the arrival: the root of a quadratic."""
    linear, wait = seconds - growth / 2, arrival - now
    root = 2 * wait / (linear + math.sqrt(linear * linear + 2 * growth * wait))
    count = max(1, math.ceil(root))
    while count > 1 and now + _elapsed(count - 1, seconds, growth) >= arrival:
        count -= 1
    while now + _elapsed(count, seconds, growth) < arrival:
        count += 1
    return count
