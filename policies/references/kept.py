"""The best schedules that are known, kept in ``best_known.json`` by a digest of their problem.

Whatever found one: an entry holds the schedule as a sequence (`policies.references.sequences`),
what it is worth, and which search with which budget found it. A change of the cost model makes
every entry void by itself, since the digest is of the compiled problem, costs included.
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
    """The best schedule known of one problem.

    Attributes:
        problem, cluster: their names, for readers.
        makespan: of the schedule, seconds.
        found_by: the policy that found it; ``work``: the work that its search was allowed, in
            stages placed, 0 for a policy without such a parameter.
        order: numbers of the stages that are placed, first to last.
        devices: the numbers of the devices of each of these.
    """

    problem: str
    cluster: str
    makespan: float
    found_by: str
    work: int
    order: list[int]
    devices: list[list[int]]


def problem_key(compiled: CompiledProblem) -> str:
    """A digest of everything that decides a makespan: stages, cluster, costs.

    Of the values by name: it stays when they lie elsewhere, or a field is added that is zero here.
    In single precision, since the last bits of a cost may differ between machines.
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
    """The entries kept, by `problem_key`; none if there is no file."""
    source = path or files("policies.references").joinpath("best_known.json")
    try:
        text = source.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    entries: dict[str, Entry] = json.loads(text)
    return entries


def kept_schedule(compiled: CompiledProblem, entry: Entry) -> Search:
    """A search whose best sequence is the one of an entry, and was played."""
    c, _ = new_search(compiled.arrays, 1, 0)
    write_placements(compiled.arrays, entry["order"], entry["devices"], c.best)
    play(c, c.best, np.inf)
    return c


def entry_of(compiled: CompiledProblem, trace: Trace, *, work: int) -> Entry:
    """The schedule of a run of a certain problem, whoever made it, as an entry.

    Its makespan is that of the sequence: devices that waited longer than they had to do not.
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
