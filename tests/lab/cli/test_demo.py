"""``fate-gym demo``."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import pytest

from fate_gym.lab.cli import main
from fate_gym.lab.cli.demo import POLICIES, has_display

PNG = b"\x89PNG"


def test_three_policies_differ_and_are_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr("fate_gym.lab.cli.demo.has_display", lambda: True)
    figure = tmp_path / "demo.png"
    assert main(["demo", "--figure", str(figure)]) == 0
    assert figure.read_bytes().startswith(PNG)
    assert opened == [figure.as_uri()]
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:5]]
    assert [row[0] for row in rows] == list(POLICIES)
    makespans = [float(row[1]) for row in rows]
    assert makespans == sorted(makespans, reverse=True)
    assert len(set(makespans)) == 3


def test_a_place_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--figure", str(tmp_path / "demo.xyz")]) == 2
    assert "cannot draw a .xyz" in capsys.readouterr().err
    assert main(["demo", "--no-open", "--figure", str(tmp_path / "none" / "demo.png")]) == 2
    assert "choose another place with --figure" in capsys.readouterr().err


def test_without_a_display_nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert not has_display()
    monkeypatch.setenv("DISPLAY", ":0")
    assert has_display()
    monkeypatch.delenv("DISPLAY")
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setenv("SSH_CONNECTION", "1.2.3.4 5 6.7.8.9 22")
    assert not has_display()
