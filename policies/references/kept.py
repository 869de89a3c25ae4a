"""The best known schedules, stored in ``best_known.json`` by a digest of their problem.

An entry holds the schedule as a sequence (`policies.references.sequences`), its makespan, and which
policy with which budget found it. A change of the cost model invalidates every entry, since the
digest covers the compiled problem, costs included.
"""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import TypedDict

import numpy as np

from fate_gym.kernel.schema import ProblemArrays
from fate_gym.sim import CompiledProblem, Trace
from policies.references.sequences import (
    Search,
    new_search,
    placements,
    play,
    write_placements,
    write_trace,
)


class Entry(TypedDict):
    """The best known schedule of one problem.

    Attributes:
        problem, cluster: names, for readers.
        makespan: makespan of the schedule, seconds.
        found_by: the policy that found it.
        work: budget of its search, in stages placed; 0 for a policy without such a parameter.
        order: numbers of the placed stages, first to last.
        devices: device numbers of each of these stages.
    """

    problem: str
    cluster: str
    makespan: float
    found_by: str
    work: int
    order: list[int]
    devices: list[list[int]]


def problem_key(compiled: CompiledProblem) -> str:
    """Compute a digest of everything that determines a makespan: stages, cluster, costs.

    Values are hashed by name, so the digest survives a new memory layout and new fields that are
    zero. They are hashed in single precision, since the last bits of a cost may differ between
    machines.
    """
    digest = hashlib.sha256()
    for name in ProblemArrays.fields:
        values = np.asarray(getattr(compiled.arrays, name))
        for column in values.dtype.names or ("",):
            numbers = values[column] if column else values
            if numbers.any():
                digest.update(f"{name}.{column}".encode())
                digest.update(numbers.astype(np.float32).tobytes())
    return digest.hexdigest()[:16]


def load_best_known(path: Path | None = None) -> dict[str, Entry]:
    """Load the stored entries by `problem_key`; none if there is no file."""
    source = path or files("policies.references").joinpath("best_known.json")
    try:
        text = source.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    entries: dict[str, Entry] = json.loads(text)
    return entries


def kept_schedule(compiled: CompiledProblem, entry: Entry) -> Search:
    """Create a search whose best sequence is that of an entry, already played."""
    c, _ = new_search(compiled.arrays, 1, 0)
    write_placements(compiled.arrays, entry["order"], entry["devices"], c.best)
    play(c, c.best, np.inf)
    return c


def entry_of(compiled: CompiledProblem, trace: Trace, *, work: int) -> Entry:
    """Make an entry from the trace of any policy's run of a problem without uncertainty.

    The makespan is that of the sequence, without any unnecessary waits of the run.
    """
    c, _ = new_search(compiled.arrays, 1, 0)
    write_trace(compiled.arrays, trace, c.best)
    play(c, c.best, np.inf)
    order, devices = placements(c.best)
    return Entry(
        problem=compiled.problem.id,
        cluster=compiled.problem.cluster.id,
        makespan=float(c.best.value - trace.workflow_arrival.min()),
        found_by=trace.policy,
        work=work,
        order=order,
        devices=devices,
    )
