"""Every command and every piece of code in the README works."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from PIL import Image

from fate_gym.lab.cli.app import fate_gym

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the code blocks of one language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def run(command: list[str], folder: Path) -> str:
    """Run a command of the README, with results below ``folder``."""
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def commands() -> list[str]:
    """Return the `fate-gym` command lines; installation and `make` targets run in CI."""
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    others = [line for line in lines if not line.startswith("fate-gym ")]
    assert others == ["pip install .", "make compare", "make test"]
    return [line for line in lines if line not in others]


def adapted(line: str, folder: Path) -> list[str]:
    """Adapt a command: this interpreter, a small suite, results below ``folder``."""
    smaller = re.sub(
        r"suite=(?!files)\w+", "suite=smoke", re.sub(r"range\(\d+\)", "range(1)", line)
    )
    program, verb, *rest = shlex.split(smaller)
    assert program == "fate-gym"
    if verb == "evaluate":
        rest.append(f"paths.runs={folder}")
    if verb == "demo":
        rest += ["--no-open", "--figure", str(folder / "demo.png")]
    rest = [
        word.replace("runs/", f"{folder}/") if word.startswith("runs/") else word for word in rest
    ]
    return [sys.executable, "-m", "fate_gym.lab.cli", verb, *rest]


def test_commands(tmp_path: Path) -> None:
    lines = commands()
    assert len(lines) >= 6
    for line in lines:
        run(adapted(line, tmp_path), tmp_path)
    assert (tmp_path / "demo.png").exists()
    assert (tmp_path / "mine" / "report.md").exists()
    assert list(tmp_path.rglob("trace.json"))


def test_commands_in_the_text_are_verbs() -> None:
    inline = re.findall(r"`fate-gym ([a-z-]+)[^`]*`", README)
    assert {"demo", "doctor", "render", "new-policy", "import", "train"} <= set(inline)
    assert set(inline) <= fate_gym.commands.keys()


def test_makefile_runs_the_documented_comparison() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "experiment=main suite=quick name=quick" in makefile
    assert "eleven policies" in README
    experiment = (ROOT / "conf" / "experiment" / "main.yaml").read_text(encoding="utf-8")
    assert len(experiment.split(">-")[1].split(",")) == 11


def test_the_animation_is_that_of_the_named_command(tmp_path: Path) -> None:
    assert "`fate-gym render policy=fate --problem 1`" in README
    file = tmp_path / "episode.gif"
    run(adapted(f"fate-gym render policy=fate --problem 1 -o {file}", tmp_path), tmp_path)
    with Image.open(file) as made, Image.open(ROOT / "docs/images/episode.gif") as shown:
        assert made.size == shown.size
        assert made.n_frames == shown.n_frames
    assert (ROOT / "docs/images/episode.gif").stat().st_size < 300_000


def test_python(tmp_path: Path) -> None:
    first, *others = blocks("python")
    output = run([sys.executable, "-c", first], tmp_path)
    assert output == blocks("text")[0]
    makespans = {line.split()[0]: float(line.split()[1]) for line in output.splitlines()}
    assert makespans["fate"] < makespans["heft"] < makespans["round_robin"]
    for code in others:
        run([sys.executable, "-c", code], tmp_path)


def test_the_error_message_is_the_real_one(tmp_path: Path) -> None:
    example = (ROOT / "docs" / "examples" / "agent.json").read_text(encoding="utf-8")
    (tmp_path / "my.json").write_text(
        example.replace("Llama-3.1-8B", "Llama-3.1-8b", 1), encoding="utf-8"
    )
    done = subprocess.run(
        [sys.executable, "-m", "fate_gym.lab.cli", "validate", "my.json"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    shown = blocks("text")[-1]
    assert done.returncode == 2
    assert done.stderr.strip() == shown.strip()


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    local = [target for target in targets if not target.startswith("http")]
    assert local
    for target in local:
        assert (ROOT / target).exists(), target


def test_it_is_short_and_shows_one_table_of_results() -> None:
    assert len(README.encode()) < 10_000
    assert README.count("<!-- begin runs/") == 1
    table = README.split("<!-- begin runs/quick -->")[1].split("<!-- end")[0]
    assert sum(line.startswith("| ") for line in table.splitlines()) <= 7
