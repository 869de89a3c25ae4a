"""Compares two result directories: the same policies on the same problems, paired."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fate_gym.errors import InputError, printable
from fate_gym.lab.report.versus import Versus, corrected, versus
from fate_gym.lab.sweep.results import WORKFLOW, Sweep, read_sweep
from fate_gym.lab.tables import number, print_table
from fate_gym.metrics.outcome import ratios


@dataclass(frozen=True)
class Change:
    """One policy in both directories.

    Attributes:
        policy: label of the policy.
        before, after: mean latency in the first and second directory, each over round robin's in
            the first, on the common workflows.
        change: the second against the first.
    """

    policy: str
    before: float
    after: float
    change: Versus


@dataclass(frozen=True)
class Comparison:
    """The comparison of two directories.

    Attributes:
        changes: changes of the policies in both, in the order of the first one's means.
        made_with: differences in commits, machines and versions, one line each.
        left_out: what only one of them has, or has on other problems, one line each.
    """

    changes: list[Change]
    made_with: list[str]
    left_out: list[str]


def compare(first: Path, second: Path) -> Comparison:
    """Compare two result directories.

    Both latencies of a workflow are divided by round robin's in the first directory, so that a
    change of round robin itself is not mistaken for one of the policy. Jobs on different problems
    (another workload hash) are left out and listed.

    Raises:
        InputError: a directory has no finished jobs, or the two have nothing in common.
    """
    before, after = read_sweep(first), read_sweep(second)
    same, left_out = _common_cells(before, after)
    old, new = _rows(before, same), _rows(after, same)
    joined = old.join(new["latency"].rename("latency_after"), how="inner").reset_index()
    if joined.empty:
        raise InputError(
            f"no policy ran on the same problems as in {first}",
            source=second,
            remedy="compare sweeps of the same suites, clusters and seeds",
        )
    joined = joined.assign(
        a=ratios(joined["latency_after"].to_numpy(), joined["rr_latency"].to_numpy()),
        b=ratios(joined["latency"].to_numpy(), joined["rr_latency"].to_numpy()),
    )
    groups = {str(name): group for name, group in joined.groupby("policy")}
    order = sorted(groups, key=lambda name: (groups[name]["b"].mean(), name))
    found = corrected({name: versus(groups[name]) for name in order})
    changes = [
        Change(name, float(groups[name]["b"].mean()), float(groups[name]["a"].mean()), change)
        for name, change in found.items()
    ]
    return Comparison(changes, _differences(before, after), left_out)


def _rows(sweep: Sweep, cells: set[tuple[str, int]]) -> pd.DataFrame:
    kept = [cell in cells for cell in zip(sweep.rows["suite"], sweep.rows["seed"], strict=True)]
    return sweep.rows[kept].set_index(["policy", *WORKFLOW])


def _common_cells(before: Sweep, after: Sweep) -> tuple[set[tuple[str, int]], list[str]]:
    """Find suites and seeds that both ran on the same problems, and a line for every other one."""
    hashes = [_workloads(sweep) for sweep in (before, after)]
    same, lines = set(), []
    for cell in sorted(hashes[0].keys() | hashes[1].keys()):
        suite, seed = cell
        one, other = hashes[0].get(cell), hashes[1].get(cell)
        if one == other:
            same.add(cell)
        elif one is None or other is None:
            lines.append(f"{suite} s{seed}: only in {(after if one is None else before).root}")
        else:
            lines.append(f"{suite} s{seed}: other problems ({one} and {other})")
    for here, there in ((before, after), (after, before)):
        lines += [
            f"{policy}: only in {here.root}"
            for policy in sorted(set(here.families) - set(there.families))
        ]
    return same, lines


def _workloads(sweep: Sweep) -> dict[tuple[str, int], str]:
    """Return the workload hash by suite label and seed."""
    jobs = sweep.rows.drop_duplicates("job").set_index("job")["suite"]
    return {
        (str(jobs[str(job.directory)]), result.seed): result.workload_hash
        for job, result in sweep.finished
    }


def _differences(before: Sweep, after: Sweep) -> list[str]:
    one, other = _made_with(before), _made_with(after)
    return [
        f"{what}: {', '.join(sorted(one[what]))} → {', '.join(sorted(other[what]))}"
        for what in [*one, *other.keys() - one.keys()]
        if one[what] != other[what]
    ]


def _made_with(sweep: Sweep) -> defaultdict[str, set[str]]:
    """Collect commits, machines and package versions; ``none`` for a package not installed."""
    found: defaultdict[str, set[str]] = defaultdict(lambda: {"none"})
    for _, result in sweep.finished:
        facts = {"commit": result.git_sha or "unknown", "machine": result.machine}
        for what, value in (facts | result.versions).items():
            found.setdefault(what, set()).add(value)
    return found


def print_comparison(comparison: Comparison, first: Path, second: Path) -> None:
    """Print a table of the changes, and what else differs."""
    heads = ("policy", "n", "before", "after", "change [95 % CI]", "earlier", "p")
    rows = [
        (
            row.policy,
            str(row.change.n),
            f"{row.before:.3f}",
            f"{row.after:.3f}",
            row.change.difference.text("+.1f", " %"),
            number(row.change.win_rate, ".0%"),
            number(row.change.p_value, ".2g"),
        )
        for row in comparison.changes
    ]
    print_table(heads, rows, title=f"{first} → {second}")
    print("before, after: latency / RoundRobin before; earlier: share of workflows, ties half")
    for line in comparison.made_with:
        print(printable(f"differs: {line}"))
    for line in comparison.left_out:
        print(printable(f"left out: {line}"))
