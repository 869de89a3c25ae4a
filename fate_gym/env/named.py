"""Functions and problems as text arguments, for the JSON spec of an environment."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, TypeGuard

from gymnasium.envs.registration import EnvSpec
from pydantic import BaseModel

from fate_gym.env.faults import bad
from fate_gym.sim import CompiledProblem


def is_name_of_object(value: Any) -> TypeGuard[str]:
    """Return whether a value has the form ``"module:function"``, as Gymnasium's entry points."""
    return isinstance(value, str) and ":" in value and not value.endswith(".json")


def named_object(name: str, field: str) -> Any:
    """Import what ``"module:function"`` names. Raises `InputError` if it does not exist."""
    module, _, path = name.partition(":")
    try:
        found: Any = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        fault = f"cannot import {name!r} ({error})"
        remedy = "give the name as 'module:function', importable from here"
        raise bad("environment options", field, fault, remedy) from None
    return found


class JsonSpec:
    """An environment whose ``spec`` has JSON-serialisable arguments."""

    _spec: EnvSpec | None = None

    @property
    def spec(self) -> EnvSpec | None:
        """The spec from which Gymnasium makes this environment."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        self._spec = json_spec(spec)


def json_spec(spec: EnvSpec | None) -> EnvSpec | None:
    """Return an environment's spec with arguments that JSON can hold, where possible.

    Functions become ``"module:function"``. Lambdas and nested functions have no such name and stay
    as they are: `EnvSpec.to_json` rejects them.
    """
    if spec is None:
        return None
    return dataclasses.replace(spec, kwargs=_plain(spec.kwargs))


def _plain(value: Any) -> Any:
    if isinstance(value, CompiledProblem):
        value = value.problem
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if inspect.isfunction(value) and "<" not in value.__qualname__:
        return f"{value.__module__}:{value.__qualname__}"
    return value
