"""Kernels call one another through symbols; a digest of the sources names their compiled code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fate_gym.jit.store import platform_digest
from tests.jit.modules import load

SOURCE = '''
FACTOR = 3.0

class Point(NamedTuple):
    x: float
    y: float

class Cell(Row):
    value: float = column("f8", "a number")

class Grid(Block):
    scale: float = scalar("f8", "a factor")
    cells = table(Cell, "N", text="cells")

@inlined
def weighted(grid: Grid, i: int) -> float:
    """Merged."""
    return FACTOR * grid.cells[i].value

@kernel
def leaf(grid: Grid, i: int) -> Point:
    """Called."""
    if i < 0:
        raise ValueError("below zero")
    return Point(weighted(grid, i), grid.scale)

@kernel
def root(grid: Grid, out: Floats) -> float:
    """Calls."""
    found = 0.0
    for i in range(out.size):
        point = leaf(grid, i)
        out[i] = point.x
        found += point.x * point.y
    return found

class Both(NamedTuple):
    grid: Grid
    factor: float

@kernel
def inside(both: Both) -> float:
    """Gets its block inside a tuple."""
    return both.grid.scale * both.factor

@kernel
def apart(x: float) -> float:
    """Has to do with none of these."""
    return 1.0 / x
'''
NAMES = ("leaf", "root", "inside", "apart")


@pytest.fixture
def digests(tmp_path: Path) -> Callable[[str], list[str]]:
    """Return the digests of the kernels in a module with this text, always of the same name."""
    return lambda text: [getattr(load(tmp_path, text, "jit_edited"), n).digest for n in NAMES]


def test_kernels_call_kernels(tmp_path: Path) -> None:
    module = load(tmp_path, SOURCE)
    grid = module.Grid.allocate(N=3)
    grid.scale, grid.cells["value"] = 2.0, [1.0, 2.0, 3.0]
    out = np.zeros(3)
    assert module.root(grid, out) == 3.0 * 6.0 * 2.0
    assert out.tolist() == [3.0, 6.0, 9.0]
    assert module.leaf(grid, 1) == (6.0, 2.0)
    assert type(module.leaf(grid, 1)) is module.Point
    assert module.inside(module.Both(grid, 1.5)) == 3.0


def test_inlined_functions_can_be_called_from_python(tmp_path: Path) -> None:
    module = load(tmp_path, SOURCE + "\n@inlined\ndef twice(grid: Grid, i: int) -> float:\n"
                  "    return 2.0 * leaf(grid, i).x\n")  # fmt: skip
    grid = module.Grid.allocate(N=1)
    grid.cells["value"] = 5.0
    assert module.twice(grid, 0) == 30.0


def test_compiling_a_caller_compiles_nothing_that_it_calls(tmp_path: Path) -> None:
    text = SOURCE + ("\n@inlined\ndef twice(grid: Grid, i: int) -> float:\n"
                     "    return 2.0 * leaf(grid, i).x\n"
                     "\n@kernel\ndef top(grid: Grid) -> float:\n"
                     "    return twice(grid, 0)\n")  # fmt: skip
    module = load(tmp_path, text)
    module.top.compile()
    assert "_loaded" not in vars(module.leaf)
    assert module.top.requires == [module.leaf]


def test_errors_come_through_calls(tmp_path: Path) -> None:
    module = load(tmp_path, SOURCE + "\n@kernel\ndef bad(grid: Grid) -> float:\n"
                  "    return leaf(grid, -1).x\n")  # fmt: skip
    with pytest.raises(ValueError, match="below zero"):
        module.bad(module.Grid.allocate(N=1))


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    module = load(tmp_path, SOURCE)
    grid = module.Grid.allocate(N=4)
    for wrong in (np.zeros(4, np.int64), np.zeros((2, 2)), np.zeros(8)[::2]):
        with pytest.raises(TypeError, match="argument 1 has to be a contiguous array of float64"):
            module.root(grid, wrong)


def test_calls_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    module = load(tmp_path, SOURCE + "\n@kernel\ndef bad(grid: Grid) -> float:\n"
                  "    return leaf(grid).x\n")  # fmt: skip
    with pytest.raises(Exception, match="leaf takes 2 positional arguments"):
        module.bad(module.Grid.allocate(N=1))


def test_division_by_zero_is_infinite(tmp_path: Path) -> None:
    assert load(tmp_path, SOURCE).apart(0.0) == np.inf


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("# nothing", "# a comment", ()),
        ('"""Called."""', '"""Called from root."""', ()),
        # The body of what is called: only its own code.
        ("if i < 0", "if i < 1", ("leaf",)),
        # What is merged, and constants: wherever they are used.
        ("FACTOR * grid", "2.0 * FACTOR * grid", ("leaf",)),
        ("FACTOR = 3.0", "FACTOR = 4.0", ("leaf",)),
        # A signature: also those that call it.
        ("def leaf(grid: Grid, i: int)", "def leaf(grid: Grid, i: float)", ("leaf", "root")),
        # The order of what a tuple holds, which its type does not show: who makes and who reads it.
        ("    x: float\n    y: float", "    y: float\n    x: float", ("leaf", "root")),
        # A schema: all who work on it.
        ('column("f8", "a number")', 'column("f4", "a number")', ("leaf", "root", "inside")),
        ('scale: float = scalar("f8", "a factor")',
         'scale: float = scalar("f8", "a factor")\n    more: int = scalar("i8", "new")',
         ("leaf", "root", "inside")),
        ("found += point.x * point.y", "found += point.x + point.y", ("root",)),
        ("return 1.0 / x", "return 2.0 / x", ("apart",)),
    ],
)  # fmt: skip
def test_an_edit_compiles_anew_what_depends_on_it(
    digests: Callable[[str], list[str]], old: str, new: str, changed: tuple[str, ...]
) -> None:
    text = "# nothing\n" + SOURCE
    assert old in text
    before, after = digests(text), digests(text.replace(old, new))
    assert before == digests(text)
    found = [name for name, a, b in zip(NAMES, before, after, strict=True) if a != b]
    assert found == list(changed)


def test_versions_and_settings_of_the_compiler_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = platform_digest.__wrapped__()
    monkeypatch.setattr("numba.__version__", "another")
    assert platform_digest.__wrapped__() != before


def test_a_module_is_not_reached_into(tmp_path: Path) -> None:
    module = load(tmp_path, "import json\n@kernel\ndef bad(x: float) -> float:\n"
                  "    return json.x\n")  # fmt: skip
    with pytest.raises(TypeError, match="reaches into module json: import what it uses"):
        module.bad(1.0)
