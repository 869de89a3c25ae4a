"""The ``fate-gym`` command."""

from __future__ import annotations

from pathlib import Path

import pytest

from fate_gym.lab.cli import main
from fate_gym.problem import dump_problem
from fate_gym.workloads import build_suite, load_cluster, load_suite
from policies.registry import policy_names


def test_policies_are_listed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["policies"]) == 0
    text = capsys.readouterr().out
    for name in policy_names():
        assert name in text


def test_a_problem_file_is_summarised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem = build_suite(load_suite("smoke"), load_cluster("mixed_8"), 0)[0]
    file = tmp_path / "problem.json"
    dump_problem(problem, file)
    assert main(["validate", str(file)]) == 0
    text = capsys.readouterr().out
    assert f"{problem.stage_count} stages" in text
    assert "mixed_8: 8 devices" in text


@pytest.mark.parametrize("verb", ["validate", "report"])
def test_bad_input_is_one_line_and_exit_code_2(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, str(tmp_path / "nothing")]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {tmp_path / 'nothing'}")
    assert len(err.splitlines()) == 1


def test_evaluate_goes_to_hydra(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "suite=smoke", "policy=hefft"]) == 2
    assert "unknown policy 'hefft'" in capsys.readouterr().err


def test_a_verb_is_needed() -> None:
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2
