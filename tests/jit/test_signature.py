"""Annotations give signatures, or one clear error."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from numba import types

from fate_gym.jit.signature import FloatMatrix, Floats, Ints, signature_of


class Pair(NamedTuple):
    a: int
    b: float


def test_annotations_say_the_types() -> None:
    def function(
        a: int, b: float, c: bool, d: np.uint64, e: Floats, f: FloatMatrix, g: Pair
    ) -> tuple[float, int]:
        return b, a

    sig = signature_of(function)
    assert sig.args[:4] == (types.int64, types.float64, types.boolean, types.uint64)
    assert sig.args[4:6] == (types.float64[::1], types.float64[:, ::1])
    assert sig.args[6].fields == ("a", "b")
    assert sig.return_type == types.Tuple((types.float64, types.int64))


def test_a_missing_annotation_is_named() -> None:
    def function(a: int, b) -> int:  # type: ignore[no-untyped-def]
        return a

    with pytest.raises(TypeError, match=r"function: 'b'"):
        signature_of(function)


def test_an_annotation_without_meaning_is_named() -> None:
    def function(a: str, b: Ints) -> int:
        return 0

    with pytest.raises(TypeError, match=r"function: .*str.* has no type in compiled code"):
        signature_of(function)
