"""The command ``fate-gym``: verbs, errors, exit codes."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from fate_gym import __version__
from fate_gym.lab.cli import main
from fate_gym.lab.cli.app import SECTIONS, fate_gym
from tests.lab.conftest import ROOT, environment


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for section, verbs in SECTIONS.items():
        assert f"{section}:" in out
        assert all(f"\n  {verb.name}" in out for verb in verbs)


@pytest.mark.parametrize("verb", list(fate_gym.commands))
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = fate_gym.commands[verb]
    assert command.get_short_help_str(), "a line in the list"
    if command.add_help_option:
        assert main([verb, "--help"]) == 0
        assert f"Usage: fate-gym {verb}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fate-gym {__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "Missing command. Remedy: see fate-gym --help."),
        ("polcies", "unknown verb 'polcies'. Remedy: did you mean 'policies'?"),
        ("policies --famly x", "No such option '--famly'. Did you mean '--family'? Remedy: see"),
        ("policies --family hueristic", "unknown family 'hueristic'. Remedy: did you mean"),
        ("report", "Missing argument 'DIRECTORY'. Remedy: see fate-gym report --help."),
        ("report nothing", "nothing: no such directory. Remedy: give the directory of a sweep"),
        ("validate nothing", "nothing: cannot read the file"),
        ("evaluate suite=smoke policy=hefft", "unknown policy 'hefft'. Remedy: did you mean"),
        ("train agent=bcc", "unknown agent 'bcc'. Remedy: did you mean 'bc'"),
        ("track runs --mode onlin", "Invalid value for '--mode'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {message}")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("verb", ["policies --json", "schema", "evaluate --help"])
def test_a_reader_that_has_gone_is_no_error(verb: str) -> None:
    command = f"{sys.executable} -m fate_gym.lab.cli {verb}"
    # More than a pipe holds, or all of it at the end: the reader takes a line.
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -1"],
        cwd=ROOT, env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("script", "verb"),
    [
        ("evaluate", "evaluate"),
        ("train", "train"),
        ("report", "report"),
        ("session_figure", "session"),
        ("fit_cost_model", "fit-cost-model"),
        ("wandb_report", "wandb-view"),
    ],
)
def test_scripts_are_the_verbs(script: str, verb: str) -> None:
    text = (ROOT / "scripts" / f"{script}.py").read_text(encoding="utf-8")
    assert f'main(["{verb}", *sys.argv[1:]])' in text
    assert len(text.splitlines()) < 15
    assert verb in fate_gym.commands


def test_the_makefile_calls_the_verbs() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for script in ("evaluate", "train", "report"):
        assert f"scripts/{script}.py" not in makefile
        assert f"fate-gym {script}" in makefile


def test_benchmark_explains_itself_and_knows_its_sections(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = runpy.run_path(str(ROOT / "scripts" / "benchmark.py"))["main"]
    for word, code, said in [
        ("--help", 0, "SECTION"),
        ("smulator", 2, "unknown section 'smulator': did you mean 'simulator'?"),
    ]:
        monkeypatch.setattr(sys, "argv", ["benchmark.py", word])
        with pytest.raises(SystemExit) as stop:
            benchmark()
        assert stop.value.code == code
        assert said in "".join(capsys.readouterr())


def test_a_file_of_another_kind_is_answered_with_its_verb(
    capsys: pytest.CaptureFixture[str],
) -> None:
    examples = ROOT / "docs" / "examples"
    for verb, file, remedy in [
        ("validate", "imports/spans.json", "fate-gym import"),
        ("validate", "snapshot.json", "fate-gym plan"),
        ("import", "agent.json", "fate-gym validate"),
        ("import", "snapshot.json", "fate-gym plan"),
    ]:
        assert main([verb, str(examples / file)]) == 2
        assert f"Remedy: use {remedy} FILE." in capsys.readouterr().err


def test_a_misspelt_field_is_answered_with_near_matches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "examples" / "agent.json").read_text(encoding="utf-8")
    for good, bad in (("prompt_tokens", "promt_tokens"), ("devices", "devises")):
        (tmp_path / "bad.json").write_text(text.replace(good, bad, 1), encoding="utf-8")
        assert main(["validate", str(tmp_path / "bad.json")]) == 2
        err = capsys.readouterr().err
        assert f"unknown field '{bad}'. Remedy: did you mean '{good}'" in err
