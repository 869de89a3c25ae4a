"""``fate-gym demo``: one problem under three policies, as a table and a figure, in seconds."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path
from time import perf_counter

import click

from fate_gym.lab.cli.options import PATH

SUITE, PROBLEM = "smoke", 1
POLICIES = ("round_robin", "heft", "fate")


@click.command()
@click.option(
    "--figure", type=PATH, default=Path("demo.png"), show_default=True, help="The picture."
)
@click.option(
    "--open/--no-open", "show", default=True,
    help="Open the picture where there is a display. Default: open.",
)  # fmt: skip
def demo(figure: Path, show: bool) -> None:
    """Play one workflow with three policies, and draw their schedules."""
    from fate_gym.lab.describe.schedules import draw_schedules
    from fate_gym.lab.describe.suite import compose_problem

    begun = perf_counter()
    problem, seed = compose_problem([f"suite={SUITE}"], PROBLEM)
    draw_schedules(problem, POLICIES, seed, figure)
    print(f"figure: {figure} ({perf_counter() - begun:.0f} s)")
    print("next: fate-gym evaluate -m suite=quick policy=round_robin,heft,fate name=first")
    if show and has_display():
        webbrowser.open(figure.resolve().as_uri())


def has_display() -> bool:
    """Whether a window can be shown; without one, a text-mode browser might take over."""
    if os.environ.get("SSH_CONNECTION") and not os.environ.get("DISPLAY"):
        return False
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
