"""The stored adversarial problems have the properties that docs/fate.md states."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from fate_gym.metrics.outcome import workflow_outcomes
from fate_gym.problem import load_problem
from fate_gym.sim import Simulator
from policies import make_policy

DOCS = Path(__file__).resolve().parents[3] / "docs"
ROW = re.compile(
    r"^\| \[\w+\]\((?P<file>examples/adversarial/\S+)\) "
    r"\| (?P<first>\w+) \| (?P<second>\w+) \| (?P<ratio>[\d.]+) \|$",
    flags=re.MULTILINE,
)
ROWS = [found.groups() for found in ROW.finditer((DOCS / "fate.md").read_text(encoding="utf-8"))]


@pytest.mark.parametrize(("file", "first", "second", "ratio"), ROWS)
def test_the_table_is_true(file: str, first: str, second: str, ratio: str) -> None:
    simulator = Simulator(load_problem(DOCS / file))
    means = []
    for name in (first, second):
        outcomes = workflow_outcomes(simulator.run(make_policy(name)))
        means.append(np.mean([outcome["latency"] for outcome in outcomes]))
    assert f"{means[0] / means[1]:.2f}" == ratio


def test_every_kept_problem_is_in_the_table() -> None:
    kept = {file.name for file in (DOCS / "examples" / "adversarial").glob("*.json")}
    assert kept == {Path(row[0]).name for row in ROWS}
