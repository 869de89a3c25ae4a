"""``fate-gym doctor``."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from fate_gym.lab.cli import doctor, main


def found(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in json.loads(capsys.readouterr().out)}


def test_a_whole_installation_has_no_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FATE_GYM_CACHE", str(tmp_path / "cache"))
    assert main(["doctor", "--json"]) == 0
    checks = found(capsys)
    assert {"python", "fate-gym", "numpy", "ortools", "[rl]", "disk"} <= checks.keys()
    assert "empty" in checks["compiled cache"]["found"]
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "one").write_bytes(bytes(2_000_000))
    assert main(["doctor"]) == 0
    assert "1 files, 2 MB" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists(), "it only looks"


def test_what_is_missing_has_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FATE_GYM_CACHE", str(tmp_path / "file" / "cache"))
    real = doctor.version

    def version(name: str) -> str:
        if name in ("numba", "torch"):
            raise PackageNotFoundError(name)
        return "0.1" if name == "numpy" else real(name)

    monkeypatch.setattr(doctor, "version", version)
    assert main(["doctor", "--json"]) == 1
    checks = found(capsys)
    assert checks["numba"]["remedy"].startswith("pip install 'numba")
    assert (checks["numpy"]["state"], checks["numpy"]["found"]) == ("problem", "0.1")
    assert checks["[rl]"]["state"] == "optional"
    assert "torch" in checks["[rl]"]["found"]
    assert checks["[rl]"]["remedy"] == "pip install 'fate-gym[rl]'"
    assert checks["compiled cache"]["remedy"].startswith("set FATE_GYM_CACHE")
