"""The role table: every number has a source, and invalid tables are refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from fate_gym import catalog
from fate_gym.catalog.loader import read_yaml
from fate_gym.catalog.roles import POSITIONS, Lengths, Payload, Role, Span, role_rules, roles, tools


def numbered(row: Any) -> Iterator[dict[str, Any]]:
    """Yield every group of numbers in the file."""
    if isinstance(row, dict):
        if {"p50", "low", "value"} & set(row):
            yield row
        for value in row.values():
            yield from numbered(value)


def test_every_number_has_a_source() -> None:
    rows = list(numbered(read_yaml("roles.yaml")))
    assert rows
    assert all(len(row["source"]) > 5 for row in rows)


def test_every_place_has_roles_and_wide_types_too() -> None:
    limit = role_rules().wide_params_b
    for position in POSITIONS:
        fit = [
            role.name
            for role in roles().values()
            if role.positions[position] > 0
            and any(catalog.model(model).params_b <= limit for model in role.models)
        ]
        assert len(fit) >= 2, position


def test_models_of_every_size_are_used() -> None:
    used = {model for role in roles().values() for model in role.models}
    sizes = [catalog.model(model).params_b for model in used]
    assert min(sizes) < 1 and max(sizes) > 70
    assert {role.edge.kind for role in roles().values()} == {"text", "kv", "media", "artefact"}
    assert tools()


def test_sigma() -> None:
    row = Lengths(p50=100, p95=100, min=1, max=200, source="")
    assert row.sigma == 0
    # e^1.645 times the median is the 95th percentile of a lognormal with sigma 1.
    row = Lengths(p50=100, p95=518.1, min=1, max=2000, source="")
    assert row.sigma == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    "row",
    [
        {"p50": 10, "p95": 5, "min": 1, "max": 20},
        {"p50": 30, "p95": 35, "min": 1, "max": 20},
        {"p50": 1, "p95": 5, "min": 2, "max": 20},
    ],
)
def test_unordered_lengths_are_refused(row: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Lengths(source="", **row)


def test_other_nonsense_is_refused() -> None:
    with pytest.raises(ValidationError):
        Span(low=3, high=2, source="")
    with pytest.raises(ValidationError):
        Payload(kind="media", source="no size")
    with pytest.raises(ValidationError):
        Payload(kind="text")
    role = roles()["judge"].model_dump()
    with pytest.raises(ValidationError, match="unknown models"):
        Role.model_validate(role | {"models": {"Llama-9": 1}})
    with pytest.raises(ValidationError, match="positions"):
        Role.model_validate(role | {"positions": {"source": 1}})
