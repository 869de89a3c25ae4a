"""Reads named YAML configurations (groups of ``conf/``) into pydantic models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from fate_gym.errors import InputError, check_known
from fate_gym.problem.faults import from_pydantic

Spec = TypeVar("Spec", bound=BaseModel)

_UNREADABLE = (
    yaml.YAMLError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What PyYAML raises, besides its own error, for scalars with a tag that they do not fit."""


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
    check_known(f"unknown {group}", name, options)
    source = str(options[name])
    return parse_yaml(options[name].read_bytes(), source), source


def parse_yaml(text: bytes, source: str | Path) -> Any:
    """The content of a YAML file. Raises `InputError` if it is not YAML."""
    try:
        return yaml.safe_load(text)
    except _UNREADABLE as error:
        raise InputError(
            f"not valid YAML ({' '.join(str(error).split())})",
            source=source,
            remedy="correct the file",
        ) from None


def parse(data: Any, spec: type[Spec], *, source: str | Path) -> Spec:
    """Validate a mapping; misspelt fields, at the top or deeper, are an `InputError`."""
    if isinstance(data, Mapping):
        for key in data:
            check_known("unknown field", str(key), spec.model_fields, source=source)
    try:
        return spec.model_validate(data)
    except ValidationError as error:
        raise from_pydantic(error, data, source) from None
