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
    from fate_gym.lab.describe.figure import check_figure_path
    from fate_gym.lab.errors import unwritable
    from fate_gym.lab.evaluate import compile_policies
    from fate_gym.lab.jobs.schedules import Schedule, shard_rows
    from fate_gym.lab.report.figures.gantt import gantt_figure
    from fate_gym.lab.report.figures.style import save_figure
    from fate_gym.lab.tables import print_table
    from fate_gym.sim import Simulator
    from fate_gym.workloads import build_suite, load_cluster, load_suite
    from policies import make_policy

    begun = perf_counter()
    check_figure_path(figure)
    compile_policies(POLICIES)
    suite = load_suite(SUITE)
    problem = build_suite(suite, load_cluster(suite.cluster), seed=0)[PROBLEM]
    simulator = Simulator(problem)
    traces = {name: simulator.run(make_policy(name), seed=0) for name in POLICIES}
    first = traces[POLICIES[0]].makespan
    cluster = problem.cluster
    title = f"{problem.id}: {problem.stage_count} stages on {len(cluster.devices)} GPUs"
    rows = [
        (name, f"{trace.makespan:.1f} s", f"{trace.makespan / first:.2f}")
        for name, trace in traces.items()
    ]
    print(title)
    print_table(("policy", "makespan", "/ round_robin"), rows)
    schedules = {
        name: Schedule(problem.id, trace.device_ids, shard_rows(trace, name))
        for name, trace in traces.items()
    }
    try:
        save_figure(gantt_figure(schedules, title=title), figure, dpi=110)
    except OSError as error:
        raise unwritable(figure, error, remedy="choose another place with --figure") from None
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
