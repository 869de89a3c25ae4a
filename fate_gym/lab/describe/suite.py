"""``fate-gym describe``: the contents of a suite as a table and figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra import compose
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from fate_gym.errors import InputError
from fate_gym.lab.describe.facts import describe
from fate_gym.lab.describe.table import print_description
from fate_gym.lab.errors import unwritable
from fate_gym.lab.jobs.config import EvaluateConfig, parse_config
from fate_gym.lab.jobs.run import place
from fate_gym.lab.sweep.compose import hydra_ready, plain
from fate_gym.lab.sweep.mistakes import explain
from fate_gym.problem import Problem
from fate_gym.workloads import build_suite


def describe_suite(overrides: Sequence[str], figure: Path | None) -> None:
    """Print the table of a suite, and optionally draw it to a file.

    Args:
        overrides: options such as ``suite=quick``.
        figure: path of the figure; None: none.

    Raises:
        InputError: an unknown option or choice, or a file that cannot be written.
    """
    if figure is not None:
        from fate_gym.lab.describe.figure import check_figure_path, draw_suite
        from fate_gym.lab.report.figures.style import save_figure

        check_figure_path(figure)
    config = compose_suite(overrides)
    problems = build_suite(config.suite, config.cluster, config.seed)
    facts = describe(problems)
    title = f"{config.suite.name} on {place(problems)}, seed {config.seed}"
    print_description(title, config.suite.origin, problems, facts)
    if figure is not None:
        try:
            save_figure(draw_suite(title, facts), figure, dpi=110)
        except OSError as error:
            raise unwritable(figure, error, remedy="choose another place") from None
        print(f"figure: {figure}")


def compose_suite(overrides: Sequence[str]) -> EvaluateConfig:
    """Compose the configuration of a job on a suite, e.g. ``suite=quick``, with any policy.

    Raises:
        InputError: an unknown option or choice.
    """
    # A job needs a policy, but its problems do not depend on it.
    arguments = [*overrides, "policy=round_robin"]
    try:
        with hydra_ready():
            return parse_config(plain(compose("config", overrides=arguments)))
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, arguments, "config") from None


def compose_problem(overrides: Sequence[str], number: int) -> tuple[Problem, int]:
    """Build one problem of a suite (default ``smoke``), and return it with the seed.

    Raises:
        InputError: an unknown option or choice, or a number that the suite does not have.
    """
    if not any(word.startswith("suite=") for word in overrides):
        overrides = ["suite=smoke", *overrides]
    config = compose_suite(overrides)
    problems = build_suite(config.suite, config.cluster, config.seed)
    if not 0 <= number < len(problems):
        raise InputError(
            f"suite {config.suite.name!r} has no problem {number}",
            remedy=f"give --problem a number from 0 to {len(problems) - 1}",
        )
    return problems[number], config.seed
