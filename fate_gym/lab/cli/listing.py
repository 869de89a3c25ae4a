"""Verbs that list the policies and suites to choose from."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from fate_gym.errors import InputError, near_matches
from fate_gym.lab.cli.options import as_json


@click.command()
@click.argument("text", default="")
@click.option("--family", help="Only policies of this family.")
@as_json()
def policies(text: str, family: str | None, as_json: bool) -> None:
    """List the policies, and what each of them sees.

    TEXT keeps those whose name or source contains it.
    """
    from policies.registry import policy_specs

    specs = list(policy_specs().values())
    families = sorted({spec.family for spec in specs})
    if family is not None and family not in families:
        raise InputError(f"unknown family {family!r}", remedy=near_matches(family, families))
    found = [
        spec
        for spec in specs
        if family in (None, spec.family) and _contains(text, spec.name, spec.source)
    ]
    rows = [
        (spec.name, spec.family, " ".join(spec.sees) or "requests only", spec.source)
        for spec in found
    ]
    shown = [spec.model_dump(mode="json") for spec in found]
    _show(("policy", "family", "sees", "source"), rows, shown if as_json else None, text)


@click.command()
@click.argument("text", default="")
@as_json()
def suites(text: str, as_json: bool) -> None:
    """List the suites: where their workflows come from, and their clusters.

    TEXT keeps those whose name or source contains it. `fate-gym describe suite=NAME` shows one.
    """
    from importlib.resources import files

    from fate_gym.workloads import load_suite

    folder = files("conf").joinpath("suite")
    names = sorted(
        entry.name.removesuffix(".yaml")
        for entry in folder.iterdir()
        # The suite of the user's own files is incomplete until files are named.
        if entry.name.endswith(".yaml") and entry.name != "files.yaml"
    )
    found = [spec for spec in map(load_suite, names) if _contains(text, spec.name, spec.source)]
    rows = [(spec.name, spec.source, spec.cluster, spec.origin) for spec in found]
    shown = [spec.model_dump(mode="json") | {"origin": spec.origin} for spec in found]
    _show(("suite", "source", "cluster", "origin"), rows, shown if as_json else None, text)


def _contains(text: str, *places: str) -> bool:
    return any(text.lower() in place.lower() for place in places)


def _show(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    shown: Sequence[object] | None,
    text: str,
) -> None:
    """Print a table, or JSON. Raises `InputError` if there are no rows."""
    from fate_gym.lab.tables import print_table

    if not rows:
        remedy = "leave the text or the family out to list all"
        raise InputError(f"nothing contains {text!r}", remedy=remedy)
    if shown is not None:
        print(json.dumps(shown, indent=1))
    else:
        print_table(heads, rows, left=len(heads))
