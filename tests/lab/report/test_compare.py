"""Comparison of two result directories, in pairs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from fate_gym.errors import InputError
from fate_gym.lab.cli import main
from fate_gym.lab.report.compare import compare
from tests.lab.conftest import Run, edit_result, job_directory


@pytest.fixture
def later(sweep: Run, tmp_path: Path) -> Path:
    """Copy a sweep: heft is 10 % faster, round robin slower, and the commit is another one."""
    root = Path(shutil.copytree(sweep.root, tmp_path / "later"))
    for policy, factor in (("heft", 0.9), ("round_robin", 2.0)):
        for file in (root / "smoke" / policy).glob("*/workflows.parquet"):
            rows = pd.read_parquet(file)
            rows["latency"] *= factor
            rows["rr_latency"] *= 2.0
            rows["latency_ratio"] = rows["latency"] / rows["rr_latency"]
            rows.to_parquet(file)
    for file in root.glob("smoke/*/*/result.json"):
        edit_result(file, git_sha="0" * 12)
    return root


def test_changes_are_of_the_policy_itself(sweep: Run, later: Path) -> None:
    comparison = compare(sweep.root, later)
    changes = {row.policy: row for row in comparison.changes}
    assert [row.policy for row in comparison.changes] == ["heft", "eft", "round_robin"]
    assert changes["heft"].change.difference.value == pytest.approx(-10.0)
    assert changes["heft"].change.difference.low == pytest.approx(-10.0)
    assert changes["heft"].change.win_rate == 1.0
    assert changes["eft"].change.difference.value == pytest.approx(0.0)
    assert changes["round_robin"].after == pytest.approx(2.0)
    assert any(line.startswith("commit: ") for line in comparison.made_with)
    assert comparison.left_out == []


def test_what_cannot_be_compared_is_named(
    sweep: Run, later: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(later / "smoke" / "eft")
    for policy in ("heft", "round_robin"):
        file = job_directory(later, policy, 1) / "result.json"
        edit_result(file, workload_hash="f" * 12)
    assert main(["compare", str(sweep.root), str(later)]) == 0
    out = capsys.readouterr().out
    assert "-10.0 %" in out
    assert "left out: smoke s1: other problems" in out
    assert f"left out: eft: only in {sweep.root}" in out


def test_nothing_in_common_is_an_error(sweep: Run, later: Path) -> None:
    for file in later.glob("smoke/*/*/result.json"):
        edit_result(file, workload_hash="f" * 12)
    with pytest.raises(InputError, match="no policy ran on the same problems"):
        compare(sweep.root, later)
