"""Snapshots: `fate-gym plan` answers, or reports what is wrong with the file."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fate_gym.errors import InputError
from policies import fate
from tests.fuzz.check import taken
from tests.fuzz.mutants import mutated_bytes, mutated_value

TEXT = Path("docs/examples/snapshot.json").read_bytes()
POLICIES = ("fate", "fate_rollout", "heft_boosted")


def batching() -> dict[str, Any]:
    """Return the example on batching devices, with a cached branch of the prefix tree."""
    data: dict[str, Any] = json.loads(TEXT)
    data["cluster"]["execution"] = "batching"
    data["workflows"][0]["prefixes"] = [
        {"group": "reader", "parent": "planner", "shared_tokens": 300}
    ]
    data["workflows"][0]["stages"][2]["model"] = "Llama-3.1-8B"
    state = data["state"]
    reader = {"model": "Llama-3.1-8B", "group": "reader", "tokens": 600}
    state["devices"]["l40s"]["prefixes"].append(reader)
    state["running"] = [
        {"workflow": "review", "stage": "draft", "devices": {"l40s": 1}, "tokens_made": 3}
    ]
    return data


EXAMPLES = {"exclusive": json.loads(TEXT), "batching": batching()}


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_have_plans(example: str) -> None:
    for policy in POLICIES:
        assert fate.plan(copy.deepcopy(EXAMPLES[example]), policy=policy)


@given(st.sampled_from(sorted(EXAMPLES)), st.sampled_from(POLICIES), st.randoms())
def test_mutants_have_a_plan_or_one_error(example: str, policy: str, draw: random.Random) -> None:
    mutant = mutated_value(draw, EXAMPLES[example])
    taken(lambda: fate.plan(mutant, policy=policy) if isinstance(mutant, dict) else None)


@given(st.randoms())
def test_damaged_files_have_a_plan_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, draw: random.Random
) -> None:
    file = tmp_path_factory.getbasetemp() / "snapshot.json"
    file.write_bytes(mutated_bytes(draw, TEXT))
    taken(lambda: fate.plan(file, policy="heft_boosted"))


@pytest.mark.parametrize("tokens", [0, 10**8 + 1, 2**31, 2**63, 10**30, True, 1.5, "many"])
def test_tokens_that_no_device_caches(tokens: Any) -> None:
    data = copy.deepcopy(EXAMPLES["exclusive"])
    data["state"]["devices"]["l40s"]["prefixes"][0]["tokens"] = tokens
    with pytest.raises(InputError) as caught:
        fate.plan(data)
    assert caught.value.field == "state.devices.l40s.prefixes.0.tokens"


@pytest.mark.parametrize("name", ["waited_s", "ends_in_s"])
@pytest.mark.parametrize("seconds", [-1.0, 2e9, 1e308, float("nan"), float("inf")])
def test_seconds_that_no_clock_shows(name: str, seconds: float) -> None:
    data = copy.deepcopy(EXAMPLES["exclusive"])
    if name == "waited_s":
        data["state"][name]["question"] = seconds
    else:
        data["state"]["running"][0][name] = seconds
    with pytest.raises(InputError) as caught:
        fate.plan(data)
    assert name in (caught.value.field or "")


def test_a_snapshot_gives_no_key_twice(tmp_path: Path) -> None:
    file = tmp_path / "twice.json"
    file.write_bytes(TEXT.replace(b'"finished":', b'"finished": [], "finished":'))
    with pytest.raises(InputError, match="'finished' is given twice"):
        fate.plan(file)
