"""Turns Hydra's errors into one message with near matches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import OmegaConf

from fate_gym.errors import InputError, near_matches
from fate_gym.lab.errors import not_chosen
from fate_gym.lab.sweep.arguments import split
from fate_gym.lab.sweep.compose import hydra_ready, search_path


def explain(error: Exception, arguments: Sequence[str], config_name: str) -> InputError:
    """Turn an error of Hydra into one message with near matches."""
    if isinstance(error, OverrideParseException):
        return InputError(
            f"cannot read the option {error.override!r}",
            remedy="write options as name=value, and quote values with commas, brackets or spaces",
        )
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        return InputError(f"unknown {group} {choice!r}", remedy=near_matches(choice, error.options))
    several = _several_values(arguments) if "Ambiguous value" in str(error) else None
    if several is not None:
        return InputError(
            f"several values in {several!r}",
            remedy="add -m to run a job for each of them",
        )
    unknown = _first_unknown_option(arguments, config_name)
    if unknown is not None:
        return unknown
    message = str(error).strip().splitlines()
    return InputError(message[0].rstrip("."), remedy="see fate-gym evaluate --help")


def _first_unknown_option(arguments: Sequence[str], config_name: str) -> InputError | None:
    """Find the first override of an unknown option, by composing only the chosen groups."""
    overrides, extra = split(arguments)
    GlobalHydra.instance().clear()
    with hydra_ready():
        loader = GlobalHydra.instance().config_loader()
        groups = {group for group in loader.list_groups("") if group != "hydra"}
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(overrides)
        given = {item.key_or_group: _one_value(item) for item in parsed}
        choices = [f"{k}={v}" for k, v in given.items() if k in groups and isinstance(v, str)]
        config = compose(config_name, overrides=[*choices, *search_path(extra)])
    values = OmegaConf.to_container(config)
    assert isinstance(values, dict)
    known = dict.fromkeys(groups) | values
    faults = (
        _unknown_part(item.key_or_group.split("."), known)
        for item in parsed
        if not item.is_add() and item.key_or_group not in groups
    )
    return next((fault for fault in faults if fault), None)


def _unknown_part(path: Sequence[str], known: Any) -> InputError | None:
    if path[0] == "hydra":
        return None
    for depth, part in enumerate(path):
        if depth == 1 and known is None:
            return not_chosen(path[0])
        if isinstance(known, dict) and part in known:
            known = known[part]
            continue
        if isinstance(known, dict) and known:
            remedy = near_matches(part, known)
        else:
            remedy = f"there is nothing below {'.'.join(path[:depth])!r}"
        return InputError(f"unknown option {'.'.join(path)!r}", remedy=remedy)
    return None


def _several_values(arguments: Sequence[str]) -> str | None:
    """Return the first option with several values, as it was written."""
    with hydra_ready():
        loader = GlobalHydra.instance().config_loader()
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(split(arguments)[0])
    return next((item.input_line for item in parsed if item.is_sweep_override()), None)


def _one_value(item: Any) -> Any:
    """Return the value of an override, or the first value of a sweep over names."""
    if not item.is_sweep_override():
        return item.value()
    if not item.is_discrete_sweep():
        return None
    return next((str(value) for value in item.sweep_string_iterator()), None)
