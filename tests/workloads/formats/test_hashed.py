"""Request traces with hashed blocks: what requests share, when they arrive, chats."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fate_gym.errors import InputError
from fate_gym.problem import Problem, Workflow
from fate_gym.workloads import Content, import_workflows, load_cluster, read_workload
from tests.workloads.test_sessions import Caches

MOONCAKE = {"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}
BAILIAN = MOONCAKE | {"chat_id": 1, "parent_chat_id": -1, "type": "text", "turn": 1}


def imported(*rows: dict[str, Any]) -> tuple[Workflow, ...]:
    text = "\n".join(json.dumps(row) for row in rows).encode()
    found = read_workload(Content("r.jsonl", text))[1]
    return import_workflows(found, 0, model="Llama-3.1-8B")


def test_arrivals_and_chats_are_as_recorded() -> None:
    first, second = imported(MOONCAKE, MOONCAKE | {"timestamp": 1500})
    assert (first.arrival, second.arrival, second.follows) == (0, 1.5, None)
    chats = imported(
        BAILIAN | {"timestamp": 60.5},
        BAILIAN | {"timestamp": 61, "chat_id": 2, "parent_chat_id": 1},
        BAILIAN | {"timestamp": 62, "chat_id": 3, "parent_chat_id": 2, "type": "file"},
        BAILIAN | {"timestamp": 62, "chat_id": 4, "parent_chat_id": 99},
    )
    assert [chat.session for chat in chats] == ["1", "1", "1", "99"]
    assert [chat.arrival for chat in chats] == [0, 0.5, 1.5, 1.5]
    assert [chat.stages[0].label for chat in chats] == ["text", "text", "file", "text"]


def test_a_trace_of_one_request() -> None:
    (only,) = imported(MOONCAKE)
    assert (only.stages[0].prompt_tokens, only.stages[0].prefix_group) == (600, None)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"input_length": 0}, ["input_length", "1 at least"]),
        ({"input_length": -5}, ["input_length"]),
        ({"output_length": None}, ["output_length", "missing"]),
        ({"output_length": 1.5}, ["output_length"]),
        ({"hash_ids": [1, "2"]}, ["hash_ids"]),
        ({"hash_ids": 7}, ["hash_ids"]),
        ({"timestamp": -1}, ["timestamp"]),
        ({"timestamp": 10}, ["timestamp", "backwards"]),
        ({"chat_id": 1}, ["chat_id", "occurs twice"]),
        ({"parent_chat_id": [2]}, ["parent_chat_id"]),
        ({"type": ""}, ["type"]),
    ],
)
def test_what_is_wrong_is_named(changed: dict[str, Any], words: list[str]) -> None:
    rows = [BAILIAN | {"timestamp": 20}, BAILIAN | {"timestamp": 20, "chat_id": 2} | changed]
    with pytest.raises(InputError) as caught:
        imported(*rows)
    assert all(word in str(caught.value) for word in ("r.jsonl: line 2", *words))


def test_zero_outputs_and_a_context_beyond_every_device() -> None:
    (only,) = imported(MOONCAKE | {"output_length": 0})
    assert only.stages[0].output_tokens == 0
    with pytest.raises(InputError, match="no device can host"):
        Problem.build(load_cluster("mixed_12"), imported(MOONCAKE | {"input_length": 10**7}))


@given(st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=12))
def test_a_replay_finds_the_blocks_that_earlier_requests_had(ids: Sequence[list[int]]) -> None:
    rows = [
        MOONCAKE | {"hash_ids": blocks, "input_length": 512 * len(blocks) + 100, "timestamp": n}
        for n, blocks in enumerate(ids)
    ]
    workflows = imported(*rows)
    Problem.build(load_cluster("mixed_12"), workflows)
    caches = Caches(workflows)
    for number, workflow in enumerate(workflows):
        (stage,) = workflow.stages
        assert stage.prefix_tokens + stage.prompt_tokens == rows[number]["input_length"]
        shared = [
            next((n for n, (a, b) in enumerate(zip(ids[number], old, strict=False)) if a != b),
                 min(len(ids[number]), len(old)))
            for old in ids[:number]
        ]  # fmt: skip
        assert caches.run(stage) == 512 * max(shared, default=0)
