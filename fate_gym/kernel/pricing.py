"""Cost tables that do not depend on the state, filled once when a problem is compiled."""

from __future__ import annotations

import numpy as np

from fate_gym.jit import FloatMatrix, kernel
from fate_gym.kernel.cost import batch_limit, decode_seconds, prefill_seconds
from fate_gym.kernel.schema import FIXED_STAGE, MODEL_STAGE, ProblemArrays


@kernel
def price(p: ProblemArrays) -> None:
    """Fill ``batch``, ``decode_seconds`` and ``clean_seconds``.

    On entry, ``clean_seconds`` is inf where a stage cannot run, and ``decode_seconds`` holds the
    given seconds of stages without a model.
    """
    for s in range(p.stages.size):
        stage = p.stages[s]
        for d in range(p.devices.size):
            if p.clean_seconds[s, d] == np.inf:
                continue
            if stage.kind == FIXED_STAGE:
                p.clean_seconds[s, d] = p.decode_seconds[s, d]
            else:
                p.batch[s, d] = batch_limit(p, s, d)
                p.decode_seconds[s, d] = decode_seconds(p, s, d, stage.queries)
                prefill = prefill_seconds(p, s, d, stage.queries, 0.0, 0.0)
                p.clean_seconds[s, d] = prefill + p.decode_seconds[s, d]


@kernel
def floor_seconds(p: ProblemArrays, floor: FloatMatrix) -> None:
    """Fill ``floor`` (S, D), all inf, with a stage's seconds if all that can be cached is."""
    for s in range(p.stages.size):
        stage = p.stages[s]
        cacheable = 0.0
        for e in range(stage.parents_from, stage.parents_to):
            # What a parent that vanishes would have passed on needs no prefill either.
            if p.edges[e].same_model or p.stages[p.edges[e].parent].chooser >= 0:
                cacheable += p.edges[e].inherited_tokens
        for d in range(p.devices.size):
            if p.clean_seconds[s, d] == np.inf:
                continue
            floor[s, d] = p.decode_seconds[s, d]
            if stage.kind == MODEL_STAGE:
                # One full wave is the cheapest way to decode a query: all N at once may need a
                # second, nearly empty wave.
                wave = min(stage.queries, p.batch[s, d])
                if p.max_shards > 1:
                    floor[s, d] = stage.queries / wave * decode_seconds(p, s, d, wave)
                if p.batching:
                    # A batching device gets the first token from the prompt.
                    floor[s, d] *= max(0, stage.output_tokens - 1) / max(1, stage.output_tokens)
                floor[s, d] += prefill_seconds(
                    p, s, d, stage.queries, float(stage.prefix_tokens), cacheable
                )


@kernel
def prefix_savings(p: ProblemArrays, saved: FloatMatrix) -> None:
    """Fill ``saved`` (S, D), all zero, with the seconds that a cached prefix saves."""
    for s in range(p.stages.size):
        stage = p.stages[s]
        if stage.prefix_tokens == 0:
            continue
        for d in range(p.devices.size):
            if p.clean_seconds[s, d] < np.inf:
                cold = p.clean_seconds[s, d] - p.decode_seconds[s, d]
                prefix = float(stage.prefix_tokens)
                warm = prefill_seconds(p, s, d, stage.queries, prefix, 0.0)
                saved[s, d] = max(0.0, cold - warm)  # not below 0 by rounding
