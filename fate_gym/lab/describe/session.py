"""``fate-gym session``: a figure of the tokens that a session prefills again, by policy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fate_gym.errors import InputError, near_matches
from fate_gym.lab.describe.figure import check_figure_path
from fate_gym.lab.describe.suite import compose_suite
from fate_gym.lab.errors import unwritable
from fate_gym.lab.jobs.run import place
from fate_gym.lab.jobs.schedules import schedule_of
from fate_gym.lab.report.figures.session import most_again, session_figure
from fate_gym.lab.report.figures.style import save_figure
from fate_gym.problem import Problem
from fate_gym.sim import Simulator
from fate_gym.workloads import build_suite
from policies.registry import make_policy


def draw_session(
    overrides: Sequence[str], *, policies: Sequence[str], session: str | None, figure: Path
) -> None:
    """Play a problem of a suite under several policies, and draw one of its sessions to a file.

    Args:
        overrides: options such as ``suite=NAME``.
        policies: policies, from top to bottom.
        session: name of the session; None: in the first problem with sessions, the one that
            prefills most tokens again under these policies.
        figure: path of the figure.

    Raises:
        InputError: an unknown option, policy or session, a suite without sessions, or a file that
            cannot be written.
    """
    check_figure_path(figure)
    config = compose_suite(overrides)
    problems = build_suite(config.suite, config.cluster, config.seed)
    problem = _problem_of(problems, session, config.suite.name)
    simulator = Simulator(problem)
    schedules = {
        name: schedule_of(
            simulator.run(make_policy(name), seed=config.seed), simulator.compiled, name
        )
        for name in policies
    }
    shown = session or most_again(schedules.values())
    title = f"{shown}, a session of {config.suite.name} on {place([problem])}, seed {config.seed}"
    try:
        save_figure(session_figure(schedules, shown, title=title), figure)
    except OSError as error:
        raise unwritable(figure, error, remedy="choose another place") from None
    print(f"figure: {figure}")


def _problem_of(problems: Sequence[Problem], session: str | None, suite: str) -> Problem:
    """Return the first problem with the session, or with any session if it is None."""
    known: set[str] = set()
    for problem in problems:
        names = {flow.session for flow in problem.workflows if flow.session is not None}
        if session in names or (session is None and names):
            return problem
        known |= names
    if session is None or not known:
        raise InputError(
            f"suite {suite!r} has no sessions", remedy="choose one whose workflows are turns"
        )
    raise InputError(f"unknown session {session!r}", remedy=near_matches(session, known))
