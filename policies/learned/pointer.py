"""The pointer network without torch: one decision in a fraction of a millisecond.

`policies.learned.networks.PointerNetwork` describes the network; the two give the same scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fate_gym.compiled import compiled, inlined
from fate_gym.env.features import (
    CANDIDATE_BEHIND,
    CANDIDATE_LATER,
    CANDIDATE_WIDTH,
    DEVICE_WIDTH,
    GLOBAL_WIDTH,
    STAGE_WIDTH,
)

Floats = NDArray[np.float32]

FINE = (0.1, 0.01)
"""`CLOSE` are shown again at these parts of their scale: small differences decide."""
CLOSE = (CANDIDATE_LATER, CANDIDATE_BEHIND)
CANDIDATE_INPUTS = CANDIDATE_WIDTH + len(CLOSE) * (len(FINE) + 1)


class Weights(NamedTuple):
    """The network's parameters, H = hidden units, R = rounds; matrices are (in, out)."""

    stage_w: Floats  # (STAGE_WIDTH, H)
    stage_b: Floats  # (H,)
    device_w: Floats  # (DEVICE_WIDTH, H)
    device_b: Floats
    context_w: Floats  # (GLOBAL_WIDTH + 2 H, H)
    context_b: Floats
    candidate_w: Floats  # (CANDIDATE_INPUTS, H)
    candidate_b: Floats
    from_stage: Floats  # (H, H)
    from_device: Floats
    from_context: Floats
    own_w: Floats  # (R, H, H)
    own_b: Floats  # (R, H)
    from_slot: Floats  # (R, H, H)
    from_place: Floats
    from_all: Floats
    score_w: Floats  # (H,)
    score_b: Floats  # (1,)
    wait_w: Floats  # (3 H, H)
    wait_b: Floats  # (H,)
    wait_out: Floats  # (H,)
    wait_out_b: Floats  # (1,)


def read_weights(state: Mapping[str, NDArray[np.floating]]) -> Weights:
    """The weights from the parameters of `PointerNetwork` by name.

    Raises:
        KeyError: a parameter is missing.
    """

    def matrix(name: str) -> Floats:
        return np.ascontiguousarray(state[name].T, np.float32)

    def vector(name: str) -> Floats:
        return np.ascontiguousarray(state[name].reshape(-1), np.float32)

    rounds = sum(name.startswith("own.") and name.endswith(".weight") for name in state)

    def stack(name: str) -> Floats:
        layers = [matrix(f"{name}.{r}.weight") for r in range(rounds)]
        return np.stack(layers) if layers else np.zeros((0, hidden, hidden), np.float32)

    hidden = state["score.weight"].shape[1]
    biases = [vector(f"own.{r}.bias") for r in range(rounds)]
    return Weights(
        matrix("stage_in.weight"),
        vector("stage_in.bias"),
        matrix("device_in.weight"),
        vector("device_in.bias"),
        matrix("context_in.weight"),
        vector("context_in.bias"),
        matrix("candidate_in.weight"),
        vector("candidate_in.bias"),
        matrix("from_stage.weight"),
        matrix("from_device.weight"),
        matrix("from_context.weight"),
        stack("own"),
        np.stack(biases) if biases else np.zeros((0, hidden), np.float32),
        stack("from_slot"),
        stack("from_place"),
        stack("from_all"),
        vector("score.weight"),
        vector("score.bias"),
        matrix("wait_in.weight"),
        vector("wait_in.bias"),
        vector("wait_out.weight"),
        vector("wait_out.bias"),
    )


@inlined
def _rectify(x: Floats) -> None:
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[i, j] = max(x[i, j], np.float32(0.0))


@inlined
def _mean_of_present(rows: Floats, encoded: Floats, out: Floats) -> None:
    """Mean of the encoded rows whose first feature, ``present``, is set."""
    count = 0
    out[:] = 0.0
    for i in range(rows.shape[0]):
        if rows[i, 0] > 0.0:
            count += 1
            for j in range(out.size):
                out[j] += encoded[i, j]
    for j in range(out.size):
        out[j] /= max(1, count)


@compiled
def scores(
    w: Weights,
    stages: Floats,
    devices: Floats,
    candidates: Floats,
    context: Floats,
    mask: NDArray[np.int8],
) -> Floats:
    """Scores of the actions of one observation; -inf where the mask is 0.

    Args:
        w: the weights.
        stages: (S, at least STAGE_WIDTH).
        devices: (D, at least DEVICE_WIDTH).
        candidates: (S P, CANDIDATE_WIDTH).
        context: (GLOBAL_WIDTH,).
        mask: (S P + 1,).

    Returns:
        (S P + 1,)
    """
    hidden = w.score_w.size
    slots, number = stages.shape[0], devices.shape[0]
    actions = candidates.shape[0]
    positions = actions // slots
    # Legal candidates, one after the other.
    found = 0
    legal = np.empty(actions, np.int64)
    for a in range(actions):
        if mask[a]:
            legal[found] = a
            found += 1
    legal = legal[:found]

    stage = np.ascontiguousarray(stages[:, :STAGE_WIDTH]) @ w.stage_w + w.stage_b
    _rectify(stage)
    device = np.ascontiguousarray(devices[:, :DEVICE_WIDTH]) @ w.device_w + w.device_b
    _rectify(device)
    known = np.empty(GLOBAL_WIDTH + 2 * hidden, np.float32)
    known[:GLOBAL_WIDTH] = context[:GLOBAL_WIDTH]
    _mean_of_present(stages, stage, known[GLOBAL_WIDTH : GLOBAL_WIDTH + hidden])
    _mean_of_present(devices, device, known[GLOBAL_WIDTH + hidden :])
    around = np.maximum(known @ w.context_w + w.context_b, np.float32(0.0))

    inputs = np.empty((found, CANDIDATE_INPUTS), np.float32)
    for i in range(found):
        a = legal[i]
        for c in range(CANDIDATE_WIDTH):
            inputs[i, c] = candidates[a, c]
        for n in range(len(CLOSE)):
            later = candidates[a, CLOSE[n]]
            unscaled = later / max(np.float32(1e-6), np.float32(1.0) - abs(later))
            at = CANDIDATE_WIDTH + n * (len(FINE) + 1)
            inputs[i, at] = unscaled / (abs(unscaled) + np.float32(FINE[0]))
            inputs[i, at + 1] = unscaled / (abs(unscaled) + np.float32(FINE[1]))
            inputs[i, at + 2] = later <= 0.0
    z = inputs @ w.candidate_w
    of_stage = stage @ w.from_stage
    of_device = device @ w.from_device
    everywhere = around @ w.from_context + w.candidate_b
    for i in range(found):
        slot, position = legal[i] // positions, legal[i] % positions
        for j in range(hidden):
            x = z[i, j] + of_stage[slot, j] + everywhere[j]
            if position < number:
                x += of_device[position, j]
            z[i, j] = max(x, np.float32(0.0))

    mean = np.empty(hidden, np.float32)
    best_slot = np.empty((slots, hidden), np.float32)
    best_place = np.empty((positions, hidden), np.float32)
    for r in range(w.own_w.shape[0]):
        best_slot[:] = 0.0
        best_place[:] = 0.0
        mean[:] = 0.0
        for i in range(found):
            slot, position = legal[i] // positions, legal[i] % positions
            for j in range(hidden):
                mean[j] += z[i, j]
                best_slot[slot, j] = max(best_slot[slot, j], z[i, j])
                best_place[position, j] = max(best_place[position, j], z[i, j])
        mean /= np.float32(max(1, found))
        of_slot = best_slot @ w.from_slot[r]
        of_place = best_place @ w.from_place[r]
        of_all = mean @ w.from_all[r] + w.own_b[r]
        step = z @ w.own_w[r]
        for i in range(found):
            slot, position = legal[i] // positions, legal[i] % positions
            for j in range(hidden):
                x = z[i, j] + step[i, j] + of_slot[slot, j] + of_place[position, j] + of_all[j]
                z[i, j] = max(x, np.float32(0.0))

    out = np.full(actions + 1, -np.inf, np.float32)
    pooled = np.zeros(3 * hidden, np.float32)
    for i in range(found):
        total = w.score_b[0]
        for j in range(hidden):
            total += z[i, j] * w.score_w[j]
            pooled[j] += z[i, j]
            pooled[hidden + j] = max(pooled[hidden + j], z[i, j])
        out[legal[i]] = total
    pooled[:hidden] /= np.float32(max(1, found))
    pooled[2 * hidden :] = around
    if mask[actions]:
        last = np.maximum(pooled @ w.wait_w + w.wait_b, np.float32(0.0))
        out[actions] = last @ w.wait_out + w.wait_out_b[0]
    return out


__all__ = ["CANDIDATE_INPUTS", "FINE", "Weights", "read_weights", "scores"]
