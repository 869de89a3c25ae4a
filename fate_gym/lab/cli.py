"""The ``fate-gym`` command: the scripts' verbs for those who installed the package."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from fate_gym.errors import InputError, InputWarning, printable
from fate_gym.lab.calibrate.arguments import add_arguments as add_calibrate
from fate_gym.lab.replay.arguments import add_arguments as add_replay


def main(arguments: Sequence[str] | None = None) -> int:
    """Run with a command line (default: this process's); returns the exit code.

    0 done, 1 a job failed, 2 bad input.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["evaluate"]:
        # Hydra has a command line of its own, --help included.
        from fate_gym.lab.evaluate import main as evaluate

        return evaluate(arguments[1:])
    options = vars(_parser().parse_args(arguments))
    verb = options.pop("verb")
    with warnings.catch_warnings():
        warnings.simplefilter("always", InputWarning)
        warnings.showwarning = _say
        try:
            return _VERBS[verb](**options) or 0
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2


def _say(message: Warning | str, *_where: Any, **_more: Any) -> None:
    """A warning in one line, as errors are."""
    print(f"warning: {printable(message)}", file=sys.stderr)


def report_main(arguments: Sequence[str] | None = None) -> int:
    """``python scripts/report.py DIRECTORY``; returns the exit code."""
    return main(["report", *(sys.argv[1:] if arguments is None else arguments)])


def session_main(arguments: Sequence[str] | None = None) -> int:
    """``python scripts/session_figure.py OPTION ...``; returns the exit code."""
    return main(["session", *(sys.argv[1:] if arguments is None else arguments)])


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
    imported = verbs.add_parser("import", help="check a workflow or trace and make a problem of it")
    imported.add_argument(
        "file", type=Path,
        help="a workflow or trace of any format in docs/workloads.md, found out by what it holds",
    )  # fmt: skip
    imported.add_argument("--seed", type=int, default=0, help="of the role mapping (default 0)")
    imported.add_argument("--roles", type=Path, help="YAML with LLM attributes by task type")
    imported.add_argument("--model", help="of every task, where the file gives tokens")
    imported.add_argument("--template", type=Path, help="only write a file for --roles to fill in")
    imported.add_argument("--cluster", default="mixed_12", help="of the problem (default mixed_12)")
    imported.add_argument("-o", "--output", type=Path, help="write the problem as JSON")
    imported.add_argument(
        "--no-inferred-prefixes", dest="infer_prefixes", action="store_false",
        help="prompts of traces that do not say what they share (OpenTelemetry) share nothing",
    )  # fmt: skip
    verbs.add_parser("schema", help="print the JSON Schema of a line of agent traces")
    described = verbs.add_parser("describe", help="what a suite holds, as a table and pictures")
    described.add_argument(
        "options", nargs="+", metavar="OPTION", help="as of evaluate: suite=NAME, seed=N, ..."
    )
    described.add_argument("--figure", type=Path, help="draw DAGs and length histograms to a file")
    drawn = verbs.add_parser("session", help="draw who prefills what again in a session")
    drawn.add_argument(
        "overrides", nargs="+", metavar="OPTION", help="as of evaluate: suite=NAME, seed=N, ..."
    )
    drawn.add_argument("--policies", nargs="+", default=["round_robin", "eft", "fate"])
    drawn.add_argument("--session", help="its name (default: the one that prefills most again)")
    drawn.add_argument("--figure", type=Path, default=Path("session.png"), help="the file")
    plan = verbs.add_parser("plan", help="what to start now, from a snapshot of a cluster")
    plan.add_argument("file", type=Path, help="snapshot as JSON, e.g. docs/examples/snapshot.json")
    plan.add_argument("--policy", default="fate_rollout", help="planner (default fate_rollout)")
    plan.add_argument("--objective", help="of the planner: makespan, latency, slowdown, p95, …")
    add_calibrate(verbs.add_parser("calibrate", help="measure the cost model on your own GPU"))
    add_replay(verbs.add_parser("replay", help="execute a simulated schedule on your own GPU"))
    return parser


# Each verb imports what it needs: the others start without it.


def _report(directory: Path, baseline_from: Path | None) -> None:
    from fate_gym.lab.report.summary_table import print_summary
    from fate_gym.lab.report.write import make_report

    report = make_report(directory, baseline_from=baseline_from)
    print_summary(report)
    for line in report.sweep.gaps():
        print(printable(line))
    print(f"report: {directory / 'report.html'}")


def _compare(first: Path, second: Path) -> None:
    from fate_gym.lab.report.compare import compare, print_comparison

    print_comparison(compare(first, second), first, second)


def _track(directory: Path, mode: Literal["offline", "online"], project: str) -> int:
    from fate_gym.lab.config import TrackingConfig
    from fate_gym.lab.tracking.job import track_again

    failed = False
    for title, warning in track_again(directory, TrackingConfig(mode=mode, project=project)):
        failed |= warning is not None
        print(printable(f"{title}: {warning or 'logged'}"), flush=True)
    return int(failed)


def _policies() -> None:
    from fate_gym.lab.tables import print_table
    from policies.registry import policy_specs

    rows = [
        (spec.name, spec.family, spec.source, " ".join(spec.sees) or "requests only")
        for spec in policy_specs().values()
    ]
    print_table(("policy", "family", "source", "sees"), rows, left=4)


def _validate(file: Path) -> None:
    from fate_gym.lab.describe.problem import validate

    validate(file)


def _import(file: Path, output: Path | None, template: Path | None, **options: Any) -> None:
    from fate_gym.lab.describe.problem import ImportOptions, import_file

    import_file(file, ImportOptions(**options), output=output, template=template)


def _schema() -> None:
    from fate_gym.workloads.formats.agent_traces import SCHEMA

    print(SCHEMA.read_text(encoding="utf-8"), end="")


def _describe(options: Sequence[str], figure: Path | None) -> None:
    from fate_gym.lab.describe.suite import describe_suite

    describe_suite(options, figure)


def _session(overrides: Sequence[str], **options: Any) -> None:
    from fate_gym.lab.describe.session import draw_session

    draw_session(overrides, **options)


def _plan(file: Path, policy: str, objective: str | None) -> None:
    from policies.fate import plan

    params = {} if objective is None else {"objective": objective}
    placements = plan(file, policy=policy, **params)
    print(json.dumps([placement.model_dump() for placement in placements], indent=1))


def _calibrate(**options: Any) -> None:
    from fate_gym.lab.calibrate.app import calibrate

    calibrate(**options)


def _replay(**options: Any) -> None:
    from fate_gym.lab.replay.app import replay

    replay(**options)


_VERBS: dict[str, Callable[..., int | None]] = {
    "report": _report,
    "compare": _compare,
    "track": _track,
    "policies": _policies,
    "validate": _validate,
    "import": _import,
    "schema": _schema,
    "describe": _describe,
    "session": _session,
    "plan": _plan,
    "calibrate": _calibrate,
    "replay": _replay,
}


if __name__ == "__main__":
    sys.exit(main())
