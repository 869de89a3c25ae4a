"""The pointer network without torch: one decision in a fraction of a millisecond.

`policies.learned.networks.PointerNetwork` describes the network; the two give the same scores.
Shapes: H hidden units, R rounds; S slots, D devices, A = S P candidates of an observation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from fate_gym.env.features import (
    CANDIDATE,
    CANDIDATE_WIDTH,
    DEVICE_WIDTH,
    GLOBAL_WIDTH,
    STAGE_WIDTH,
)
from fate_gym.jit import Block, inlined, kernel, table

Vector = Annotated[NDArray[np.float32], 1]
Matrix = Annotated[NDArray[np.float32], 2]
Mask = Annotated[NDArray[np.bool_], 1]

FINE = (0.1, 0.01)
"""Finer scales (fractions) at which `CLOSE` are repeated, as small differences decide."""
CLOSE = (CANDIDATE.later, CANDIDATE.behind)
CANDIDATE_INPUTS = CANDIDATE_WIDTH + len(CLOSE) * (len(FINE) + 1)


class Weights(Block):
    """The network's parameters. Matrices are (in, out); those of the rounds are stacked.

    Features whose weights are all 0 are left out, so that an older checkpoint, extended by zeros
    for new features, still gives bit for bit the same scores.
    """

    stages: Any = table("i8", "STAGES", text="columns that are read")
    devices: Any = table("i8", "DEVICES", text="columns that are read")
    globals: Any = table("i8", "GLOBALS", text="columns that are read")
    candidates: Any = table("i8", "CANDIDATES", text="columns that are read")
    stage_w: Any = table("f4", "STAGES", "H", text="stage_in.weight")
    stage_b: Any = table("f4", "H", text="stage_in.bias")
    device_w: Any = table("f4", "DEVICES", "H", text="device_in.weight")
    device_b: Any = table("f4", "H", text="device_in.bias")
    context_w: Any = table("f4", "CONTEXT", "H", text="context_in.weight")
    context_b: Any = table("f4", "H", text="context_in.bias")
    candidate_w: Any = table("f4", "INPUTS", "H", text="candidate_in.weight")
    candidate_b: Any = table("f4", "H", text="candidate_in.bias")
    from_stage: Any = table("f4", "H", "H", text="from_stage.weight")
    from_device: Any = table("f4", "H", "H", text="from_device.weight")
    from_context: Any = table("f4", "H", "H", text="from_context.weight")
    own_w: Any = table("f4", "R H", "H", text="own.{}.weight")
    own_b: Any = table("f4", "R H", text="own.{}.bias")
    from_slot: Any = table("f4", "R H", "H", text="from_slot.{}.weight")
    from_place: Any = table("f4", "R H", "H", text="from_place.{}.weight")
    from_all: Any = table("f4", "R H", "H", text="from_all.{}.weight")
    score_w: Any = table("f4", "H", text="score.weight")
    score_b: Any = table("f4", 1, text="score.bias")
    wait_w: Any = table("f4", "3 H", "H", text="wait_in.weight")
    wait_b: Any = table("f4", "H", text="wait_in.bias")
    wait_out: Any = table("f4", "H", text="wait_out.weight")
    wait_out_b: Any = table("f4", 1, text="wait_out.bias")


class Activations(Block):
    """Scratch arrays for one observation."""

    legal: Any = table("i8", "A", text="numbers of the legal candidates")
    stage: Any = table("f4", "S", "H", text="encoded stages")
    device: Any = table("f4", "D", "H", text="encoded devices")
    known: Any = table("f4", "CONTEXT", text="globals, and means of the encoded rows")
    around: Any = table("f4", "H", text="encoded context")
    of_stage: Any = table("f4", "S", "H", text="what a candidate takes from its stage")
    of_device: Any = table("f4", "D", "H", text="from its device")
    everywhere: Any = table("f4", "H", text="from the context")
    inputs: Any = table("f4", "A", "INPUTS", text="of the legal candidates")
    z: Any = table("f4", "A", "H", text="the legal candidates, encoded")
    step: Any = table("f4", "A", "H", text="what a round takes from the candidate itself")
    best_slot: Any = table("f4", "S", "H", text="maximum over the candidates of a slot")
    best_place: Any = table("f4", "P", "H", text="maximum over those of a position")
    mean: Any = table("f4", "H", text="mean over all")
    of_slot: Any = table("f4", "S", "H", text="what a round takes from the slot")
    of_place: Any = table("f4", "P", "H", text="from the position")
    of_all: Any = table("f4", "H", text="from the mean")
    pooled: Any = table("f4", "3 H", text="mean, maximum and context")
    last: Any = table("f4", "H", text="what waiting is scored by")
    scores: Any = table("f4", "A + 1", text="the result")


def read_weights(state: Mapping[str, NDArray[Any]]) -> Weights:
    """Convert the parameters of `PointerNetwork`, by name.

    Raises:
        KeyError: a parameter is missing.
        ValueError: a parameter has a wrong shape.
    """
    hidden = state["score.weight"].shape[1]
    rounds = sum(name.startswith("own.") and name.endswith(".weight") for name in state)
    # Checked first: else a wide score.weight alone would make the arrays below huge.
    for name in ("from_stage.weight", *(f"own.{r}.weight" for r in range(rounds))):
        if state[name].shape != (hidden, hidden):
            raise ValueError(f"{name} has the shape {state[name].shape}, not {(hidden, hidden)}")
    sizes = {"H": hidden, "R H": rounds * hidden, "3 H": 3 * hidden}
    widths = {
        "stages": ("stage_in.weight", STAGE_WIDTH, 0),
        "devices": ("device_in.weight", DEVICE_WIDTH, 0),
        "globals": ("context_in.weight", GLOBAL_WIDTH, 2 * hidden),
        "candidates": ("candidate_in.weight", CANDIDATE_WIDTH, CANDIDATE_INPUTS - CANDIDATE_WIDTH),
    }
    known = dict(state)
    read = {}
    for group, (name, width, more) in widths.items():
        read[group], known[name] = _without_unread(state[name], width, more, name)
        sizes[group.upper()] = read[group].size
    sizes["CONTEXT"] = known["context_in.weight"].shape[1]
    sizes["INPUTS"] = known["candidate_in.weight"].shape[1]
    weights = Weights.allocate(**sizes)
    for name, field in Weights.tables.items():
        target = getattr(weights, name)
        if name in read:
            target[:] = read[name]
        elif "{}" in field.text:
            for r in range(rounds):
                part = target[r * hidden : (r + 1) * hidden]
                _copy(known[field.text.format(r)], part, field.text.format(r))
        else:
            _copy(known[field.text], target, field.text)
    return weights


def _without_unread(
    given: NDArray[Any], width: int, more: int, name: str
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return which of the first ``width`` inputs have a weight, and the matrix without the others.

    The matrix ``given`` is (out, in). Its first input, whether the row is present, is always kept,
    as are the ``more`` inputs after the features.
    """
    if given.shape[1] != width + more:
        raise ValueError(f"{name} has the shape {given.shape}, not {(len(given), width + more)}")
    reads: NDArray[np.bool_] = np.any(given[:, :width] != 0.0, axis=0)
    reads[0] = True
    return np.flatnonzero(reads), given[:, np.append(reads, np.ones(more, np.bool_))]


def _copy(given: NDArray[Any], target: NDArray[np.float32], name: str) -> None:
    turned = given.T if target.ndim == 2 else given.reshape(-1)
    if turned.shape != target.shape:
        raise ValueError(f"{name} has the shape {given.shape}, not {target.T.shape}")
    target[:] = turned


def new_activations(weights: Weights, slots: int, devices: int, actions: int) -> Activations:
    """Allocate scratch for observations of these sizes; ``actions`` includes waiting."""
    return Activations.allocate(
        **{"3 H": weights.wait_w.shape[0], "A + 1": actions},
        A=actions - 1,
        CONTEXT=weights.context_w.shape[0],
        INPUTS=weights.candidate_w.shape[0],
        D=devices,
        H=weights.score_w.size,
        P=(actions - 1) // slots,
        S=slots,
    )


# --- matrix products: BLAS -------------------------------------------------------------------


@kernel
def _multiply(x: Matrix, w: Matrix, out: Matrix) -> None:
    np.dot(x, w, out)


@kernel
def _multiply_row(x: Vector, w: Matrix, out: Vector) -> None:
    np.dot(x, w, out)


# --- the layers ------------------------------------------------------------------------------


@inlined
def _rectify(x: Matrix, bias: Vector) -> None:
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[i, j] = max(x[i, j] + bias[j], np.float32(0.0))


@inlined
def _rectify_row(x: Vector, bias: Vector) -> None:
    for j in range(x.size):
        x[j] = max(x[j] + bias[j], np.float32(0.0))


@inlined
def _mean_of_present(rows: Matrix, encoded: Matrix, out: Vector, at: int) -> None:
    """Write to ``out[at:]`` the mean encoding of the rows whose first feature, present, is set."""
    count, hidden = 0, encoded.shape[1]
    for j in range(hidden):
        out[at + j] = 0.0
    for i in range(rows.shape[0]):
        if rows[i, 0] > 0.0:
            count += 1
            for j in range(hidden):
                out[at + j] += encoded[i, j]
    for j in range(hidden):
        out[at + j] /= max(1, count)


@kernel
def _encode(w: Weights, a: Activations, stages: Matrix, devices: Matrix, context: Vector) -> None:
    """Encode stages, devices and context, and what candidates take from them."""
    _multiply(stages, w.stage_w, a.stage)
    _rectify(a.stage, w.stage_b)
    _multiply(devices, w.device_w, a.device)
    _rectify(a.device, w.device_b)
    count = w.globals.size
    for j in range(count):
        a.known[j] = context[w.globals[j]]
    _mean_of_present(stages, a.stage, a.known, count)
    _mean_of_present(devices, a.device, a.known, count + w.score_w.size)
    _multiply_row(a.known, w.context_w, a.around)
    _rectify_row(a.around, w.context_b)
    _multiply(a.stage, w.from_stage, a.of_stage)
    _multiply(a.device, w.from_device, a.of_device)
    _multiply_row(a.around, w.from_context, a.everywhere)
    for j in range(w.candidate_b.size):
        a.everywhere[j] += w.candidate_b[j]


@kernel
def _encode_candidates(w: Weights, a: Activations, candidates: Matrix, mask: Mask) -> int:
    """Encode the legal candidates into the first rows of ``a.z``; return their number."""
    found = 0
    for action in range(candidates.shape[0]):
        if mask[action]:
            a.legal[found] = action
            found += 1
    for i in range(found):
        action = a.legal[i]
        for c in range(w.candidates.size):
            a.inputs[i, c] = candidates[action, w.candidates[c]]
        for n in range(len(CLOSE)):
            later = candidates[action, CLOSE[n]]
            unscaled = later / max(np.float32(1e-6), np.float32(1.0) - abs(later))
            at = w.candidates.size + n * (len(FINE) + 1)
            a.inputs[i, at] = unscaled / (abs(unscaled) + np.float32(FINE[0]))
            a.inputs[i, at + 1] = unscaled / (abs(unscaled) + np.float32(FINE[1]))
            a.inputs[i, at + 2] = later <= 0.0
    positions, devices = a.best_place.shape[0], a.device.shape[0]
    _multiply(a.inputs[:found], w.candidate_w, a.z[:found])
    for i in range(found):
        slot, position = a.legal[i] // positions, a.legal[i] % positions
        for j in range(a.z.shape[1]):
            x = a.z[i, j] + a.of_stage[slot, j] + a.everywhere[j]
            if position < devices:
                x += a.of_device[position, j]
            a.z[i, j] = max(x, np.float32(0.0))
    return found


@kernel
def _exchange(w: Weights, a: Activations, r: int, found: int) -> None:
    """Do round ``r``: candidates see those of their slot, those of their position, and all."""
    positions, hidden = a.best_place.shape[0], a.z.shape[1]
    for j in range(hidden):
        a.mean[j] = 0.0
        for i in range(a.best_slot.shape[0]):
            a.best_slot[i, j] = 0.0
        for i in range(positions):
            a.best_place[i, j] = 0.0
    for i in range(found):
        slot, position = a.legal[i] // positions, a.legal[i] % positions
        for j in range(hidden):
            a.mean[j] += a.z[i, j]
            a.best_slot[slot, j] = max(a.best_slot[slot, j], a.z[i, j])
            a.best_place[position, j] = max(a.best_place[position, j], a.z[i, j])
    for j in range(hidden):
        a.mean[j] /= np.float32(max(1, found))
    first, end = r * hidden, (r + 1) * hidden
    _multiply(a.best_slot, w.from_slot[first:end], a.of_slot)
    _multiply(a.best_place, w.from_place[first:end], a.of_place)
    _multiply_row(a.mean, w.from_all[first:end], a.of_all)
    _multiply(a.z[:found], w.own_w[first:end], a.step[:found])
    for j in range(hidden):
        a.of_all[j] += w.own_b[first + j]
    for i in range(found):
        slot, position = a.legal[i] // positions, a.legal[i] % positions
        for j in range(hidden):
            x = a.z[i, j] + a.step[i, j] + a.of_slot[slot, j]
            a.z[i, j] = max(x + a.of_place[position, j] + a.of_all[j], np.float32(0.0))


@kernel
def _score(w: Weights, a: Activations, found: int, wait: bool) -> None:
    """Score the legal candidates, and waiting if that is legal."""
    hidden = a.z.shape[1]
    for j in range(a.pooled.size):
        a.pooled[j] = 0.0
    for i in range(a.scores.size):
        a.scores[i] = -np.inf
    for i in range(found):
        total = w.score_b[0]
        for j in range(hidden):
            total += a.z[i, j] * w.score_w[j]
            a.pooled[j] += a.z[i, j]
            a.pooled[hidden + j] = max(a.pooled[hidden + j], a.z[i, j])
        a.scores[a.legal[i]] = total
    for j in range(hidden):
        a.pooled[j] /= np.float32(max(1, found))
        a.pooled[2 * hidden + j] = a.around[j]
    if wait:
        _multiply_row(a.pooled, w.wait_w, a.last)
        _rectify_row(a.last, w.wait_b)
        a.scores[a.scores.size - 1] = np.dot(a.last, w.wait_out) + w.wait_out_b[0]


@kernel
def score_actions(
    w: Weights,
    a: Activations,
    stages: Matrix,
    devices: Matrix,
    candidates: Matrix,
    context: Vector,
    mask: Mask,
) -> None:
    """Fill ``a.scores`` with the scores of the actions; -inf where the mask is 0.

    Args:
        w: the weights.
        a: scratch, and the result.
        stages: (S, w.stages.size), the columns that are read.
        devices: (D, w.devices.size), likewise.
        candidates: (A, CANDIDATE_WIDTH).
        context: (GLOBAL_WIDTH,).
        mask: (A + 1,).
    """
    _encode(w, a, stages, devices, context)
    found = _encode_candidates(w, a, candidates, mask)
    for r in range(w.own_b.size // w.score_w.size):
        _exchange(w, a, r, found)
    _score(w, a, found, mask[mask.size - 1] > 0)
