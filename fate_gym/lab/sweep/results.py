"""The results of a sweep: all jobs below a directory, as two tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from fate_gym.errors import InputError
from fate_gym.lab.jobs.directory import DECISIONS, WORKFLOWS
from fate_gym.lab.jobs.find import Job, find_jobs
from fate_gym.lab.jobs.result import JobResult
from fate_gym.lab.sweep.command import saved_cells
from fate_gym.lab.sweep.labels import policy_labels, suite_labels
from fate_gym.sim.groups import ALL
from policies.registry import policy_specs

WORKFLOW = ["suite", "problem", "workflow", "seed"]
"""Columns that together identify a workflow."""


@dataclass(frozen=True)
class Sweep:
    """The contents of a sweep's directory.

    Attributes:
        root: the directory.
        jobs: every job, finished or not.
        rows: the workflows of all finished jobs; ``policy`` and ``suite`` are labels that
            distinguish variants of a policy or suite, ``job`` is the run directory.
        decisions: milliseconds of every decision, with the ``policy`` label.
        families: family of each policy label.
        boosted: labels of policies that choose devices by state-aware estimates: the parameter
            ``boosted`` is on, or they see ``estimates`` by ``conf/policy``.
        labels: policy label of each finished job, by directory.
    """

    root: Path
    jobs: list[Job]
    rows: pd.DataFrame
    decisions: pd.DataFrame
    families: dict[str, str]
    boosted: frozenset[str]
    labels: dict[Path, str]

    def of_suite(self, suite: str) -> Sweep:
        """Restrict the tables to one suite."""
        rows, decisions = (table[table["suite"] == suite] for table in (self.rows, self.decisions))
        return replace(self, rows=rows, decisions=decisions)

    def of_family(self, family: str) -> Sweep:
        """Restrict the rows to workflows of one family."""
        return replace(self, rows=self.rows[self.rows["family"].astype(str) == family])

    def option(self, job: Job, path: str) -> Any:
        """Return a job's value of an option such as ``policy.params.horizon``; None: not set."""
        value: Any = job.config
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    @property
    def finished(self) -> list[tuple[Job, JobResult]]:
        return [(job, job.result) for job in self.jobs if job.result is not None]

    def gaps(self) -> list[str]:
        """Return one line for every job that failed, is damaged, or is missing.

        A job is missing if the sweep's commands planned it, or if it would complete the grid of all
        suites x policies x seeds that occur.
        """
        jobs = self.jobs
        failed = [job for job in jobs if job.state == "failed"]
        damaged = [job for job in jobs if job.state == "damaged"]
        return [
            *(f"damaged: {job.suite}/{job.policy}/s{job.seed}: {job.damage}" for job in damaged),
            *(f"failed: {job.suite}/{job.policy}/s{job.seed}: {job.failure}" for job in failed),
            *self._missing(),
        ]

    def _missing(self) -> list[str]:
        """Return one line for every cell with fewer jobs than planned."""
        known = Counter(
            f"{j.suite}/{j.policy}/s{j.seed}" for j in self.jobs if j.state != "unfinished"
        )
        suites, names, seeds = (
            sorted({getattr(job, axis) for job in self.jobs})
            for axis in ("suite", "policy", "seed")
        )
        wanted = {f"{s}/{p}/s{n}": 1 for s, p, n in product(suites, names, seeds)}
        for cell, number in saved_cells(self.root).items():
            wanted[cell] = max(number, wanted.get(cell, 0))
        lacking = {cell: number - known[cell] for cell, number in wanted.items()}
        return [
            f"missing: {cell}" + (f" ({number} jobs)" if number > 1 else "")
            for cell, number in lacking.items()
            if number > 0
        ]


def read_sweep(root: Path) -> Sweep:
    """Read every job below a directory.

    Raises:
        InputError: there is no directory, no job or no finished job, or jobs with the same suite
            and seed ran different workloads.
    """
    jobs = find_jobs(root)
    done = [(job, job.result) for job in jobs if job.result is not None]
    if not done:
        damage = next((f" ({job.damage})" for job in jobs if job.damage is not None), "")
        raise InputError(
            f"none of the {len(jobs)} jobs in this directory has finished{damage}",
            source=root,
            remedy="re-run the sweep's command",
        )
    _check_workloads(root, done)
    results = [result for _, result in done]
    policies, suites = policy_labels(results), suite_labels(results)
    rows, decisions = [], []
    for (job, _), policy, suite in zip(done, policies, suites, strict=True):
        table = by_draw(job.table(WORKFLOWS))
        rows.append(table.assign(policy=policy, suite=suite, job=str(job.directory)))
        decisions.append(job.table(DECISIONS).assign(policy=policy, suite=suite))
    labelled = list(zip(policies, results, strict=True))
    return Sweep(
        root=root,
        jobs=jobs,
        rows=pd.concat(rows, ignore_index=True),
        decisions=pd.concat(decisions, ignore_index=True),
        families={policy: result.family for policy, result in labelled},
        boosted=frozenset(policy for policy, result in labelled if is_boosted(result)),
        labels={job.directory: policy for (job, _), policy in zip(done, policies, strict=True)},
    )


def is_boosted(result: JobResult) -> bool:
    """Whether a policy chooses devices by state-aware estimates."""
    spec = policy_specs().get(result.policy)
    seen = set() if spec is None else {"estimates", ALL}.intersection(spec.sees)
    return bool(result.params.get("boosted") or seen)


def by_draw(rows: pd.DataFrame) -> pd.DataFrame:
    """Set ``instance`` to the unit of independent draws, as intervals and tests need it.

    For a single workflow that is its graph: seeds change its attributes, not its shape. Workflows
    of a stream share arrivals and queues, which every seed draws anew: the unit is the stream.
    """
    streams = rows["workflows"] > 1
    named = rows["instance"] + "/s" + rows["seed"].astype(str)
    return rows.assign(instance=rows["instance"].where(~streams, named))


def _check_workloads(root: Path, done: Sequence[tuple[Job, JobResult]]) -> None:
    first: dict[tuple[str, int], tuple[Path, str]] = {}
    for job, result in done:
        cell = (result.suite_hash, result.seed)
        directory, workload = first.setdefault(cell, (job.directory, result.workload_hash))
        if workload != result.workload_hash:
            raise InputError(
                f"jobs of suite {result.suite!r}, seed {result.seed} ran different problems: "
                f"{directory.relative_to(root)} and {job.directory.relative_to(root)}",
                source=root,
                remedy="the code changed between them: delete the older ones and run them again",
            )
