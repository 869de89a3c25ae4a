"""Schedules that must not change: what every policy did on small problems of every suite.

Recorded by `tests.golden.record` before the kernel was rewritten. A digest that differs means that
an event, or the last bit of a time, has changed.
"""

from __future__ import annotations

import pytest

from tests.golden.cases import CASES, POLICIES, SEEDS, digest, golden, play


def test_every_policy_on_every_suite_is_recorded() -> None:
    assert set(golden()) == set(CASES)
    for recorded in golden().values():
        assert sorted(recorded) == POLICIES


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("suite", CASES)
def test_traces_are_as_recorded(suite: str, policy: str) -> None:
    assert [digest(play(suite, policy, seed)) for seed in SEEDS] == golden()[suite][policy]
