"""Packing and unpacking of ``weights.npz``: arrays by name.

Sizes that a file declares are checked before anything is unpacked: 3 MB can hold 3 GB of zeros.
"""

from __future__ import annotations

import io
import math
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.float32]]

MOST_PACKED = 256 * 2**20
"""Maximum size of ``weights.npz``, bytes."""
_MOST_UNPACKED = 512 * 2**20
_MOST_ARRAYS = 1_000
_END = ".npy"
_VERSION = (1, 0)
_WIDTH = 4
_MOST_HEADER = 10_000
_UNREADABLE = (
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,  # Python's parser, for a deeply nested header
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Warning,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""Exceptions that `zipfile` and NumPy raise for damaged files."""


def pack_weights(weights: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the bytes of ``weights.npz``; equal weights give equal bytes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(weights):
            array = io.BytesIO()
            np.save(array, np.asarray(weights[name], np.float32), allow_pickle=False)
            # A fixed date: the archive's bytes are hashed.
            archive.writestr(zipfile.ZipInfo(f"{name}{_END}"), array.getvalue())
    return packed.getvalue()


def unpack_weights(packed: bytes) -> Arrays:
    """Return the arrays of ``weights.npz``, without unpickling anything.

    Raises:
        ValueError: the file is damaged or too large, or holds anything but float32 arrays.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            entries = archive.infolist()
            if len({entry.filename for entry in entries}) < len(entries):
                raise ValueError("a name is there twice")
            if len(entries) > _MOST_ARRAYS:
                raise ValueError(f"{len(entries):,} arrays, more than {_MOST_ARRAYS:,}")
            size = sum(entry.file_size for entry in entries)
            if size > _MOST_UNPACKED:
                raise ValueError(f"it unpacks to {size:,} bytes, more than {_MOST_UNPACKED:,}")
            return {entry.filename.removesuffix(_END): _array(archive, entry) for entry in entries}
    except _UNREADABLE as error:
        raise ValueError(str(error) or type(error).__name__) from None


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[np.float32]:
    name = entry.filename
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is compressed in another way than deflate")
    with archive.open(entry) as stream:
        if npy.read_magic(stream) != _VERSION:
            raise ValueError(f"{name} is no array of NumPy's format 1.0")
        with warnings.catch_warnings(action="error"):  # about headers written by Python 2
            shape, by_columns, dtype = npy.read_array_header_1_0(stream, _MOST_HEADER)
        if dtype != np.float32:
            raise ValueError(f"{name} has the type {dtype}, not float32")
        if min(shape, default=0) < 0 or math.prod(shape) * _WIDTH > entry.file_size:
            raise ValueError(f"{name} has the shape {shape}, and is shorter")
        content = stream.read(math.prod(shape) * _WIDTH)
    order: Literal["F", "C"] = "F" if by_columns else "C"
    # A copy: arrays over bytes are read-only, and torch warns about those.
    return np.frombuffer(content, dtype).reshape(shape, order=order).astype(np.float32, "C")
