"""The ``fate-gym`` command: the scripts' verbs for those who installed the package."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fate_gym.errors import InputError

if TYPE_CHECKING:
    from fate_gym.problem import Problem


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
            return _report(options.directory, options.baseline_from)
        if options.verb == "compare":
            return _compare(options.first, options.second)
        if options.verb == "track":
            return _track(options.directory, options.mode, options.project)
        if options.verb == "policies":
            return _policies()
        if options.verb == "import":
            return _import(options)
        if options.verb == "describe":
            return _describe(options.option, options.figure)
        if options.verb == "plan":
            return _plan(options.file, options.policy, options.objective)
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
    report.add_argument(
        "--baseline-from", type=Path, metavar="DIRECTORY",
        help="compare with the best baselines of another sweep, e.g. on the training split",
    )  # fmt: skip
    compared = verbs.add_parser("compare", help="what changed between two result directories")
    compared.add_argument("first", type=Path, help="directory of a sweep")
    compared.add_argument("second", type=Path, help="directory of another")
    tracked = verbs.add_parser("track", help="log the finished jobs of a sweep to W&B again")
    tracked.add_argument("directory", type=Path, help="directory of the sweep")
    tracked.add_argument("--mode", choices=("offline", "online"), default="offline")
    tracked.add_argument("--project", default="fate-gym", help="of W&B (default fate-gym)")
    verbs.add_parser("policies", help="list the policies")
    validate = verbs.add_parser("validate", help="check a problem file and summarise it")
    validate.add_argument("file", type=Path, help="problem as JSON")
    imported = verbs.add_parser("import", help="check a WfFormat file and make a problem of it")
    imported.add_argument("file", type=Path, help="workflow in WfFormat JSON 1.3, 1.4 or 1.5")
    imported.add_argument("--seed", type=int, default=0, help="of the role mapping (default 0)")
    imported.add_argument("--roles", type=Path, help="YAML with LLM attributes by task type")
    imported.add_argument("--cluster", default="mixed_12", help="of the problem (default mixed_12)")
    imported.add_argument("-o", "--output", type=Path, help="write the problem as JSON")
    described = verbs.add_parser("describe", help="what a suite holds, as a table and pictures")
    described.add_argument("option", nargs="+", help="as of evaluate: suite=NAME, seed=N, ...")
    described.add_argument("--figure", type=Path, help="draw DAGs and length histograms to a file")
    plan = verbs.add_parser("plan", help="what to start now, from a snapshot of a cluster")
    plan.add_argument("file", type=Path, help="snapshot as JSON, e.g. docs/examples/snapshot.json")
    plan.add_argument("--policy", default="fate_rollout", help="planner (default fate_rollout)")
    plan.add_argument("--objective", help="of the planner: makespan, latency, slowdown, p95, …")
    return parser


def _plan(file: Path, policy: str, objective: str | None) -> int:
    import json

    from policies.fate import plan

    params = {} if objective is None else {"objective": objective}
    placements = plan(file, policy=policy, **params)
    print(json.dumps([placement.model_dump() for placement in placements], indent=1))
    return 0


def _report(directory: Path, baseline_from: Path | None) -> int:
    from fate_gym.lab.console import print_summary
    from fate_gym.lab.report import make_report

    report = make_report(directory, baseline_from=baseline_from)
    print_summary(report.summary, strongest=report.strongest)
    for line in report.sweep.gaps():
        print(line)
    print(f"report: {directory / 'report.html'}")
    return 0


def _compare(first: Path, second: Path) -> int:
    from fate_gym.lab.compare import compare, print_comparison

    print_comparison(compare(first, second), first, second)
    return 0


def _track(directory: Path, mode: Literal["offline", "online"], project: str) -> int:
    from fate_gym.lab.config import TrackingConfig
    from fate_gym.lab.tracking import track_again

    failed = 0
    for title, warning in track_again(directory, TrackingConfig(mode=mode, project=project)):
        failed += warning is not None
        print(f"{title}: {warning or 'logged'}", flush=True)
    return 1 if failed else 0


def _policies() -> int:
    from rich.console import Console
    from rich.table import Table

    from policies.registry import policy_specs

    table = Table()
    for heading in ("policy", "family", "source", "sees"):
        table.add_column(heading)
    for spec in policy_specs().values():
        table.add_row(spec.name, spec.family, spec.source, " ".join(spec.sees) or "requests only")
    Console().print(table)
    return 0


def _validate(file: Path) -> int:
    from fate_gym.problem import load_problem

    _print_problem(file, load_problem(file))
    return 0


def _import(options: argparse.Namespace) -> int:
    from fate_gym.lab.results import write_text
    from fate_gym.problem import Problem, dump_problem
    from fate_gym.workloads import import_workflow, load_cluster, load_wfformat

    cluster = load_cluster(options.cluster)
    workflow = import_workflow(load_wfformat(options.file), options.seed, roles=options.roles)
    try:
        problem = Problem.build(cluster, [workflow], id=workflow.id)
    except InputError as error:
        raise error.at(options.file) from None
    if options.output is not None:
        try:
            write_text(options.output, dump_problem(problem) + "\n")
        except OSError as error:
            raise _unwritable(options.output, error) from None
    _print_problem(options.file, problem)
    if options.output is not None:
        print(f"problem: {options.output}")
    return 0


def _describe(overrides: Sequence[str], figure: Path | None) -> int:
    from fate_gym.lab.describe import (
        check_figure_path,
        compose_suite,
        describe,
        draw_suite,
        print_description,
    )
    from fate_gym.lab.job import cluster_name
    from fate_gym.workloads import build_suite

    if figure is not None:
        check_figure_path(figure)
    suite, cluster, seed = compose_suite(overrides)
    problems = build_suite(suite, cluster, seed)
    facts = describe(problems)
    title = f"{suite.name} on {cluster_name(problems)}, seed {seed}"
    print_description(title, problems, facts)
    if figure is not None:
        try:
            draw_suite(title, facts).savefig(figure, dpi=110)
        except OSError as error:
            raise _unwritable(figure, error) from None
        print(f"figure: {figure}")
    return 0


def _unwritable(file: Path, error: OSError) -> InputError:
    return InputError(
        f"cannot write the file ({error.strerror or error})",
        source=file,
        remedy="choose another place",
    )


def _print_problem(file: Path, problem: Problem) -> None:
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


if __name__ == "__main__":
    sys.exit(main())
