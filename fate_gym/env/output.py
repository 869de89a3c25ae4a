"""Output buffers: fresh arrays for each step's observation, in one allocation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fate_gym.env.schema import ObservationArrays

Observation = dict[str, NDArray[Any]]
Words = NDArray[np.int64]

_TABLES = ObservationArrays.tables
HEAD_WORDS = ObservationArrays.head_at // 8
"""Words of a lane's `ObservationArrays`: only its directory, as the tables lie elsewhere."""


class Output:
    """Makes buffers for the observations of one or more lanes.

    A buffer begins with the `ObservationArrays` of the lanes, one after the other. Each is only a
    directory that points at the lane's rows in the arrays behind them: every array holds all lanes,
    as `gymnasium.vector` requires.

    Args:
        shapes: shapes of the arrays of one lane, by key.
        lanes: B; None: one, without the leading dimension.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], lanes: int | None) -> None:
        count = 1 if lanes is None else lanes
        lead = () if lanes is None else (lanes,)
        directories = np.zeros((count, 1 + 3 * len(_TABLES)), np.int64)
        lane = np.arange(count)
        self._arrays: list[tuple[str, tuple[int, ...], np.dtype[Any], int]] = []
        at = directories.nbytes
        for i, (key, field) in enumerate(_TABLES.items()):
            if key not in shapes:
                continue
            shape = shapes[key]
            size = int(np.prod(shape)) * field.dtype.itemsize
            self._arrays.append((key, (*lead, *shape), field.dtype, at))
            # Relative to the beginning of the lane's directory.
            directories[:, 1 + 3 * i] = at + lane * (size - 8 * HEAD_WORDS)
            directories[:, 2 + 3 * i : 4 + 3 * i] = shape if len(shape) == 2 else (*shape, 1)
            at += count * size
        self._directories = directories.reshape(-1)
        self._words = -(-at // 8)

    def new(self) -> Words:
        """Return a buffer with uninitialised arrays."""
        buffer = np.empty(self._words, np.int64)
        buffer[: self._directories.size] = self._directories
        return buffer

    def observation(self, buffer: Words) -> Observation:
        """Return the arrays of a buffer, by key."""
        return {key: np.ndarray(shape, dtype, buffer, at) for key, shape, dtype, at in self._arrays}
