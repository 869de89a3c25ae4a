"""Composes configurations from the groups of ``conf/``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib.resources import files
from pathlib import Path
from typing import Any

from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from fate_gym.errors import InputError

CONFIG_MODULE = "conf"


def hydra_ready() -> AbstractContextManager[None]:
    """Return a context in which Hydra composes from ``conf/``."""
    return initialize_config_module(CONFIG_MODULE, version_base="1.3")


def compose_sweep(config_name: str, overrides: Sequence[str], extra: Sequence[str]) -> DictConfig:
    """Compose the configuration of a sweep, without the values that differ between jobs.

    Args:
        config_name: the primary configuration.
        overrides: overrides of the command line.
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
    """Return the override that adds configuration directories, if there are any."""
    places = ",".join(_quoted(f"file://{Path(place).absolute()}") for place in extra)
    return [f"hydra.searchpath=[{places}]"] if extra else []


def _quoted(text: str) -> str:
    """Quote text for Hydra's grammar, where a backslash only escapes before a quote."""
    doubled = re.sub(r"(\\+)(?='|$)", r"\1\1", text)
    return "'" + doubled.replace("'", "\\'") + "'"


def check_directories(extra: Sequence[str], config_name: str) -> None:
    """Check that Hydra can read the configurations that ``--config-dir`` adds.

    Hydra fails with a traceback on a file that is not YAML, and takes minutes on one whose aliases
    expand enormously. Only groups that exist in `conf/` are read: the directory may hold other
    files.

    Raises:
        InputError: naming the directory or file at fault.
    """
    if not extra:
        return
    # Imported here, so that --help does not load the workloads.
    from fate_gym.problem.io import read_bytes
    from fate_gym.workloads.config import parse_yaml

    groups = [entry.name for entry in files(CONFIG_MODULE).iterdir() if entry.is_dir()]
    for folder in map(Path, extra):
        if not folder.is_dir():
            raise InputError(
                "there is no such directory", source=folder, remedy="correct --config-dir"
            )
        chosen = [folder / f"{config_name}.yaml"]
        chosen += [file for group in groups for file in (folder / group).rglob("*.yaml")]
        for file in chosen:
            if file.is_file():
                content = parse_yaml(read_bytes(file), file)
                if not isinstance(content, dict | None):
                    raise InputError("not a mapping", source=file, remedy="write name: value")


def plain(config: DictConfig) -> dict[str, Any]:
    """Convert a composed configuration to plain values, without Hydra's own."""
    with open_dict(config):
        config.pop("hydra", None)  # present unless Hydra passed the configuration to a task
    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    return {str(name): value for name, value in values.items()}
