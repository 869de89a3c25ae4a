"""Random draws: noise, lengths, choices, failures. Each depends on the seed and its key alone.

Runs with one seed therefore meet the same luck, whatever a policy does (SplitMix64; Steele et al.
2014, doi 10.1145/2714064.2660195).
"""

from __future__ import annotations

import numpy as np

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.schema import (
    EXPECTED,
    HOST,
    MODEL_STAGE,
    SAMPLED,
    ProblemArrays,
    StateArrays,
)

_LENGTH = np.uint64(0x2545F4914F6CDD1D)
_CHOICE = np.uint64(0x9FB21C651E98DF25)
_FAILURE = np.uint64(0xD6E8FEB86659FD93)
"""Salts that keep draws of different kinds with the same number independent."""


@inlined
def noise_factor(p: ProblemArrays, st: StateArrays, s: int, k: int, d: int) -> float:
    """Return exp(sigma z - sigma^2/2), z standard normal from (seed, stage, device) alone.

    In a sampled fork, z comes from (seed, stage, number ``k`` of the shard) instead: plans that
    differ in devices then meet the same luck, so comparing them takes far fewer samples. Shards of
    one stage still differ, as they do in a run: the last of several is late more often than a
    single one.
    """
    if not st.noisy:
        return 1.0
    if st.origin == SAMPLED:
        d = HOST + k
    x = np.uint64(st.seed) * np.uint64(0x9E3779B97F4A7C15)
    x += np.uint64(s + 1) * np.uint64(0xD1B54A32D192ED03)
    x += np.uint64(d + 2) * np.uint64(0x8CB92BA72F3D8DD7)
    return _lognormal(x, p.uncertainty)


@inlined
def length_factor(p: ProblemArrays, st: StateArrays, s: int) -> float:
    """Return actual / estimated output tokens of stage ``s``, drawn from (seed, stage) alone."""
    sigma = p.length_uncertainty
    if not st.noisy or sigma == 0.0 or p.stages[s].kind != MODEL_STAGE:
        return 1.0
    return _lognormal(_key(st, s, _LENGTH), sigma)


@inlined
def actual_tokens(p: ProblemArrays, st: StateArrays, s: int) -> int:
    """Return the output tokens that each query of stage ``s`` will have made in the end."""
    expected = p.stages[s].output_tokens
    if expected == 0:
        return 0
    return max(1, int(np.floor(expected * length_factor(p, st, s) + 0.5)))


@inlined
def choice_draw(p: ProblemArrays, st: StateArrays, s: int) -> float:
    """Return the draw in [0, 1) of chooser ``s``, from (seed, stage) alone.

    In an expected fork, a draw with the most likely outcome.
    """
    if st.origin == EXPECTED:
        return p.stages[s].likely
    return _uniform(_key(st, s, _CHOICE))


@inlined
def _key(st: StateArrays, number: int, purpose: np.uint64) -> np.uint64:
    x = np.uint64(st.seed) * np.uint64(0x9E3779B97F4A7C15)
    x += np.uint64(number + 1) * np.uint64(0xD1B54A32D192ED03)
    return x ^ purpose


@inlined
def _lognormal(x: np.uint64, sigma: float) -> float:
    """Return a lognormal draw with mean 1."""
    z = np.sqrt(-2.0 * np.log(_uniform(x))) * np.cos(
        2.0 * np.pi * _uniform(x ^ np.uint64(0x5851F42D4C957F2D))
    )
    return np.exp(sigma * z - 0.5 * sigma * sigma)


@inlined
def _uniform(x: np.uint64) -> float:
    x += np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return (np.float64(x >> np.uint64(11)) + 0.5) / 9007199254740992.0


@inlined
def change_after(p: ProblemArrays, st: StateArrays, d: int, changes: int, time: float) -> float:
    """Return when ``d`` next fails or is repaired, after its ``changes``-th change at ``time``."""
    down = changes % 2 == 1
    if p.outages.size > 0:
        number = p.devices[d].outages_from + changes // 2
        if number >= p.devices[d].outages_to:
            return np.inf
        return p.outages[number].end if down else p.outages[number].start
    if changes >= 2 * p.most_failures:
        return np.inf
    x = _key(st, d, _FAILURE) + np.uint64(changes) * np.uint64(0xA0761D6478BD642F)
    mean = p.mttr_s if down else p.mtbf_s
    return time - mean * np.log(_uniform(x))


@kernel
def outage(p: ProblemArrays, st: StateArrays, d: int, number: int) -> tuple[float, float]:
    """Return when the ``number``-th outage (from 0) of device ``d`` starts and ends."""
    down, up = 0.0, 0.0
    for changes in range(2 * number + 2):
        down, up = up, change_after(p, st, d, changes, up)
    return down, up


def is_uncertain(p: ProblemArrays) -> bool:
    """Return whether a problem has durations, lengths, branches or failures that are random."""
    drawn = p.uncertainty > 0.0 or p.length_uncertainty > 0.0
    return bool(drawn or p.choosers > 0 or p.failing)
