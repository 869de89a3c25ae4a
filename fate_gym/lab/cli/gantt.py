"""``fate-gym gantt``: the schedules of several policies on one problem."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from fate_gym.lab.cli.options import PATH, overrides


@click.command()
@overrides()
@click.option("--problem", default=0, show_default=True, help="Number of the suite's problem.")
@click.option("--figure", type=PATH, default=Path("gantt.png"), show_default=True, help="The file.")
def gantt(overrides: Sequence[str], problem: int, figure: Path) -> None:
    """Draw the schedules of several policies on one problem.

    OPTION is as in evaluate: suite=NAME (default smoke), policy=NAME,NAME (default round_robin,
    heft, fate), seed=N, cluster=NAME, ...
    """
    from fate_gym.lab.cli.words import policies_of
    from fate_gym.lab.describe.schedules import draw_schedules
    from fate_gym.lab.describe.suite import compose_problem

    words, names = policies_of(overrides, ("round_robin", "heft", "fate"))
    chosen, seed = compose_problem(words, problem)
    draw_schedules(chosen, names, seed, figure)
    print(f"figure: {figure}")
