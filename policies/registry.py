"""Policies by name. A policy is a class and a file ``conf/policy/NAME.yaml`` that names it.

The file is the registration: it gives the class, where the policy comes from, and its parameters
with their values. Nothing is imported before a policy is made.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any, cast

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from fate_gym.errors import InputError, near_matches
from fate_gym.sim.groups import ALL, GROUPS
from policies.base import Policy

_MOST = 1e9
"""Largest absolute value of a numeric parameter."""
_MOST_VALUES = 1_000
"""Most values in a parameter that is a list."""


class PolicySpec(BaseModel):
    """The contents of ``conf/policy/NAME.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    target: str
    """Module and class, ``package.module:Class``."""
    family: str
    """heuristic, list scheduling, fate, … : how tables group policies."""
    source: str
    """Where the policy comes from, e.g. a paper."""
    sees: tuple[str, ...] = (ALL,)
    """Groups of `fate_gym.sim.groups` that the policy may read, or ``all``. Tests enforce it."""
    params: dict[str, Any] = {}
    """Keyword arguments of the class."""

    @field_validator("sees")
    @classmethod
    def _known_groups(cls, sees: tuple[str, ...]) -> tuple[str, ...]:
        for group in sees:
            if group != ALL and group not in GROUPS:
                raise ValueError(f"no group {group!r}; {near_matches(group, (*GROUPS, ALL))}")
        return sees


@cache
def policy_specs() -> dict[str, PolicySpec]:
    """Every registered policy by name, sorted."""
    folder = files("conf").joinpath("policy")
    specs = {}
    for path in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if path.name.endswith(".yaml"):
            spec = _parse(_load(path.read_text(encoding="utf-8"), path.name), path.name)
            if spec.name != path.name.removesuffix(".yaml"):
                raise InputError(
                    f"the name {spec.name!r} differs from the file's",
                    source=f"conf/policy/{path.name}",
                    field="name",
                    remedy="give the file and the policy one name",
                )
            specs[spec.name] = spec
    return specs


def policy_names() -> list[str]:
    """The names of all registered policies, sorted."""
    return list(policy_specs())


def make_policy(name: str, **params: Any) -> Policy:
    """Make a registered policy; ``params`` override those of its file.

    Raises:
        InputError: the name or a parameter is unknown (with near matches), or a value is invalid.
    """
    specs = policy_specs()
    if name not in specs:
        raise InputError(f"unknown policy {name!r}", remedy=near_matches(name, specs))
    spec = specs[name]
    return build_policy(spec.model_dump() | {"params": spec.params | params})


def policy_class(spec: PolicySpec) -> Callable[..., Policy]:
    """Import and return the class that a policy's file names.

    Raises:
        InputError: the class does not exist or cannot be imported.
    """
    module, _, attribute = spec.target.partition(":")
    try:
        return cast(Callable[..., Policy], getattr(import_module(module), attribute))
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"cannot import {spec.target!r} ({error})",
            item=f"policy '{spec.name}'",
            field="target",
            remedy="write package.module:Class, and install the extra that it needs",
        ) from None


def build_policy(spec: Mapping[str, Any]) -> Policy:
    """Make a policy from the contents of its file.

    Raises:
        InputError: the class does not exist, or a parameter does not fit its signature.
    """
    parsed = _parse(spec, f"policy {spec.get('name', '?')}")
    factory = check_params(parsed)
    named = "name" in inspect.signature(factory).parameters
    return factory(**parsed.params, **({"name": parsed.name} if named else {}))


def check_params(spec: PolicySpec) -> Callable[..., Policy]:
    """Check a policy's parameters (names, types and ranges) and return its class.

    Raises:
        InputError: the class does not exist; else for the first parameter that does not fit.
    """
    factory = policy_class(spec)
    takes = parameters_of(factory)
    known = [name for name in takes if name != "name"]
    for name, value in spec.params.items():
        where = {"item": f"policy '{spec.name}'", "field": f"params.{name}"}
        if name not in known:
            raise InputError(
                f"unknown parameter {name!r}",
                remedy=near_matches(name, known) if known else "the policy takes no parameters",
                **where,
            )
        if not _is_small(value):
            raise InputError(
                f"is not finite, or larger than {_MOST:g} (got {ascii(value)[:60]})",
                remedy="correct the value",
                **where,
            )
        _check_type(value, takes[name].annotation, where)
    for name in known:
        if name not in spec.params and _is_required(takes[name]):
            raise InputError(
                f"the parameter {name!r} is missing",
                item=f"policy '{spec.name}'",
                field="params",
                remedy=f"add params.{name}",
            )
    return factory


def parameters_of(factory: Callable[..., Policy]) -> Mapping[str, inspect.Parameter]:
    """Return the constructor parameters of a policy's class, by name."""
    try:
        return inspect.signature(factory, eval_str=True).parameters
    except NameError:  # an annotation that only a type checker can read
        return inspect.signature(factory).parameters


def _is_required(parameter: inspect.Parameter) -> bool:
    several = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return parameter.default is parameter.empty and not several


def _is_small(value: Any) -> bool:
    """Whether all numbers in a value are finite and plausibly small, and lists are not too long."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return len(value) <= _MOST_VALUES and all(map(_is_small, value))
    return not isinstance(value, int | float) or abs(value) <= _MOST


def _check_type(value: Any, annotation: Any, where: Mapping[str, str]) -> None:
    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return
    try:
        adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # a type with settings of its own
        adapter = TypeAdapter(annotation)
    try:
        adapter.validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        remedy = "correct the value"
        if first["type"] == "literal_error" and isinstance(first["input"], str):
            remedy = near_matches(
                first["input"], re.findall(r"'([^']*)'", first["ctx"]["expected"])
            )
        raise InputError(
            f"{first['msg']} (got {ascii(value)[:60]})", remedy=remedy, **where
        ) from None


def _load(text: str, source: str) -> Any:
    try:
        return yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        what = str(error).replace("\n", " ")
        raise InputError(
            f"not YAML: {what}", source=source, remedy="quote values that hold a colon"
        ) from None


def _parse(data: Any, source: str) -> PolicySpec:
    try:
        return PolicySpec.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            first["msg"],
            source=source,
            field=".".join(str(part) for part in first["loc"]),
            remedy="a policy file has name, target, family, source, sees and params",
        ) from None
