"""Checks the jobs of a sweep before any of them runs, and finds their result directories."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from omegaconf import DictConfig

from fate_gym.lab.sweep.compose import CONFIG_MODULE
from fate_gym.lab.sweep.plan import job_configs

if TYPE_CHECKING:
    from fate_gym.lab.sweep.plan import Plan


class Cell(NamedTuple):
    """Where a job's results go in the directory of its sweep."""

    suite: str
    policy: str
    seed: int

    def __str__(self) -> str:
        return f"{self.suite}/{self.policy}/s{self.seed}"


Check = Callable[[DictConfig, Sequence[str]], Cell | None]
"""Called with a job's configuration and the directories that ``--config-dir`` adds. Raises
`InputError` if it cannot run; returns its cell, or None if it has none, such as a training."""

_SEED = re.compile(r"seed=\d+")
_Names = tuple[str, ...]


def checked(plan: Plan, config: DictConfig, extra: Sequence[str], check: Check) -> Plan:
    """Check each value of each option once, and return the plan with its cells.

    Composing a configuration takes about 0.1 s, and a sweep may have thousands: only jobs with a
    value that no earlier job had are composed. Unchanged policies and suites of the package need
    no check.

    Args:
        plan: the planned sweep.
        config: the composed configuration of the sweep.
        extra: directories that ``--config-dir`` adds.
        check: checks one job.

    Raises:
        InputError: for the first job that cannot run.
    """
    jobs = plan.jobs or []
    chosen = list(_jobs_to_check(jobs, known=set() if extra else _shipped()))
    configs = job_configs(config, replace(plan, jobs=[jobs[i] for i in chosen]))
    suites: dict[_Names, str] = {}
    policies: dict[_Names, str] = {}
    default = None
    for number, composed in zip(chosen, configs, strict=True):
        cell = check(composed, extra)
        if cell is None:
            return plan
        default = cell if default is None else default
        suites[_naming("suite", jobs[number])] = cell.suite
        policies[_naming("policy", jobs[number])] = cell.policy
    if default is None:
        return plan
    cells = Counter(
        Cell(
            suites.get(suite := _naming("suite", job), _value(suite, default.suite)),
            policies.get(policy := _naming("policy", job), _value(policy, default.policy)),
            _seed(job, default.seed),
        )
        for job in jobs
    )
    return replace(plan, cells={str(cell): number for cell, number in cells.items()})


def _jobs_to_check(jobs: Sequence[Sequence[str]], known: set[str]) -> Iterator[int]:
    """Yield the numbers of the jobs to check: the first, and each with something new."""
    seen: set[object] = set()
    for number, job in enumerate(jobs):
        words: set[object] = {word for word in job if not _SEED.fullmatch(word)}
        words |= {_naming("suite", job), _naming("policy", job)}
        words -= known | {(word,) for word in known}
        if number == 0 or not words <= seen:
            yield number
        seen |= words


def _shipped() -> set[str]:
    """Return the words that choose a policy or suite of the package."""
    conf = files(CONFIG_MODULE)
    return {
        f"{group}={entry.name.removesuffix('.yaml')}"
        for group in ("policy", "suite")
        for entry in conf.joinpath(group).iterdir()
    }


def _naming(group: str, job: Sequence[str]) -> _Names:
    """Return the words of a job that determine the name of its policy or suite."""
    return tuple(
        word.lstrip("+") for word in job
        if word.lstrip("+").startswith((f"{group}=", f"{group}.name="))
    )  # fmt: skip


def _value(words: _Names, default: str) -> str:
    """Return the value of the last word, or the default if there is none."""
    return words[-1].partition("=")[2] if words else default


def _seed(job: Sequence[str], default: int) -> int:
    given = [word.partition("=")[2] for word in job if word.startswith("seed=")]
    return int(given[-1]) if given and given[-1].isdecimal() else default
