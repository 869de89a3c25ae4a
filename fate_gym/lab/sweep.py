"""Reads a sweep: every job below a directory, and labels that tell variants apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fate_gym.errors import InputError
from fate_gym.lab import results
from fate_gym.lab.results import Job, JobResult, find_jobs
from policies.registry import policy_specs

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Sweep:
    """What a sweep's directory holds.

    Attributes:
        root: the directory.
        jobs: every job, finished or not.
        rows: the workflows of all finished jobs; ``policy`` and ``suite`` are labels that tell
            variants of a policy or a suite apart, ``job`` is the run directory.
        decisions: milliseconds of every decision, with the ``policy`` label.
        families: family of each policy label.
        boosted: the policy labels whose parameter ``boosted`` is on.
        labels: label of the policy of each finished job, by directory.
    """

    root: Path
    jobs: list[Job]
    rows: pd.DataFrame
    decisions: pd.DataFrame
    families: dict[str, str]
    boosted: frozenset[str]
    labels: dict[Path, str]

    def option(self, job: Job, path: str) -> Any:
        """The value of an option such as ``policy.params.horizon`` in a job; None without it."""
        import yaml

        value = yaml.safe_load((job.directory / results.CONFIG).read_text(encoding="utf-8"))
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    @property
    def finished(self) -> list[tuple[Job, JobResult]]:
        return [(job, job.result) for job in self.jobs if job.result is not None]

    def gaps(self) -> list[str]:
        """One line for every cell without a result, of all seen suites x policies x seeds."""
        jobs = self.jobs
        finished = {(job.suite, job.policy, job.seed) for job in jobs if job.result is not None}
        lines = [
            f"failed: {job.suite}/{job.policy}/s{job.seed}: {job.failure}"
            for job in jobs
            if job.state == "failed"
        ]
        told = {(job.suite, job.policy, job.seed) for job in jobs if job.state == "failed"}
        grid = product(
            sorted({job.suite for job in jobs}),
            sorted({job.policy for job in jobs}),
            sorted({job.seed for job in jobs}),
        )
        for cell in grid:
            if cell not in finished and cell not in told:
                suite, policy, seed = cell
                lines.append(f"missing: {suite}/{policy}/s{seed}")
        return lines


def read_sweep(root: Path) -> Sweep:
    """Read every job below a directory.

    Raises:
        InputError: no directory, no jobs, no finished job, or jobs that ran different workloads
            under one name.
    """
    import pandas as pd

    jobs = find_jobs(root)
    done = [(job, job.result) for job in jobs if job.result is not None]
    if not done:
        raise InputError(
            f"none of the {len(jobs)} jobs in this directory has finished",
            source=root,
            remedy="run the sweep's command again",
        )
    _check_workloads(root, done)
    policies = policy_labels([result for _, result in done])
    suites = suite_labels([result for _, result in done])
    frames, decisions = [], []
    for (job, _), policy, suite in zip(done, policies, suites, strict=True):
        table = by_draw(job.table(results.WORKFLOWS))
        frames.append(table.assign(policy=policy, suite=suite, job=str(job.directory)))
        decisions.append(job.table(results.DECISIONS).assign(policy=policy, suite=suite))
    return Sweep(
        root=root,
        jobs=jobs,
        rows=pd.concat(frames, ignore_index=True),
        decisions=pd.concat(decisions, ignore_index=True),
        families={p: result.family for p, (_, result) in zip(policies, done, strict=True)},
        boosted=frozenset(
            p for p, (_, result) in zip(policies, done, strict=True) if result.params.get("boosted")
        ),
        labels={job.directory: policy for (job, _), policy in zip(done, policies, strict=True)},
    )


def by_draw(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows whose ``instance`` says what was drawn independently, as intervals and tests need it.

    A workflow alone is drawn by its graph: seeds change its attributes, not its shape. Workflows of
    a stream share arrivals and queues, which every seed draws anew: the stream is the draw.
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


def policy_labels(jobs: Sequence[JobResult]) -> list[str]:
    """A label for each job's policy: its name, and the parameters in which its variants differ.

    Where one of the variants has the parameters of ``conf/policy``, that one has the plain name and
    the others say what they change.
    """
    variants: dict[str, list[dict[str, Any]]] = {}
    for result in jobs:
        known = variants.setdefault(result.policy, [])
        if result.params not in known:
            known.append(result.params)
    specs = policy_specs()
    labels = []
    for result in jobs:
        known = variants[result.policy]
        usual = specs[result.policy].params if result.policy in specs else None
        names = sorted({name for params in known for name in params})
        if usual in known:
            assert usual is not None
            differing = [name for name in names if result.params.get(name) != usual.get(name)]
        else:
            differing = [
                name for name in names if any(p.get(name) != known[0].get(name) for p in known)
            ]
        parts = [f"{name}={result.params.get(name)}" for name in differing]
        labels.append(f"{result.policy} ({', '.join(parts)})" if parts else result.policy)
    return labels


def suite_labels(jobs: Sequence[JobResult]) -> list[str]:
    """A label for each job's suite: its name, with the cluster or a hash where these differ."""
    clusters: dict[str, set[str]] = {}
    hashes: dict[tuple[str, str], set[str]] = {}
    for result in jobs:
        clusters.setdefault(result.suite, set()).add(result.cluster)
        hashes.setdefault((result.suite, result.cluster), set()).add(result.suite_hash)
    labels = []
    for result in jobs:
        label = result.suite
        if len(clusters[result.suite]) > 1:
            label += f"@{result.cluster}"
        if len(hashes[result.suite, result.cluster]) > 1:
            label += f"#{result.suite_hash[:4]}"
        labels.append(label)
    return labels
