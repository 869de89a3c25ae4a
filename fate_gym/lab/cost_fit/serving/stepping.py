"""The reference engine: steps through every iteration, and every query of it."""

from __future__ import annotations

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


def serve_stepping(
    cost: IterationCost, engine: Engine, requests: Sequence[Request], clients: int
) -> Run:
    """Serve requests in a closed loop, iteration by iteration."""
    loop = ClosedLoop(engine, requests, clients)
    prompts: list[Query] = []
    decoding: list[tuple[Query, int]] = []  # and the output tokens that it has
    while not loop.over:
        prompts += loop.admit()
        plan = chunks(prompts, engine, len(decoding))
        steps = [] if plan and engine.prefill == "first" else decoding
        loop.now += _seconds(cost, plan, steps)
        loop.run.iterations += 1
        loop.run.rounds += 1
        after = [(query, tokens + 1) for query, tokens in decoding] if steps else list(decoding)
        for query, tokens in plan:
            query.prefilled += tokens
            if not query.missing:
                query.first_token = loop.now
                after.append((query, 1))
        prompts = [query for query in prompts if query.missing]
        decoding = [(query, tokens) for query, tokens in after if tokens < query.request.output]
        ended = [query for query, tokens in after if tokens == query.request.output]
        for query in sorted(ended, key=lambda query: query.order):
            loop.finish(query)
    return loop.run


def _seconds(
    cost: IterationCost, plan: Sequence[Chunk], steps: Sequence[tuple[Query, int]]
) -> float:
    tokens = len(steps) + sum(tokens for _, tokens in plan)
    logits = len(steps) + sum(tokens == query.missing for query, tokens in plan)
    context = sum(query.request.prompt + tokens for query, tokens in steps)
    return cost.seconds(tokens, logits, pairs(plan), context)
