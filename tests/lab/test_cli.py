"""The ``fate-gym`` command."""

from __future__ import annotations

from pathlib import Path

import pytest

from fate_gym.lab.cli import main
from policies.registry import policy_names


def test_policies_are_listed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["policies"]) == 0
    text = capsys.readouterr().out
    for name in policy_names():
        assert name in text


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
