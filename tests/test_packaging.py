"""The built wheel, alone in an empty environment with what it declares, runs a job."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _declared(name: str, extras: frozenset[str], found: dict[str, Distribution]) -> None:
    """Collect the direct and indirect dependencies of a distribution on this machine."""
    from packaging.requirements import Requirement

    for text in distribution(name).requires or []:
        need = Requirement(text)
        wanted = [{"extra": extra} for extra in extras or {""}]
        if need.marker and not any(need.marker.evaluate(one) for one in wanted):
            continue
        try:
            one = distribution(need.name)
        except PackageNotFoundError:
            continue  # for another Python or system, by a marker that pip knows better
        if need.name.lower() not in found:
            found[need.name.lower()] = one
            _declared(need.name, frozenset(need.extras), found)


def _link(one: Distribution, site: Path) -> None:
    """Show a distribution's files in another site directory; namespace packages are merged."""
    for top in {Path(str(file)).parts[0] for file in one.files or []} - {"..", "__pycache__"}:
        source, target = Path(str(one.locate_file(top))), site / top
        if source.is_dir() and not top.endswith("-info") and not (source / "__init__.py").exists():
            target.mkdir(exist_ok=True)
            for inner in source.iterdir():
                if not (target / inner.name).exists():
                    (target / inner.name).symlink_to(inner)
        elif source.exists() and not target.exists():
            target.symlink_to(source)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_everything_that_is_read_at_run_time(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "fate_gym", "policies", "conf", "hydra_plugins"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert set(tracked) <= inside
    assert not [name for name in inside if name.startswith(("tests/", "scripts/", "docs/"))]


@pytest.mark.slow
def test_the_wheel_runs_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install"]
    subprocess.run(
        [*pip, "-q", "--no-deps", "--no-index", str(wheel)], check=True, capture_output=True
    )
    (site,) = home.glob("lib/python*/site-packages")
    found: dict[str, Distribution] = {}
    _declared("fate-gym", frozenset(), found)
    assert "hydra-core" in found and "optuna" not in found and "pytest" not in found
    for one in found.values():
        _link(one, site)
    # Compiled code is kept by content: what the checkout has compiled serves the installed files.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    program = home / "bin" / "fate-gym"

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [str(program), *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "round_robin" in run("policies")
    out = run("evaluate", "suite=smoke", "policy=least_loaded", "trace=true")
    assert "smoke/least_loaded/s0 on mixed_8" in out
    assert list(tmp_path.glob("runs/default/smoke/least_loaded/s0-*/wandb/offline-run-*"))
    assert re.search(r"report: runs/default/report\.html", run("report", "runs/default"))
    where = subprocess.run(
        [str(home / "bin" / "python"), "-c", "import fate_gym, conf; print(conf.__file__)"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert where.startswith(str(site))
