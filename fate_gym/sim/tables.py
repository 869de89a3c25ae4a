"""Arrays inside a byte buffer, without reference counts.

Slicing and viewing a buffer in numba gives arrays that share ownership of the memory, and every
access through a tuple of such arrays counts references up and down, atomically: ten times the
cost of the arithmetic here. `table` and `matrix` give arrays that own nothing. They are for
compiled code that gets the buffer as an argument, which keeps it alive, and must not be returned
to Python. Called from Python, the same functions give ordinary numpy views.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from numpy.typing import DTypeLike, NDArray


def table(buffer: NDArray[np.uint8], offset: int, count: int, dtype: DTypeLike) -> NDArray[Any]:
    """(count,) array of ``dtype`` at ``offset`` bytes."""
    return buffer[offset : offset + count * np.dtype(dtype).itemsize].view(dtype)


def matrix(
    buffer: NDArray[np.uint8], offset: int, rows: int, columns: int, dtype: DTypeLike
) -> NDArray[Any]:
    """(rows, columns) array of ``dtype`` at ``offset`` bytes, in C order."""
    return table(buffer, offset, rows * columns, dtype).reshape(rows, columns)


@intrinsic
def _address(_context: Any, buffer: Any, offset: Any) -> Any:  # noqa: ARG001
    """The address of a byte of a buffer."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        return builder.bitcast(builder.gep(array.data, [args[1]]), cgutils.voidptr_t)

    return types.voidptr(buffer, types.intp), generate


@overload(table)
def _table(buffer: Any, offset: Any, count: Any, dtype: Any) -> Any:  # noqa: ARG001
    def build(buffer: Any, offset: Any, count: Any, dtype: Any) -> Any:
        return carray(_address(buffer, offset), (count,), dtype)

    return build


@overload(matrix)
def _matrix(buffer: Any, offset: Any, rows: Any, columns: Any, dtype: Any) -> Any:  # noqa: ARG001
    def build(buffer: Any, offset: Any, rows: Any, columns: Any, dtype: Any) -> Any:
        return carray(_address(buffer, offset), (rows, columns), dtype)

    return build
