"""The cache of compiled code must not outlive a source that it was compiled from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numba
import pytest

from fate_gym import compiled as module
from fate_gym.compiled import cache_root, compiled, inlined, plain, source_digest

TREE = {
    "fate_gym/sim/tables.py": "@inlined\ndef cut(): ...\n",
    "fate_gym/sim/facts.py": "ANSWER = 42\n",
    "fate_gym/sim/cost.py": (
        "from fate_gym.sim.facts import ANSWER\n"
        "from fate_gym.sim.tables import (\n    cut,\n)\n\n@compiled\ndef price(): ...\n"
    ),
    "fate_gym/sim/__init__.py": "from fate_gym.sim import trace\n",
    "fate_gym/sim/trace.py": "import json\n",
    "policies/__init__.py": "",
    "policies/base.py": "from fate_gym.sim import cost\n",
    "policies/mine.py": "from policies import base\n\n@compiled\ndef decide(): ...\n",
}


@pytest.fixture
def changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str], tuple[bool, ...]]:
    """Says of which files the digest changes with an edit, as a new process would find it."""
    for name, text in TREE.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(module, "_HOME", tmp_path)

    def digests(files: tuple[str, ...]) -> list[str]:
        for function in (source_digest, module._text, module._imports):
            function.cache_clear()
        return [source_digest(tmp_path / file) for file in files]

    def edit(edited: str, *files: str) -> tuple[bool, ...]:
        before = digests(files)
        path = tmp_path / edited
        text = path.read_text(encoding="utf-8")
        path.write_text(text + "# changed\n", encoding="utf-8")
        after = digests(files)
        path.write_text(text, encoding="utf-8")
        assert digests(files) == before
        return tuple(a != b for a, b in zip(before, after, strict=True))

    return edit


COST, TABLES, MINE = "fate_gym/sim/cost.py", "fate_gym/sim/tables.py", "policies/mine.py"


@pytest.mark.parametrize(
    ("edited", "cost", "tables", "mine"),
    [
        (TABLES, True, True, True),
        (COST, True, False, True),
        (MINE, False, False, True),
        ("fate_gym/sim/facts.py", True, False, True),
        ("policies/base.py", False, False, True),
        ("fate_gym/sim/trace.py", False, False, False),
    ],
)
def test_an_edit_makes_anew_what_is_built_on_it(
    changed: Callable[..., tuple[bool, ...]], edited: str, cost: bool, tables: bool, mine: bool
) -> None:
    assert changed(edited, COST, TABLES, MINE) == (cost, tables, mine)


def test_imports_are_found_in_the_real_tree() -> None:
    home = Path(module.__file__).parent
    found = module._imports(home / "sim" / "cost.py")
    assert home / "sim" / "layout.py" in found
    assert home / "sim" / "tables.py" in module._imports(home / "sim" / "layout.py")


def test_the_version_of_the_compiler_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "one.py"
    path.write_text("@compiled\n", encoding="utf-8")
    before = source_digest.__wrapped__(path)
    assert source_digest.__wrapped__(path) == before
    monkeypatch.setattr(numba, "__version__", "another")
    assert source_digest.__wrapped__(path) != before


def test_where_the_cache_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("FATE_GYM_CACHE", str(tmp_path / "own"))
    assert cache_root() == tmp_path / "own" / "fate-gym"
    monkeypatch.delenv("FATE_GYM_CACHE")
    assert cache_root() == tmp_path / "xdg" / "fate-gym"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cache_root() == tmp_path / ".cache" / "fate-gym"


def test_code_is_kept_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cache_directory", lambda _: tmp_path)
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
