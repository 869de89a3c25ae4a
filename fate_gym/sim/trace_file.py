"""Traces as JSON files, with a version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from fate_gym.catalog.given import Given
from fate_gym.errors import InputError
from fate_gym.kernel.schema import HOST, EvictionRow, ShardRow
from fate_gym.problem.faults import from_pydantic
from fate_gym.problem.io import read_json
from fate_gym.problem.problem import problem_from
from fate_gym.sim.compile import compile_problem
from fate_gym.sim.policy import Retention
from fate_gym.sim.trace import OUTAGE_ROW, Trace

TRACE_VERSION = 1

_TIMES = ("stage_ready", "stage_end", "draws")
_RANKED = ("prefixes", "contexts", "models", "until")


class _File(Given):
    """What a file holds: tables by column, arrays as lists."""

    trace_version: int
    problem: dict[str, Any]
    policy: str
    seed: int
    shards: dict[str, list[float]]
    evictions: dict[str, list[float]]
    outages: dict[str, list[float]]
    stage_ready: list[float]
    stage_end: list[float]
    stage_vanished: list[bool]
    draws: list[float]
    workflow_arrival: list[float]
    workflow_end: list[float]
    decision_seconds: list[float]
    counters: dict[str, float]
    retentions: list[tuple[int, dict[str, list[Any]]]]


def to_json(trace: Trace) -> str:
    """A trace as text."""
    data = {
        "trace_version": TRACE_VERSION,
        "problem": trace.problem.model_dump(mode="json", exclude_defaults=True),
        "policy": trace.policy,
        "seed": trace.seed,
        "counters": {name: float(value) for name, value in trace.counters.items()},
        "retentions": [
            (row, {n: getattr(r, n).tolist() for n in _RANKED if getattr(r, n) is not None})
            for row, r in trace.retentions
        ],
    }
    for name in ("shards", "evictions", "outages"):
        rows = getattr(trace, name)
        data[name] = {column: rows[column].tolist() for column in rows.dtype.names}
    for name in ("workflow_arrival", "workflow_end", "decision_seconds", "stage_vanished", *_TIMES):
        data[name] = getattr(trace, name).tolist()
    return json.dumps(data) + "\n"


def from_json(path: str | Path) -> Trace:
    """The trace in a file. Raises `InputError`."""
    data = read_json(path)
    _check_version(data, path)
    try:
        file = _File.model_validate(data)
    except ValidationError as error:
        raise from_pydantic(error, data, path) from None
    problem = problem_from(file.problem, path)
    compiled = compile_problem(problem)
    stages, workflows = len(compiled.stage_ids), len(problem.workflows)
    for name in (*_TIMES, "stage_vanished"):
        _check_length(path, name, getattr(file, name), stages, "stages")
    for name in ("workflow_arrival", "workflow_end"):
        _check_length(path, name, getattr(file, name), workflows, "workflows")
    shards = _table(file.shards, ShardRow.dtype, path, "shards")
    devices = len(compiled.device_ids)
    _check_numbers(path, "shards.stage", shards["stage"], 0, stages)
    _check_numbers(path, "shards.device", shards["device"], HOST, devices)
    return Trace(
        problem=problem,
        policy=file.policy,
        seed=file.seed,
        stage_ids=compiled.stage_ids,
        device_ids=compiled.device_ids,
        model_names=compiled.model_names,
        prefix_keys=compiled.prefix_keys,
        shards=shards,
        evictions=_table(file.evictions, EvictionRow.dtype, path, "evictions"),
        stage_ready=np.array(file.stage_ready),
        stage_end=np.array(file.stage_end),
        workflow_arrival=np.array(file.workflow_arrival),
        workflow_end=np.array(file.workflow_end),
        workflow_of=compiled.workflow_of.copy(),
        decision_seconds=np.array(file.decision_seconds),
        counters=file.counters,
        retentions=[
            (row, Retention(**{name: np.array(values) for name, values in arrays.items()}))
            for row, arrays in file.retentions
        ],
        stage_vanished=np.array(file.stage_vanished, np.bool_),
        draws=np.array(file.draws),
        outages=_table(file.outages, OUTAGE_ROW, path, "outages"),
    )


def _check_version(data: Any, path: str | Path) -> None:
    """First, since another version may have other fields."""
    version = data.get("trace_version") if isinstance(data, dict) else None
    if version is None:
        raise InputError(
            "not a trace", source=path, remedy="choose a file that Trace.save has written"
        )
    if version != TRACE_VERSION:
        raise InputError(
            f"a trace of version {repr(version)[:80]}",
            source=path,
            field="trace_version",
            remedy=f"this release reads version {TRACE_VERSION}: simulate and save it anew",
        )


def _check_length(path: str | Path, name: str, values: list[Any], count: int, what: str) -> None:
    if len(values) != count:
        raise InputError(
            f"{len(values)} values for {count} {what}",
            source=path,
            field=name,
            remedy="simulate and save it anew",
        )


def _check_numbers(path: str | Path, field: str, values: NDArray[Any], low: int, end: int) -> None:
    wrong = values[(values < low) | (values >= end)]
    if wrong.size:
        raise InputError(
            f"there is no number {wrong[0]} in its problem",
            source=path,
            field=field,
            remedy="simulate and save it anew",
        )


def _table(
    columns: Mapping[str, list[float]], dtype: np.dtype[Any], path: str | Path, name: str
) -> NDArray[Any]:
    """Rows from columns."""
    names = dtype.names or ()
    if set(columns) != set(names) or len({len(values) for values in columns.values()}) > 1:
        raise InputError(
            "the columns are not those of a trace, or differ in length",
            source=path,
            field=name,
            remedy="simulate and save it anew",
        )
    rows = np.zeros(len(columns[names[0]]), dtype)
    for column in names:
        rows[column] = columns[column]
    return rows
