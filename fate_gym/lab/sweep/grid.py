"""The jobs of a grid: every combination of values, with each of the settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from fate_gym.errors import InputError
from fate_gym.lab.config import Options, option_texts

Settings = Mapping[str, Options]
"""Options that change together, by the name of the setting."""


def parse_options(texts: Iterable[str]) -> list[Override]:
    """Parse command-line options. Raises what Hydra raises."""
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    return parser.parse_overrides(list(texts))


def grid_jobs(overrides: Sequence[Override], settings: Settings | None) -> list[list[str]]:
    """Return the overrides of every job, without duplicates.

    Args:
        overrides: values of options, possibly several; they take precedence over settings.
        settings: sets of options with each of which the grid is run; None or empty: once, as is.

    Raises:
        InputError: the settings are not a mapping of names to options.
    """
    settings = settings or {"": {}}
    mapping = isinstance(settings, Mapping)
    if not mapping or not all(isinstance(options, Mapping) for options in settings.values()):
        raise InputError(
            "not options by name",
            field="hydra.sweeper.settings",
            remedy="e.g. {slow: {cluster.load_gb_s: 3.0}, fast: {}}",
        )
    jobs: dict[frozenset[str], list[str]] = {}
    for options in settings.values():
        own = parse_options(option_texts(options))
        (batch,) = BasicSweeper.split_arguments([*own, *overrides], None)
        for job in batch:
            jobs.setdefault(frozenset(job), job)
    return list(jobs.values())
