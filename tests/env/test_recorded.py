"""Observations and rewards must not change: digests recorded before the kernel was rewritten."""

from __future__ import annotations

import json

import pytest

from tests.env.recorded import DIGESTS, EPISODES, MODES, episode_digest, vector_digest

RECORDED: dict[str, str] = json.loads(DIGESTS.read_text(encoding="utf-8"))


def test_all_are_recorded() -> None:
    assert set(RECORDED) == {*EPISODES, *MODES}


@pytest.mark.parametrize("name", EPISODES)
def test_episodes_are_as_recorded(name: str) -> None:
    assert episode_digest(name) == RECORDED[name]


@pytest.mark.parametrize("mode", MODES)
def test_batches_are_as_recorded(mode: str) -> None:
    assert vector_digest(mode) == RECORDED[mode]
