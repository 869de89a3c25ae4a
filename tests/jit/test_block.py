"""Blocks: compiled code reads what Python writes, and vice versa."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fate_gym.jit import Block, Ints, Row, clear_block, column, copy_block, kernel, scalar, table


class Item(Row):
    """A record with columns of different sizes."""

    small: int = column("i4", "a number")
    large: float = column("f8", "another", "s")
    last: int = column("i4", "one more")


class Case(Block):
    """Scalars, records, a matrix and small numbers, in an order that needs padding."""

    count: int = scalar("i4", "of something")
    time: float = scalar("f8", "simulated", "s")
    bytes: Any = table("i1", "N", text="single bytes")
    items: Any = table(Item, "N", text="records")
    grid: Any = table("f4", "N", "M", text="a matrix")
    pairs: Any = table("i8", "M", 2, text="of a fixed width")


@kernel
def total(case: Case) -> float:
    """Sum everything in a case."""
    found = case.count + case.time
    for i in range(case.items.size):
        found += case.bytes[i] + case.items[i].small + case.items[i].large + case.items[i].last
        for j in range(case.grid.shape[1]):
            found += case.grid[i, j]
    for j in range(case.pairs.shape[0]):
        found += case.pairs[j, 0] + case.pairs[j, 1]
    return found


@kernel
def fill(case: Case, value: int) -> None:
    """Set everything to one number."""
    case.count = value
    case.time = value
    for i in range(case.items.size):
        case.bytes[i] = value
        case.items[i].small = value
        case.items[i].large = value
        case.items[i].last = value
        for j in range(case.grid.shape[1]):
            case.grid[i, j] = value
    for j in range(case.pairs.shape[0]):
        case.pairs[j, 0] = value
        case.pairs[j, 1] = value


@kernel
def copy(target: Case, source: Case) -> None:
    """As a kernel, to be called from here."""
    copy_block(target, source)


@kernel
def clear(case: Case) -> None:
    """As a kernel, to be called from here."""
    clear_block(case)


@kernel
def time_at(addresses: Ints, i: int) -> float:
    """Return the scalar of one of several blocks, given by address."""
    return Case(addresses[i]).time


SIZES = st.fixed_dictionaries({"N": st.integers(0, 5), "M": st.integers(0, 4)})


def _filled(sizes: dict[str, int], seed: int) -> Case:
    rng = np.random.default_rng(seed)
    case = Case.allocate(**sizes)
    case.count, case.time = int(rng.integers(100)), float(rng.integers(100))
    case.bytes[:] = rng.integers(-100, 100, case.bytes.shape)
    for name in case.items.dtype.names or ():
        case.items[name] = rng.integers(100, size=case.items.shape)
    case.grid[:] = rng.integers(100, size=case.grid.shape)
    case.pairs[:] = rng.integers(100, size=case.pairs.shape)
    return case


def _sum(case: Case) -> float:
    items = sum(float(case.items[name].sum()) for name in case.items.dtype.names or ())
    rest = case.bytes.sum(dtype=float) + case.grid.sum(dtype=float) + case.pairs.sum()
    return float(case.count + case.time + items + rest)


@given(SIZES, st.integers(0, 99))
def test_compiled_code_reads_what_python_wrote(sizes: dict[str, int], seed: int) -> None:
    case = _filled(sizes, seed)
    assert total(case) == _sum(case)


@given(SIZES, st.integers(-100, 100))
def test_python_reads_what_compiled_code_wrote(sizes: dict[str, int], value: int) -> None:
    case = Case.allocate(**sizes)
    fill(case, value)
    assert (case.count, case.time) == (value, value)
    assert (case.bytes == value).all()
    assert all((case.items[name] == value).all() for name in ("small", "large", "last"))
    assert (case.grid == value).all()
    assert (case.pairs == value).all()
    # Nothing was written between the tables, or behind the last.
    fill(case, 0)
    assert not case.buffer[Case.head_at :].any()


@given(SIZES, st.integers(0, 99))
def test_copies_are_alike_and_apart(sizes: dict[str, int], seed: int) -> None:
    case = _filled(sizes, seed)
    compiled, python = Case.allocate(**sizes), case.copy()
    copy(compiled, case)
    thawed = pickle.loads(pickle.dumps(case))
    for other in (compiled, python, thawed):
        assert np.array_equal(other.buffer, case.buffer)
        assert other.address != case.address
    before = case.buffer.copy()
    clear(compiled)
    assert np.array_equal(compiled.buffer, Case.allocate(**sizes).buffer)
    assert np.array_equal(case.buffer, before)


def test_blocks_are_found_by_their_addresses() -> None:
    cases = [Case.allocate(N=1, M=1) for _ in range(3)]
    for i, case in enumerate(cases):
        case.time = 10.0 + i
    addresses = np.array([case.address for case in cases])
    assert [time_at(addresses, i) for i in range(3)] == [10.0, 11.0, 12.0]


def test_a_size_that_is_not_given_is_named() -> None:
    with pytest.raises(KeyError, match="M"):
        Case.allocate(N=1)


def test_the_schema_says_what_every_field_is() -> None:
    described = {name: (f.dimensions, f.unit, f.text) for name, f in Case.fields.items()}
    assert described["time"] == ("", "s", "simulated")
    assert described["grid"] == ("(N, M)", "", "a matrix")
    assert Item.fields["large"].unit == "s"
