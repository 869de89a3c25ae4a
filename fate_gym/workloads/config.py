"""Reads named YAML configurations (groups of ``conf/``) into pydantic models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from fate_gym.errors import InputError, near_matches
from fate_gym.problem.io import from_pydantic

Spec = TypeVar("Spec", bound=BaseModel)


def read_group(group: str, name: str, extra_dirs: Sequence[str | Path]) -> tuple[Any, str]:
    """The content of configuration ``name`` of a group, and where it is from.

    ``extra_dirs`` are searched first; an extra directory holds groups as folders, as ``conf/``.

    Raises:
        InputError: if there is none of that name, or it is not YAML.
    """
    folders: list[Traversable] = [Path(extra) / group for extra in extra_dirs]
    folders.append(files("conf").joinpath(group))
    options = {
        entry.name.removesuffix(".yaml"): entry
        for folder in reversed(folders)
        if folder.is_dir()
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    }
    if name not in options:
        raise InputError(f"unknown {group} {name!r}", remedy=near_matches(name, options))
    source = str(options[name])
    try:
        return yaml.safe_load(options[name].read_text(encoding="utf-8")), source
    except yaml.YAMLError as error:
        raise InputError(
            f"not valid YAML ({' '.join(str(error).split())})",
            source=source,
            remedy="correct the file",
        ) from None


def parse(data: Any, spec: type[Spec], *, source: str | Path) -> Spec:
    """Validate a mapping; misspelt fields, at the top or deeper, are an `InputError`."""
    if isinstance(data, Mapping):
        unknown = [str(key) for key in data if key not in spec.model_fields]
        if unknown:
            raise InputError(
                f"unknown field {unknown[0]!r}",
                source=source,
                remedy=near_matches(unknown[0], spec.model_fields),
            )
    try:
        return spec.model_validate(data)
    except ValidationError as error:
        raise from_pydantic(error, data, source) from None
