"""Composes configurations from the groups of ``conf/``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

CONFIG_MODULE = "conf"


def hydra_ready() -> AbstractContextManager[None]:
    """Inside, Hydra composes from ``conf/``."""
    return initialize_config_module(CONFIG_MODULE, version_base="1.3")


def compose_sweep(config_name: str, overrides: Sequence[str], extra: Sequence[str]) -> DictConfig:
    """The configuration of a sweep, without the values that differ from job to job.

    Args:
        config_name: the primary configuration.
        overrides: of the command line.
        extra: directories that ``--config-dir`` adds.
    """
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    return hydra.compose_config(
        config_name,
        [*overrides, *search_path(extra)],
        run_mode=RunMode.MULTIRUN,
        with_log_configuration=False,
        validate_sweep_overrides=False,
    )


def search_path(extra: Sequence[str]) -> list[str]:
    """The override that adds configuration directories, if there are any."""
    places = ",".join(f"file://{Path(place).absolute()}" for place in extra)
    return [f"hydra.searchpath=[{places}]"] if extra else []


def plain(config: DictConfig) -> dict[str, Any]:
    """A composed configuration as plain values, without Hydra's own."""
    with open_dict(config):
        config.pop("hydra", None)  # there when Hydra did not hand the configuration to a task
    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    return {str(name): value for name, value in values.items()}
