"""Provenance of a report's results: commands, machines, commits and versions."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Sequence

from fate_gym.lab.jobs.result import JobResult
from fate_gym.lab.report.compute import Report
from fate_gym.lab.sweep.command import saved_commands
from fate_gym.lab.sweep.results import Sweep
from fate_gym.problem.problem import USUAL_OBJECTIVE
from fate_gym.workloads import suite_class

_OBJECTIVES = {
    "makespan": "the makespan",
    "latency": "mean latency",
    "slowdown": "mean slowdown",
    "p95": "the tail of latencies",
    "deadlines": "mean lateness",
}
_EVALUATE = ("fate-gym", "evaluate")


def commands(report: Report) -> list[str]:
    """Return the commands that regenerate the results and the report.

    These are the stored commands of sweeps; for single jobs, one per set of further options.
    """
    sweep = report.sweep
    lines = [one_line([*_EVALUATE, *words]) for words in saved_commands(sweep.root)]
    last = ["fate-gym", "report", str(sweep.root)]
    if report.baseline_source is not None:
        last += ["--baseline-from", str(report.baseline_source)]
    return [*(lines or _job_commands(sweep)), one_line(last)]


def one_line(words: Sequence[str]) -> str:
    """Format a command to copy in one line: a line break would end a LaTeX comment or a fence.

    Words with such characters are put in ``$'...'`` quotes with escapes, for bash and zsh.
    """
    return " ".join(shlex.quote(word) if word.isprintable() else _quoted(word) for word in words)


def _quoted(word: str) -> str:
    escaped = "".join(
        f"\\{one}" if one in "\\'" else one if one.isprintable() else _escape(one) for one in word
    )
    return f"$'{escaped}'"


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x80 else f"\\U{code:08x}"


def _job_commands(sweep: Sweep) -> list[str]:
    groups: dict[tuple[str, ...], list[JobResult]] = defaultdict(list)
    for _, result in sweep.finished:
        further = tuple(
            option
            for option in result.overrides
            if option.split("=", 1)[0].split(".")[0]
            not in {"suite", "policy", "seed", "name", "tracking", "paths", "sweep", "trace"}
            or option.startswith(("suite.", "policy."))
        )
        groups[further].append(result)
    lines = []
    for further, group in groups.items():
        axes = {
            "suite": sorted({result.suite for result in group}),
            "policy": sorted({result.policy for result in group}),
            "seed": [str(seed) for seed in sorted({result.seed for result in group})],
        }
        many = ["-m"] if any(len(axis) > 1 for axis in axes.values()) else []
        options = [f"name={group[0].name}", *(f"{key}={','.join(v)}" for key, v in axes.items())]
        lines.append(one_line([*_EVALUATE, *many, *options, *further]))
    return lines


def what(report: Report) -> str:
    """Describe in one line what was run."""
    sweep = report.sweep
    origins = "; ".join(_origins(sweep))
    return (
        f"{origins[:1].upper()}{origins[1:]}: {len(sweep.finished)} jobs, "
        f"{len(sweep.rows)} workflows; {devices(sweep)}; {objectives(sweep)}"
    )


def _origins(sweep: Sweep) -> list[str]:
    """Describe which parts of the workflows are measured and modelled, by source of the suites."""
    found = set()
    for job, _ in sweep.finished:
        source = sweep.option(job, "suite.source")
        suite = {} if source is None else {"source": source}
        found.add(suite_class(suite, source=job.directory).origin)
    return sorted(found)


def objectives(sweep: Sweep) -> str:
    """Describe the planners' objective, e.g. ``planners minimise mean slowdown``."""
    suites: dict[str, dict[str, None]] = defaultdict(dict)
    for job, result in sweep.finished:
        suites[_OBJECTIVES[sweep.option(job, "suite.objective") or USUAL_OBJECTIVE]][
            result.suite
        ] = None
    if len(suites) == 1:
        return f"planners minimise {next(iter(suites))}"
    of_suites = (f"{objective} ({', '.join(names)})" for objective, names in suites.items())
    return f"planners minimise {'; '.join(of_suites)}"


def devices(sweep: Sweep) -> str:
    """Describe the execution of the devices, e.g. ``exclusive devices``."""
    kinds = {kind: None for _, result in sweep.finished for kind in _kinds(result)}
    return f"{' and '.join(sorted(kinds, reverse=True))} devices"


def _kinds(result: JobResult) -> tuple[str, ...]:
    return ("exclusive", "batching") if result.execution == "several" else (result.execution,)


def origin_lines(sweep: Sweep) -> list[str]:
    """List the machines, commits and versions with which the results were made."""
    made = [result for _, result in sweep.finished]
    versions = {", ".join(f"{name} {v}" for name, v in sorted(r.versions.items())) for r in made}
    return [
        *(f"machine: {machine}" for machine in sorted({r.machine for r in made})),
        *(f"commit: {sha}" for sha in sorted({r.git_sha or "unknown" for r in made})),
        *(f"versions: {text}" for text in sorted(versions)),
    ]
