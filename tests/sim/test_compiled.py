"""The cache of compiled code must not outlive a source that it was compiled from."""

from __future__ import annotations

import shutil
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import numba
import pytest

from fate_gym import compiled as module
from fate_gym.compiled import cache_directory, compiled, inlined, plain

PACKAGES = ("fate_gym.sim", "policies")


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the packages with compiled code; the cache looks there."""
    for package in PACKAGES:
        spec = find_spec(package)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        shutil.copytree(
            next(iter(spec.submodule_search_locations)),
            tmp_path / package,
            ignore=shutil.ignore_patterns("__pycache__"),
        )

    def find(package: str) -> ModuleSpec | None:
        if not (tmp_path / package).exists():
            return None
        spec = ModuleSpec(package, None, is_package=True)
        assert spec.submodule_search_locations is not None
        spec.submodule_search_locations.append(str(tmp_path / package))
        return spec

    monkeypatch.setattr(module, "find_spec", find)
    monkeypatch.setenv("FATE_GYM_CACHE", str(tmp_path / "cache"))
    return tmp_path


def directory() -> Path:
    """As a new process would find it."""
    return cache_directory.__wrapped__()


@pytest.mark.parametrize(
    "file", ["fate_gym.sim/cost.py", "fate_gym.sim/tables.py", "policies/fate/scoring.py"]
)
def test_an_edit_starts_a_new_cache(sources: Path, file: str) -> None:
    before = directory()
    assert directory() == before
    path = sources / file
    source = path.read_bytes()
    path.write_bytes(source + b"\n# changed\n")
    assert directory() != before
    path.write_bytes(source)
    assert directory() == before


def test_a_new_file_with_compiled_code_starts_a_new_cache(sources: Path) -> None:
    before = directory()
    (sources / "policies" / "new.py").write_text("@compiled\ndef f(): ...\n", encoding="utf-8")
    assert directory() != before


def test_files_without_compiled_code_do_not_matter(sources: Path) -> None:
    before = directory()
    path = sources / "fate_gym.sim" / "validator.py"
    path.write_bytes(path.read_bytes() + b"\n# changed\n")
    assert directory() == before


def test_the_version_of_the_compiler_counts(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = directory()
    monkeypatch.setattr(numba, "__version__", "another")
    assert directory() != before


def test_where_the_cache_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("FATE_GYM_CACHE", str(tmp_path / "own"))
    assert directory().parent == tmp_path / "own" / "fate-gym"
    monkeypatch.delenv("FATE_GYM_CACHE")
    assert directory().parent == tmp_path / "xdg" / "fate-gym"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert directory().parent == tmp_path / ".cache" / "fate-gym"


def test_code_is_kept_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cache_directory", lambda: tmp_path)
    saved = numba.config.CACHE_DIR

    @compiled
    def half(x: float) -> float:
        return x / 2

    assert saved == numba.config.CACHE_DIR
    assert half(3.0) == 1.5
    assert list(tmp_path.rglob("*half*.nbc"))


def test_plain_is_the_function_itself() -> None:
    def third(x: float) -> float:
        return x / 3

    assert plain(inlined(third)) is third


def test_division_by_zero_is_infinite() -> None:
    @inlined
    def inverse(x: float) -> float:
        return 1.0 / x

    assert inverse(0.0) == float("inf")
