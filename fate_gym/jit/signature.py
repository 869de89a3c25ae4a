"""What the annotations of a compiled function mean: one numba signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import numpy as np
from numba import from_dtype, types
from numba.core.typing import signature
from numpy.typing import NDArray

from fate_gym.jit.block import Block, BlockType, Row

Floats = Annotated[NDArray[np.float64], 1]
Ints = Annotated[NDArray[np.int64], 1]
FloatMatrix = Annotated[NDArray[np.float64], 2]
IntMatrix = Annotated[NDArray[np.int64], 2]

_PLAIN = {
    int: types.int64,
    float: types.float64,
    bool: types.boolean,
    np.uint64: types.uint64,
    type(None): types.none,
}


def signature_of(function: Callable[..., Any]) -> Any:
    """The signature of a function whose parameters and result are all annotated.

    ``int`` is 64 bits wide and ``float`` is double. Arrays are ``Annotated[NDArray[...], ndim]``
    and contiguous. Blocks, rows, tuples and named tuples stand for themselves.

    Raises:
        TypeError: an annotation is missing or has no meaning here.
    """
    hints = get_type_hints(function, include_extras=True)
    names = inspect.signature(function).parameters
    try:
        parameters = [numba_type(hints[name]) for name in names]
        return signature(numba_type(hints["return"]), *parameters)
    except (KeyError, TypeError) as error:
        raise TypeError(f"{function.__module__}.{function.__qualname__}: {error}") from None


def numba_type(hint: Any) -> Any:
    """The numba type of an annotation."""
    if hint in _PLAIN:
        return _PLAIN[hint]
    if get_origin(hint) is Annotated:
        array, ndim = get_args(hint)
        dtype = get_args(get_args(array)[1])[0]
        return types.Array(from_dtype(np.dtype(dtype)), ndim, "C")
    if get_origin(hint) is tuple:
        return types.BaseTuple.from_types([numba_type(part) for part in get_args(hint)])
    if isinstance(hint, type):
        if issubclass(hint, Block):
            return BlockType(hint)
        if issubclass(hint, Row):
            return from_dtype(hint.dtype)
        if issubclass(hint, tuple):
            fields = get_type_hints(hint, include_extras=True)
            return types.BaseTuple.from_types([numba_type(f) for f in fields.values()], hint)
    raise TypeError(f"{hint!r} has no type in compiled code")
