"""Read and write traces as versioned JSON files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from fate_gym.catalog.given import Given
from fate_gym.catalog.limits import MOST_QUERIES
from fate_gym.errors import InputError, check_known
from fate_gym.kernel.schema import (
    EVICT_PREFIX,
    EVICT_WEIGHTS,
    HOST,
    EvictionRow,
    ShardRow,
)
from fate_gym.problem.faults import from_pydantic
from fate_gym.problem.io import read_json
from fate_gym.problem.problem import problem_from
from fate_gym.sim.compile import CompiledProblem, compile_problem
from fate_gym.sim.policy import Retention
from fate_gym.sim.trace import OUTAGE_ROW, Trace

TRACE_VERSION = 1

_TIMES = ("stage_ready", "stage_end", "draws")
_RANKED = ("prefixes", "contexts", "models", "until")


class _File(Given):
    """The contents of a trace file: tables by column, arrays as lists."""

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
    """Return a trace as JSON text."""
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
    """Read the trace in a file. Raises `InputError`."""
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
    evictions = _table(file.evictions, EvictionRow.dtype, path, "evictions")
    outages = _table(file.outages, OUTAGE_ROW, path, "outages")
    devices = len(compiled.device_ids)
    keys = max(stages, len(compiled.prefix_keys), len(compiled.model_names))
    for field, values, low, end in (
        ("shards.stage", shards["stage"], 0, stages),
        ("shards.device", shards["device"], HOST, devices),
        ("shards.source", shards["source"], -1, devices),
        ("shards.queries", shards["queries"], 1, MOST_QUERIES + 1),
        ("evictions.shard", evictions["shard"], 0, len(shards)),
        ("evictions.device", evictions["device"], 0, devices),
        ("evictions.kind", evictions["kind"], EVICT_PREFIX, EVICT_WEIGHTS + 1),
        ("evictions.key", evictions["key"], 0, keys),
        ("outages.device", outages["device"], 0, devices),
    ):
        _check_numbers(path, field, values, low, end)
    return Trace(
        problem=problem,
        policy=file.policy,
        seed=file.seed,
        stage_ids=compiled.stage_ids,
        device_ids=compiled.device_ids,
        model_names=compiled.model_names,
        prefix_keys=compiled.prefix_keys,
        shards=shards,
        evictions=evictions,
        stage_ready=np.array(file.stage_ready),
        stage_end=np.array(file.stage_end),
        workflow_arrival=np.array(file.workflow_arrival),
        workflow_end=np.array(file.workflow_end),
        workflow_of=compiled.workflow_of.copy(),
        decision_seconds=np.array(file.decision_seconds),
        counters=file.counters,
        retentions=[(row, _retention(arrays, compiled, path)) for row, arrays in file.retentions],
        stage_vanished=np.array(file.stage_vanished, np.bool_),
        draws=np.array(file.draws),
        outages=outages,
    )


def _check_version(data: Any, path: str | Path) -> None:
    """Check the version first: other versions may have other fields."""
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
    """Return a table's rows, given its columns."""
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
        values = np.array(columns[column], np.float64)
        if dtype[column].kind == "i":
            most = np.iinfo(np.int32).max
            if not ((values == np.rint(values)) & (np.abs(values) <= most)).all():
                raise InputError(
                    "not whole numbers of 32 bits",
                    source=path,
                    field=f"{name}.{column}",
                    remedy="simulate and save it anew",
                )
        rows[column] = values
    return rows


def _retention(
    arrays: Mapping[str, list[Any]], compiled: CompiledProblem, path: str | Path
) -> Retention:
    """Return a retention, its arrays checked against the problem's sizes."""
    counts = {
        "prefixes": len(compiled.prefix_keys),
        "contexts": len(compiled.stage_ids),
        "models": len(compiled.model_names),
        "until": len(compiled.prefix_keys),
    }
    found: dict[str, NDArray[Any]] = {}
    for name, values in arrays.items():
        check_known("unknown ranking", name, counts, source=path, field="retentions")
        shapes: list[tuple[int, ...]] = [(counts[name],)]
        if name != "contexts":
            shapes.append((len(compiled.device_ids), counts[name]))
        try:
            found[name] = np.array(values, np.float64)
        except (TypeError, ValueError, OverflowError):
            found[name] = np.zeros(())
        if found[name].shape not in shapes:
            raise InputError(
                "not a list of numbers of the size that its problem has",
                source=path,
                field=f"retentions.{name}",
                remedy="simulate and save it anew",
            )
    return Retention(**found)
