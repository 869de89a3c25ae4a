"""Random numbers for searches: xorshift64* (Vigna 2016, doi 10.1145/2845077)."""

from __future__ import annotations

import numpy as np

from fate_gym.jit import inlined


@inlined
def next_random(x: np.uint64) -> np.uint64:
    """Return the generator state after ``x``, which must not be 0."""
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    return x


@inlined
def unit_number(x: np.uint64) -> float:
    """Convert a generator state to a number in [0, 1)."""
    return np.float64((x * np.uint64(0x2545F4914F6CDD1D)) >> np.uint64(11)) / 9007199254740992.0
