"""Checkpoints from untrusted sources: an agent that plays, or one clear error."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fate_gym.errors import InputError
from fate_gym.sim import Simulator
from policies import make_policy
from policies.learned.checkpoint import (
    FACTS,
    SHIPPED,
    WEIGHTS,
    load_checkpoint,
    shipped_checkpoints,
)
from tests.fuzz.bounds import bounded
from tests.fuzz.check import taken
from tests.fuzz.mutants import mutated_bytes, mutated_value
from tests.fuzz.test_parameters import PROBLEM

FOLDER = SHIPPED / shipped_checkpoints()[0]
PACKED = (FOLDER / WEIGHTS).read_bytes()
CONTENT: dict[str, Any] = json.loads((FOLDER / FACTS).read_text(encoding="utf-8"))
with zipfile.ZipFile(io.BytesIO(PACKED)) as _archive:
    ARRAYS = {entry.filename: _archive.read(entry) for entry in _archive.infolist()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoint")


def write(folder: Path, packed: bytes, content: Any = CONTENT) -> None:
    """Write a checkpoint whose hash matches its weights."""
    if isinstance(content, dict):
        content = content | {"weights_sha256": hashlib.sha256(packed).hexdigest()}
    (folder / WEIGHTS).write_bytes(packed)
    (folder / FACTS).write_text(json.dumps(content), encoding="utf-8")


def play(folder: Path) -> None:
    Simulator(PROBLEM).run(make_policy("learned", checkpoint=str(folder)))


def zipped(arrays: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, content in arrays.items():
            archive.writestr(name, content)
    return packed.getvalue()


def saved(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def header(text: str, version: bytes = b"\x01\x00") -> bytes:
    """Return an array's file header with an arbitrary text."""
    width = "<H" if version == b"\x01\x00" else "<I"
    return b"\x93NUMPY" + version + struct.pack(width, len(text)) + text.encode("latin-1")


@given(st.randoms())
def test_mutants_of_the_facts(folder: Path, draw: random.Random) -> None:
    write(folder, PACKED, mutated_value(draw, CONTENT))
    taken(lambda: play(folder))


@given(st.randoms())
def test_mutants_of_the_archive(folder: Path, draw: random.Random) -> None:
    write(folder, mutated_bytes(draw, PACKED))
    taken(lambda: play(folder))


@given(st.randoms())
def test_mutants_of_the_arrays(folder: Path, draw: random.Random) -> None:
    arrays = dict(ARRAYS)
    name = draw.choice(sorted(arrays))
    match draw.randrange(5):
        case 0:
            del arrays[name]
        case 1:
            arrays[draw.choice((f"x{name}", *arrays))] = arrays.pop(name)
        case 2:  # the header
            arrays[name] = mutated_bytes(draw, arrays[name][:128]) + arrays[name][128:]
        case 3:
            arrays[name] = mutated_bytes(draw, arrays[name])
        case _:
            array = np.load(io.BytesIO(arrays[name]))
            index = draw.randrange(array.size)
            array.flat[index] = draw.choice((np.nan, np.inf, 3e38, -3e38, 1e6, -1e6, 1e-45, 0.0))
            if draw.random() < 0.5:
                array = draw.choice((array.T, array[:1], array.astype("S4"), array.astype("f8")))
            arrays[name] = saved(array)
    write(folder, zipped(arrays))
    taken(lambda: play(folder))


FOUR = "{'descr': '<f4', 'fortran_order': False, 'shape': %s}"
HOSTILE = {
    "strings": saved(np.array(["a", "b"])),
    "objects": saved(np.array([object()]), allow_pickle=True),
    "records": saved(np.zeros(2, [("a", "<f4")])),
    "integers": saved(np.zeros((1, 32), np.int64)),
    "swapped": saved(np.zeros((1, 32), ">f4")),
    "nothing": b"",
    "python 2": header("{'descr': '<f4', 'fortran_order': False, 'shape': (1L, 32L)}") + bytes(128),
    "magic": b"\x93NUMPY",
    "no dict": header("[" * 5_000),
    "no end": header("{'descr': '<f4'"),
    "too long": header(FOUR % "(32,)" + " " * 20_000),
    "negative": header(FOUR % "(-1, -32)"),
    "huge": header(FOUR % f"({10**18},)"),
    "overflow": header(FOUR % f"({2**63}, {2**63})"),
    "short": header(FOUR % "(1, 32)"),
    "version 2": header(FOUR % "(1, 32)", b"\x02\x00") + bytes(128),
    "version 9": header(FOUR % "(1, 32)", b"\x09\x00") + bytes(128),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_arrays_that_are_none(folder: Path, kind: str) -> None:
    write(folder, zipped(ARRAYS | {"score.weight.npy": HOSTILE[kind]}))
    with pytest.raises(InputError) as caught, bounded(megabytes=64):
        play(folder)
    assert "not an archive of arrays" in caught.value.fault or kind == "swapped"
    assert str(folder / WEIGHTS) in str(caught.value) or kind == "swapped"


def test_what_is_small_and_unpacks_to_gigabytes(folder: Path) -> None:
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("score.weight.npy", "w", force_zip64=True) as stream,
    ):
        stream.write(header(FOUR % f"({3 * 2**28},)"))
        for _ in range(768):
            stream.write(bytes(2**20))
    write(folder, packed.getvalue())
    with pytest.raises(InputError, match="it unpacks to 805,"), bounded(megabytes=64):
        load_checkpoint(folder)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression(folder: Path, method: int) -> None:
    write(folder, zipped(ARRAYS, method))
    with pytest.raises(InputError, match="compressed in another way"):
        load_checkpoint(folder)


def test_weights_that_are_too_large(folder: Path) -> None:
    weights = {name: np.load(io.BytesIO(content)) for name, content in ARRAYS.items()}
    write(folder, zipped(ARRAYS | {"score.bias.npy": saved(np.array([3e38], np.float32))}))
    with pytest.raises(InputError, match=r"beyond 1e\+06 \(score\.bias\)"):
        load_checkpoint(folder)
    write(folder, zipped({name: saved(np.full_like(a, 1e6)) for name, a in weights.items()}))
    with pytest.raises(InputError, match="scores are not finite"):
        play(folder)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"network": {"hidden": -5}}, "network.hidden"),
        ({"network": {"hidden": True}}, "network.hidden"),
        ({"network": {"rounds": 10**9}}, "network.rounds"),
        ({"sizes": {"devices": 10**9}}, "sizes.devices"),
        ({"env": {"window": 10**6}}, "env.window"),
        ({"env": {"max_devices": 10**6}}, "env.max_devices"),
        ({"env": {"time_scale": 1e308}}, "env.time_scale"),
        ({"env": {"observation": ["stages", "candidates", "globals"]}}, "env.observation"),
        ({"network": {"kind": "graph"}, "env": {"dag": False}}, "env.dag"),
    ],
)
def test_facts_that_nothing_can_play(
    folder: Path, change: dict[str, dict[str, Any]], field: str
) -> None:
    content = copy.deepcopy(CONTENT)
    for part, values in change.items():
        content[part] |= values
    write(folder, PACKED, content)
    with pytest.raises(InputError) as caught, bounded(megabytes=64):
        play(folder)
    assert caught.value.field == field


def test_an_observation_that_no_memory_holds(folder: Path) -> None:
    content = copy.deepcopy(CONTENT)
    content["env"] |= {"window": 1024, "max_devices": 10_000, "max_shards": 16}
    write(folder, PACKED, content)
    with pytest.raises(InputError, match="an observation would have"), bounded(megabytes=64):
        play(folder)


@pytest.mark.parametrize("kind", ["graph", "mlp"])
def test_other_networks_take_no_memory_before_they_fit(folder: Path, kind: str) -> None:
    pytest.importorskip("torch")
    import policies.learned.networks  # noqa: F401  before memory is short

    content = copy.deepcopy(CONTENT)
    content["network"] |= {"kind": kind, "hidden": 4096}
    content["sizes"]["devices"] = 10**4
    content["env"]["dag"] = kind == "graph"
    write(folder, PACKED, content)
    with pytest.raises(InputError, match="not those of the network"), bounded(megabytes=256):
        play(folder)
