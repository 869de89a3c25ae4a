"""The installed version of OR-Tools gives the recorded schedules."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from tests.golden.ortools import allowed, differences, main


def test_the_installed_version_is_allowed_and_older_ones_are_not() -> None:
    assert allowed().contains(version("ortools"))
    assert not allowed().contains("9.14.6206")


@pytest.mark.parametrize(("one", "code"), [("9.14", 0), ("9.15", 1)])
def test_only_differences_of_allowed_versions_are_faults(
    one: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(f"{differences.__module__}.differences", lambda *_: "1 failed")
    monkeypatch.setattr("sys.argv", ["ortools", one])
    assert main() == code
    assert "other schedules: 1 failed" in capsys.readouterr().out
