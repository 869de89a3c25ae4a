"""Files of the lab: atomic writes of tables, and reads of untrusted files within limits."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fate_gym.errors import InputError
from fate_gym.files import MOST_BYTES, replacing

if TYPE_CHECKING:
    import pyarrow as pa

MOST_VALUES = 200_000_000
"""Limit on rows x columns: a few bytes can encode one value repeated a billion times."""


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], *, owner: str | None = None) -> None:
    """Write rows as parquet; values missing in a row are null.

    Args:
        path: path of the file.
        rows: values by column.
        owner: stored with the table, to tell it from the same table of another job.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    metadata = None if owner is None else {_OWNER: owner.encode()}
    with replacing(path) as temporary:
        table = pa.table(columns).replace_schema_metadata(metadata)
        pq.write_table(table, temporary, write_page_checksum=True)


_OWNER = b"fate_gym.owner"


def checksum(data: bytes) -> str:
    """Return a checksum of 16 hex digits."""
    return hashlib.sha256(data).hexdigest()[:16]


def read_bytes(path: Path, *, known: str | None = None) -> bytes:
    """Read a file; ``known`` is its expected `checksum`, if there is one.

    Raises:
        InputError: the file cannot be read, is not a regular file (reading a pipe may never end),
            is larger than `MOST_BYTES`, or does not match its checksum.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise InputError("not a regular file", source=path)
        if found.st_size > MOST_BYTES:
            fault = f"{found.st_size:,} bytes are more than {MOST_BYTES:,}"
            raise InputError(fault, source=path)
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", source=path) from None
    if known is not None and checksum(data) != known:
        raise InputError("its checksum does not hold", source=path)
    return data


def read_text(path: Path, *, known: str | None = None) -> str:
    """Read a UTF-8 text file. Raises `InputError` like `read_bytes`, or if it is not UTF-8."""
    try:
        return read_bytes(path, known=known).decode()
    except UnicodeDecodeError:
        raise InputError("not a text in UTF-8", source=path) from None


def read_table(path: Path, *, owner: str | None = None, known: str | None = None) -> pa.Table:
    """Read a parquet file.

    Args:
        path: path of the file.
        owner: required owner, if the file names one.
        known: expected `checksum`, if there is one.

    Raises:
        InputError: the file cannot be read, fails a checksum, is too large when decoded, or
            belongs to another owner.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = read_bytes(path, known=known)
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        if file.metadata.num_rows * file.metadata.num_columns > MOST_VALUES:
            raise InputError(f"more than {MOST_VALUES:,} values", source=path)
        table = file.read(use_threads=False)  # files are small, and there are thousands
        table.validate(full=True)
    # A damaged file can also declare any size, or have names that are not text.
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("not a parquet file, or a damaged one", source=path) from None
    if len(set(table.column_names)) < table.num_columns:
        raise InputError("two columns have one name", source=path)
    found = (table.schema.metadata or {}).get(_OWNER)
    if owner is not None and found is not None and found != owner.encode():
        raise InputError("it is another job's file", source=path)
    return table.replace_schema_metadata(None)
