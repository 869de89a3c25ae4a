"""Verbs that run jobs and show their results."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import click

from fate_gym.lab.cli.completion import complete_evaluate, complete_train
from fate_gym.lab.cli.options import PATH, overrides

_HYDRA: dict[str, Any] = {
    # Hydra parses these command lines itself, --help included.
    "context_settings": {"ignore_unknown_options": True, "allow_interspersed_args": False},
    "add_help_option": False,
}

# Each verb imports what it needs, so that the others start faster.


@click.command(**_HYDRA, short_help="Run a policy on a suite, or a sweep of such jobs.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, shell_complete=complete_evaluate)
def evaluate(words: tuple[str, ...]) -> int:
    """Run a policy on a suite, or a sweep of such jobs (Hydra)."""
    from fate_gym.lab.evaluate import main

    _import_from_here()
    return main(words)


@click.command(**_HYDRA, short_help="Train an agent, or a sweep of agents.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, shell_complete=complete_train)
def train(words: tuple[str, ...]) -> int:
    """Train an agent, or a sweep of agents (Hydra)."""
    from fate_gym.lab.training.app import main

    _import_from_here()
    return main(words)


def _import_from_here() -> None:
    """Make the user's policies in the working directory importable, after installed packages."""
    here = os.getcwd()  # noqa: PTH109  as sys.path has it
    if here not in sys.path:
        sys.path.append(here)


@click.command()
@click.argument("directory", type=PATH)
@click.option(
    "--baseline-from", type=PATH, metavar="DIRECTORY",
    help="Compare with the best baselines of another sweep, e.g. on the training split.",
)  # fmt: skip
def report(directory: Path, baseline_from: Path | None) -> None:
    """Print the tables of a sweep, and write its report.

    DIRECTORY is that of the sweep, e.g. runs/default.
    """
    from fate_gym.lab.report.summary_table import print_summary
    from fate_gym.lab.report.write import make_report

    made = make_report(directory, baseline_from=baseline_from)
    print_summary(made)
    from fate_gym.errors import printable

    for line in made.sweep.gaps():
        print(printable(line))
    print(f"report: {directory / 'report.html'}")


@click.command()
@click.argument("first", type=PATH)
@click.argument("second", type=PATH)
def compare(first: Path, second: Path) -> None:
    """Say what changed between the results of two sweeps.

    FIRST and SECOND are directories of sweeps, e.g. runs/before and runs/after.
    """
    from fate_gym.lab.report.compare import compare as compared
    from fate_gym.lab.report.compare import print_comparison

    print_comparison(compared(first, second), first, second)


@click.command()
@overrides(required=True)
@click.option("--figure", type=PATH, help="Also draw DAGs and length histograms to this file.")
def describe(overrides: Sequence[str], figure: Path | None) -> None:
    """Show what a suite holds, as a table and pictures.

    OPTION is as in evaluate: suite=NAME, cluster=NAME, seed=N, ...
    """
    from fate_gym.lab.describe.suite import describe_suite

    describe_suite(overrides, figure)


@click.command()
@overrides(required=True)
@click.option("--session", help="Its name. Default: the one with most tokens prefilled again.")
@click.option(
    "--figure", type=PATH, default=Path("session.png"), show_default=True, help="The file."
)
def session(overrides: Sequence[str], session: str | None, figure: Path) -> None:
    """Draw which turns of a session prefill tokens again, under several policies.

    OPTION is as in evaluate: suite=NAME, seed=N, policy=NAME,NAME, ...
    """
    from fate_gym.lab.cli.words import policies_of
    from fate_gym.lab.describe.session import draw_session

    others, policies = policies_of(overrides, ("round_robin", "eft", "fate"))
    draw_session(others, policies=policies, session=session, figure=figure)


@click.command()
@click.argument("directory", type=PATH)
@click.option("--mode", type=click.Choice(("offline", "online")), default="offline")
@click.option("--project", default="fate-gym", show_default=True, help="Of W&B.")
def track(directory: Path, mode: Literal["offline", "online"], project: str) -> int:
    """Log the finished jobs of a sweep to W&B again.

    DIRECTORY is that of the sweep, e.g. runs/default.
    """
    from fate_gym.errors import printable
    from fate_gym.lab.config import TrackingConfig
    from fate_gym.lab.tracking.job import track_again

    failed = False
    for title, warning in track_again(directory, TrackingConfig(mode=mode, project=project)):
        failed |= warning is not None
        print(printable(f"{title}: {warning or 'logged'}"), flush=True)
    return int(failed)


@click.command("wandb-view")
@click.argument("directory", type=PATH)
@click.option("--entity", required=True, help="W&B user or team.")
@click.option("--project", default="fate-gym", show_default=True, help="Of W&B.")
@click.option("--dry-run", is_flag=True, help="Only print the definition of the view.")
def wandb_view(directory: Path, entity: str, project: str, dry_run: bool) -> int:
    """Save a view of a sweep's runs in W&B.

    DIRECTORY is that of the sweep, e.g. runs/default.
    """
    from fate_gym.lab.tracking.view import save_view

    return save_view(directory, entity=entity, project=project, dry_run=dry_run)
