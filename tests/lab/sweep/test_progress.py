"""How long a sweep will take."""

from __future__ import annotations

from pathlib import Path

from fate_gym.lab.sweep.plan import Plan
from fate_gym.lab.sweep.progress import TimeLeft, kind_of


def plan(*policies: str) -> Plan:
    jobs = [[f"policy={name}", f"seed={seed}"] for name in policies for seed in range(10)]
    return Plan(Path("runs"), len(jobs), jobs, {})


def test_kinds_are_jobs_but_for_the_seed() -> None:
    assert kind_of(["seed=1", "policy=a", "suite=s"]) == kind_of(["suite=s", "policy=a", "seed=2"])
    assert kind_of(["policy=a"]) != kind_of(["policy=b"])


def test_what_has_not_been_seen_is_not_guessed() -> None:
    now = [0.0]
    left = TimeLeft(plan("fast", "slow"), lambda: now[0])
    assert left.text() == ""
    for seconds in range(1, 10):
        now[0] = float(seconds)
        left.ended("policy=fast", 1.0)
    assert left.text() == "more than 00:01 left"
    left.ended("policy=fast", 1.0)
    assert left.text() == "", "nothing is known of what is left"
    now[0] = 70.0
    left.ended("policy=slow", 60.0)
    assert left.text() == "09:00 left"


def test_jobs_at_a_time_and_jobs_done_before() -> None:
    now = [0.0]
    left = TimeLeft(plan("slow"), lambda: now[0])
    left.ended("policy=slow", None)
    assert left.text() == "", "what had been done says nothing of time"
    now[0] = 60.0
    left.ended("policy=slow", 60.0)
    left.ended("policy=slow", 60.0)
    assert left.text() == "03:30 left", "two at a time"


def test_a_search_has_no_kinds() -> None:
    now = [0.0]
    left = TimeLeft(Plan(Path("runs"), 3, None, {}), lambda: now[0])
    now[0] = 5.0
    left.ended("policy=a policy.params.x=1", 5.0)
    assert left.text() == "00:10 left"
