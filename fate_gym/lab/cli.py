"""The ``fate-gym`` command: the scripts' verbs for those who installed the package."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fate_gym.errors import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run with a command line (default: this process's); returns the exit code.

    0 done, 1 a job failed, 2 bad input.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["evaluate"]:
        # Hydra has a command line of its own, --help included.
        from fate_gym.lab import evaluate

        return evaluate.main(arguments[1:])
    options = _parser().parse_args(arguments)
    try:
        if options.verb == "report":
            return _report(options.directory)
        if options.verb == "policies":
            return _policies()
        return _validate(options.file)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def report_main(arguments: Sequence[str] | None = None) -> int:
    """``python scripts/report.py DIRECTORY``; returns the exit code."""
    return main(["report", *(sys.argv[1:] if arguments is None else arguments)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fate-gym", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("evaluate", help="run a policy on a suite, or a sweep of them (Hydra)")
    report = verbs.add_parser("report", help="tables and figures of a sweep")
    report.add_argument("directory", type=Path, help="directory of the sweep, e.g. runs/default")
    verbs.add_parser("policies", help="list the policies")
    validate = verbs.add_parser("validate", help="check a problem file and summarise it")
    validate.add_argument("file", type=Path, help="problem as JSON")
    return parser


def _report(directory: Path) -> int:
    from fate_gym.lab.console import print_summary
    from fate_gym.lab.report import make_report

    report = make_report(directory)
    print_summary(report.summary, strongest=report.strongest)
    for line in report.sweep.gaps():
        print(line)
    print(f"report: {directory / 'report.md'}")
    return 0


def _policies() -> int:
    from rich.console import Console
    from rich.table import Table

    from policies.registry import policy_specs

    table = Table()
    for heading in ("policy", "family", "source"):
        table.add_column(heading)
    for spec in policy_specs().values():
        table.add_row(spec.name, spec.family, spec.source)
    Console().print(table)
    return 0


def _validate(file: Path) -> int:
    from fate_gym.problem import load_problem

    problem = load_problem(file)
    queries = sum(s.queries for w in problem.workflows for s in w.stages if s.kind != "tool")
    edges = sum(len(workflow.edges) for workflow in problem.workflows)
    models = sorted({s.model for w in problem.workflows for s in w.stages if s.model})
    print(f"{file}: valid")
    print(f"  problem    {problem.id}")
    print(
        f"  workflows  {len(problem.workflows)}: {problem.stage_count} stages, {edges} edges, "
        f"{queries} queries"
    )
    print(f"  models     {', '.join(models) or 'none'}")
    print(f"  cluster    {problem.cluster.id}: {len(problem.cluster.devices)} devices")
    return 0


if __name__ == "__main__":
    sys.exit(main())
