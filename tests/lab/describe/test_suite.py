"""``fate-gym describe``."""

from __future__ import annotations

from pathlib import Path

import pytest

from fate_gym.lab.cli import main


def test_a_suite_is_described_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    figure = tmp_path / "suite.png"
    assert main(["describe", "suite=smoke", "--figure", str(figure)]) == 0
    text = capsys.readouterr().out
    assert "epigenomics" in text and "srasearch" in text and "63 stages" in text
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_a_description_says_which_devices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "suite=smoke"]) == 0
    assert "smoke on mixed_8, seed 0" in capsys.readouterr().out
    assert main(["describe", "suite=smoke", "cluster.execution=batching"]) == 0
    assert "smoke on mixed_8 (batching), seed 0" in capsys.readouterr().out


def test_a_description_fits_a_terminal_of_eighty_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["describe", "suite=agentic_alone"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if "…" in line]
    (all_of_them,) = [line.split() for line in lines if line.startswith(" all")]
    assert len(all_of_them) == 12 and all_of_them[1] == "38"


def test_a_description_says_what_is_measured_and_what_modelled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["describe", "suite=smoke"]) == 0
    assert (
        "\nReal topology, modelled attributes.\n2 problems, 2 workflows, "
        in capsys.readouterr().out
    )
    figure = tmp_path / "agents.svg"
    assert main(["describe", "suite=agents", "--figure", str(figure)]) == 0
    text = capsys.readouterr().out
    assert "\nMeasured sessions of agents, models mapped.\n1 problem, " in text
    assert " workflows of 14 sessions, " in text
    assert main(["describe", "suite=requests", "--figure", str(tmp_path / "requests.svg")]) == 0
    assert "\nMeasured requests and arrivals, models mapped.\n1 problem, 200 workflows of " in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["suite=smok"], "unknown suite 'smok'. Remedy: did you mean 'smoke'?"),
        (["suite=smoke", "suite.per_famly=1"], "unknown option 'suite.per_famly'"),
        (["suite=files"], "suite 'files': field 'files': no files are given"),
        (["suite=files", "suite.files=[no.json]"], "no.json: cannot read the file"),
        (["suite=smoke", "--figure", "x.xyz"], "x.xyz: cannot draw"),
    ],
)
def test_bad_descriptions(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["describe", *arguments]) == 2
    assert message in capsys.readouterr().err
