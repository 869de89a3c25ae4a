"""Checks that the files of a finished job are complete and undamaged.

Files may be damaged by a full disk, cut off in a copy, or come from elsewhere. A job with such a
file counts as not done: its sweep runs it again, and reports mention it and go on without it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import numpy as np

from fate_gym.errors import InputError
from fate_gym.lab.files import read_bytes, read_table
from fate_gym.lab.jobs.directory import (
    CONFIG,
    DECISIONS,
    EXPLAINED,
    SHARDS,
    WORKFLOWS,
    read_config,
)
from fate_gym.lab.jobs.result import JobResult
from fate_gym.lab.jobs.schedules import ShardRow, device_ids, schedules_of

if TYPE_CHECKING:
    import pyarrow as pa

REMEDY = "re-run the sweep's command: it runs the job again"

LARGEST = 1e18
"""Largest absolute value allowed, so that sums and axes of figures stay finite."""

_TEXTS = ("suite", "policy", "problem", "workflow", "family", "instance")
_FINITE = ("seed", "workflows", "latency", "rr_latency", "latency_ratio")
_NUMBERS = (
    "state_intensity",
    "makespan",
    "gap_to_bound",
    "load_seconds",
    "transfer_wait_seconds",
    "prefix_hit_rate",
    "context_hit_rate",
    "bytes_moved",
    "device_utilisation",
)
"""Columns of ``workflows.parquet`` that every report needs; numbers may be NaN."""
_REFERENCE = "round_robin"


def check_files(directory: Path, result: JobResult) -> None:
    """Check that a run directory matches its ``result.json``.

    Raises:
        InputError: naming the first file at fault.
    """
    _check_place(directory, result)
    config = _check_config(directory, result)
    _check_workflows(directory, result)
    _check_decisions(directory, result)
    _check_schedules(directory, result, config)
    _check_explained(directory, result)


def _check_place(directory: Path, result: JobResult) -> None:
    place = (directory.parents[1].name, directory.parent.name, directory.name)
    if place != (result.suite, result.policy, f"s{result.seed}-{result.config_hash}"):
        raise InputError(f"the result of another job ({result.title})", source=directory)


def _check_config(directory: Path, result: JobResult) -> dict[str, Any]:
    path = directory / CONFIG
    config = read_config(directory, known=result.checksums.get(CONFIG))
    made_with = config.get("made_with")
    found = made_with.get("config_hash") if isinstance(made_with, dict) else None
    if found != result.config_hash:
        raise InputError("the configuration of another job", source=path)
    return config


def _check_workflows(directory: Path, result: JobResult) -> None:
    import pyarrow.compute as pc

    from fate_gym.lab.jobs.run import MEANS  # which imports this module

    path = directory / WORKFLOWS
    table = _table(path, result)
    if table.num_rows != result.workflows:
        fault = f"{table.num_rows} rows for {result.workflows} workflows"
        raise InputError(fault, source=path)
    # Columns that not every version writes are checked if they are present.
    optional = {
        name
        for name in table.column_names
        if name in MEANS or _is_number(table.schema.field(name).type)
    }
    _check_columns(path, table, _TEXTS, [*_FINITE, *_NUMBERS, *sorted(optional)])
    _check_finite(path, table, _FINITE)
    for name, value in (("policy", result.policy), ("seed", result.seed)):
        if not pc.all(pc.equal(table[name], value)).as_py():
            raise InputError(f"rows of another {name}", source=path)
    if pc.min(table["latency_ratio"]).as_py() < 0:
        raise InputError("negative latencies", source=path)


def _check_decisions(directory: Path, result: JobResult) -> None:
    path = directory / DECISIONS
    table = _table(path, result)
    if table.num_rows:  # without rows it has no columns
        _check_columns(path, table, (), ("decision_ms",))
        _check_finite(path, table, ("decision_ms",))


def _check_schedules(directory: Path, result: JobResult, config: dict[str, Any]) -> None:
    path = directory / SHARDS
    table = _table(path, result)
    kinds = get_type_hints(ShardRow)
    texts = [name for name, kind in kinds.items() if kind is str]
    numbers = [name for name in kinds if name not in texts]
    _check_columns(path, table, texts, numbers)
    _check_finite(path, table, numbers)
    schedules = schedules_of(table, device_ids(directory, config))
    for of_problem in schedules.values():
        if not {result.policy, _REFERENCE} <= of_problem.keys():
            raise InputError("a schedule is missing", source=path)
    if not schedules:
        raise InputError("no schedule", source=path)


def _check_explained(directory: Path, result: JobResult) -> None:
    known = result.checksums.get(EXPLAINED)
    if known is not None or (directory / EXPLAINED).exists():
        # It is parsed when it is shown; checking that it is the job's own is enough here.
        read_bytes(directory / EXPLAINED, known=known)


def _table(path: Path, result: JobResult) -> pa.Table:
    """Read a table of a job; raise `InputError` if it is not as the job wrote it."""
    known = result.checksums.get(path.name)
    return read_table(path, owner=result.config_hash, known=known)


def _check_columns(
    path: Path, table: pa.Table, texts: Iterable[str], numbers: Iterable[str]
) -> None:
    """Check that all columns exist with the right type, no text missing, no number too large."""
    columns = dict(zip(table.column_names, table.columns, strict=True))
    for names, fits in ((texts, _is_text), (numbers, _is_number)):
        for name in names:
            if name not in columns:
                raise InputError(f"no column {name!r}", source=path)
            column = columns[name]
            if not fits(column.type):
                raise InputError(f"the column {name!r} is of {column.type}", source=path)
            if fits is _is_text and column.null_count:
                raise InputError(f"the column {name!r} has gaps", source=path)
            if fits is _is_number and _largest(column) > LARGEST:
                raise InputError(f"values of {name!r} are beyond {LARGEST:g}", source=path)


def _largest(column: pa.ChunkedArray) -> float:
    """Return the largest absolute value, ignoring nulls and NaN."""
    import pyarrow as pa

    values = np.abs(column.cast(pa.float64(), safe=False).to_numpy())
    return float(np.fmax.reduce(values, initial=0.0))


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow.types as kinds

    return bool(kinds.is_string(kind) or kinds.is_large_string(kind))


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow.types as kinds

    return bool(kinds.is_integer(kind) or kinds.is_floating(kind))


def _check_finite(path: Path, table: pa.Table, names: Iterable[str]) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in names:
        finite = pc.is_finite(table[name].cast(pa.float64(), safe=False))
        if table[name].null_count or not pc.all(finite).as_py():
            raise InputError(f"values of {name!r} are no numbers", source=path)
