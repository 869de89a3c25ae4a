"""Mistakes that JSON and pydantic accept silently: true for 1, and duplicate keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fate_gym import catalog
from fate_gym.env.options import parse_options
from fate_gym.errors import InputError
from fate_gym.lab.config import ReportConfig
from fate_gym.problem import load_problem, parse_problem
from fate_gym.workloads.clusters import ClusterSpec
from fate_gym.workloads.config import parse

TEXT = Path("docs/examples/snapshot.json").read_text(encoding="utf-8")


def example() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(TEXT)
    del data["state"]
    return data


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"queries": True}, "queries"),
        ({"prompt_tokens": False}, "prompt_tokens"),
        ({"model": None, "tool_seconds": True}, "tool_seconds"),
        ({"model": None, "seconds_on": {"a": True}}, "seconds_on"),
    ],
)
def test_booleans_are_no_numbers_of_a_stage(change: dict[str, Any], field: str) -> None:
    data = example()
    data["workflows"][0]["stages"][0] |= change
    with pytest.raises(InputError, match="not numbers") as caught:
        parse_problem(json.dumps(data))
    assert (caught.value.field or "").endswith(field)
    assert "stage" in (caught.value.item or "")


def test_booleans_are_no_numbers_of_clusters_and_options() -> None:
    nodes = [{"gpus": {"A10G": True}}]
    with pytest.raises(InputError, match="not numbers") as caught:
        parse({"name": "x", "nodes": nodes}, ClusterSpec, source="x.yaml")
    assert (caught.value.field or "").endswith("gpus")
    with pytest.raises(InputError, match="not numbers"):
        parse_options({"window": True}, "env")


def test_fields_that_are_booleans_stay_so() -> None:
    options, _ = parse_options({"strict": True}, "env")
    assert options.strict
    assert ReportConfig(figures=("gantt",)).figures == ("gantt",)


@pytest.mark.parametrize("place", ["", "workflows", "stages"])
def test_a_key_given_twice_is_an_error(tmp_path: Path, place: str) -> None:
    key = {"": '"id"', "workflows": '"edges"', "stages": '"queries"'}[place]
    assert f"{key}:" in TEXT
    file = tmp_path / "twice.json"
    file.write_text(TEXT.replace(f"{key}:", f"{key}: 1, {key}:", 1), encoding="utf-8")
    with pytest.raises(InputError, match=r"twice\.json.*given twice in one object") as caught:
        load_problem(file)
    assert key.strip('"') in caught.value.fault


def test_active_parameters_are_some_of_all() -> None:
    model = catalog.model("Llama-3.1-8B").model_dump() | {"active_b": 9.0}
    with pytest.raises(ValueError, match="active_b, 9, is more than params_b"):
        catalog.Model.model_validate(model)
