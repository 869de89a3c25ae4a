"""The ``fate-gym`` command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fate_gym.lab.cli import main
from fate_gym.problem import dump_problem, load_problem
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


def _wfformat(file: Path) -> Path:
    tasks = [{"name": "a_1", "parents": []}, {"name": "b_2", "parents": ["a_1"]}]
    file.write_text(json.dumps({"schemaVersion": "1.4", "workflow": {"tasks": tasks}}))
    return file


def test_a_workflow_is_imported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, output = _wfformat(tmp_path / "mine.json"), tmp_path / "problem.json"
    options = ["--seed", "3", "--cluster", "mixed_8", "-o", str(output)]
    assert main(["import", str(file), *options]) == 0
    assert "2 stages, 1 edges" in capsys.readouterr().out
    problem = load_problem(output)
    assert (problem.id, problem.cluster.id) == ("mine/s3", "mixed_8")


def test_a_bad_import_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, output = tmp_path / "mine.json", tmp_path / "problem.json"
    file.write_text('{"schemaVersion": "1.4", "workflow": {"tasks": [{"name": 1}]}}')
    assert main(["import", str(file), "-o", str(output)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {file}: task #0: field 'name'")
    assert not output.exists()
    assert main(["import", str(_wfformat(file)), "-o", str(tmp_path / "no" / "p.json")]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_a_suite_is_described_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    figure = tmp_path / "suite.png"
    assert main(["describe", "suite=smoke", "--figure", str(figure)]) == 0
    text = capsys.readouterr().out
    assert "epigenomics" in text and "srasearch" in text and "63 stages" in text
    assert figure.read_bytes().startswith(b"\x89PNG")


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
