"""One problem under several policies: a table of their results, and their schedules as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fate_gym.lab.describe.figure import check_figure_path
from fate_gym.lab.errors import unwritable
from fate_gym.lab.jobs.compilation import compile_policies
from fate_gym.lab.jobs.schedules import schedule_of
from fate_gym.lab.report.figures.gantt import gantt_figure
from fate_gym.lab.report.figures.style import save_figure
from fate_gym.lab.tables import print_table
from fate_gym.problem import Problem
from fate_gym.sim import Simulator
from policies import make_policy


def draw_schedules(problem: Problem, policies: Sequence[str], seed: int, figure: Path) -> None:
    """Run a problem under each policy, print a table of the results and draw a Gantt chart.

    Args:
        problem: the problem.
        policies: names of the policies, from top to bottom.
        seed: seed of every run.
        figure: file to write, .png, .svg or .pdf.

    Raises:
        InputError: a policy is unknown, or the figure cannot be written.
    """
    check_figure_path(figure)
    made = {name: make_policy(name) for name in policies}
    compile_policies(policies)
    simulator = Simulator(problem)
    traces = {name: simulator.run(policy, seed=seed) for name, policy in made.items()}
    count = len(problem.cluster.devices)
    title = f"{problem.id}: {problem.stage_count} stages on {count} GPUs"
    print(title)
    first = traces[policies[0]]
    print_table(
        ("policy", "makespan", f"/ {policies[0]}", "mean latency"),
        [
            (
                name,
                f"{trace.makespan:.1f} s",
                f"{trace.makespan / first.makespan:.2f}" if first.makespan > 0 else "",
                f"{trace.latencies.mean():.1f} s",
            )
            for name, trace in traces.items()
        ],
    )
    schedules = {
        name: schedule_of(trace, simulator.compiled, name) for name, trace in traces.items()
    }
    try:
        save_figure(gantt_figure(schedules, title=title), figure, dpi=110)
    except OSError as error:
        raise unwritable(figure, error, remedy="choose another place with --figure") from None
