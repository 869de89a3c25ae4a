"""`--config-dir`: files that are not YAML, and directories with unusual names."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from fate_gym.errors import InputError
from fate_gym.lab import evaluate
from fate_gym.lab.sweep.arguments import ordered
from fate_gym.workloads.clusters import load_cluster
from fate_gym.workloads.config import parse_yaml

CLUSTER = b"name: mine\nnodes:\n- gpus: {H100-SXM: 2}\n"
BOMB = b"a: &a [x, x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (n + 1, n + 1, b", ".join([b"*%c" % n] * 10)) for n in range(97, 110)
)
MERGES = b"a: &a {x: 1}\n" + b"".join(
    b"%c: &%c {<<: [%s], y%d: 1}\n" % (n + 1, n + 1, b", ".join([b"*%c" % n] * 10), n)
    for n in range(97, 110)
)
BROKEN = {
    "tab": (b"name: mine\n\tnodes: []\n", "not valid YAML"),
    "twice": (b"name: mine\n" + CLUSTER, "the key 'name' is given twice"),
    "twice deep": (
        CLUSTER.replace(b"H100-SXM: 2", b"H100-SXM: 2, H100-SXM: 3"),
        "'H100-SXM' is given twice",
    ),
    "latin 1": ("name: é\n".encode("latin-1"), "not text in UTF-8"),
    "utf 16": (CLUSTER.decode().encode("utf-16"), "not text in UTF-8"),
    "nul": (CLUSTER + b"\x00", "not valid YAML"),
    "deep": (b"[" * 20_000, "nested too deeply"),
    "deep blocks": (b"".join(b" " * n + b"a:\n" for n in range(3_000)), "nested too deeply"),
    "bomb": (BOMB, "aliases make more than"),
    "merged bomb": (MERGES, "aliases make more than"),
    "itself": (b"name: &a [*a]\n", "stands for what it stands in"),
    "no anchor": (b"name: *a\n", "undefined alias"),
    "tag": (b"name: !!python/name:os.system\n", "could not determine a constructor"),
    "list": (b"- name\n", "not a mapping"),
    "text": (b"name", "not a mapping"),
}


@pytest.fixture(autouse=True)
def _in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def own(folder: Path, content: bytes) -> Path:
    file = folder / "cluster" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("more", [["--dry-run"], ["-m"], ["--cfg", "job"]])
def test_a_broken_file_is_one_error(
    kind: str, more: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content, words = BROKEN[kind]
    file = own(tmp_path, content)
    started = time.process_time()  # others may keep the processors busy
    options = ["suite=smoke", "policy=eft", "cluster=mine", "tracking=none"]
    assert evaluate.main(["--config-dir", str(tmp_path), *options, *more]) == 2
    assert time.process_time() - started < 5.0
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith(f"error: {file}: ")
    assert words in err


@pytest.mark.parametrize("kind", BROKEN)
def test_the_same_in_python(kind: str, tmp_path: Path) -> None:
    file = own(tmp_path, BROKEN[kind][0])
    with pytest.raises(InputError) as caught:
        load_cluster("mine", [tmp_path])
    assert caught.value.source == str(file)


def test_anchors_and_merges_are_fine() -> None:
    text = b"a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: [*a, *a]\n"
    a = {"x": 1, "y": 2}
    assert parse_yaml(text, "f") == {"a": a, "b": {"x": 3, "y": 2}, "c": [a, a]}
    assert parse_yaml(b"", "f") is None
    assert parse_yaml(b"\xef\xbb\xbfa: 1", "f") == {"a": 1}


@pytest.mark.parametrize(
    "name", ["ü", "(x)", "[x]", "a=b", "it's", 'x"y', "a,b", " a b ", "a\\'b", "{x}", "a:b", "b\\"]
)
def test_a_directory_of_any_name(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own(tmp_path / name, CLUSTER)
    arguments = ["suite=smoke", "policy=eft,heft", "cluster=mine", "tracking=none", "--dry-run"]
    for given in (["--config-dir", name], [f"--config-dir={name}"]):
        assert evaluate.main([*given, *arguments]) == 0, capfd.readouterr().err
        assert "2 jobs" in capfd.readouterr().out


def test_a_directory_of_any_name_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "ü ([x])='\",y"
    own(tmp_path / name, CLUSTER)
    arguments = ["suite=smoke", "cluster=mine", "tracking=none"]
    assert evaluate.main(["--config-dir", name, *arguments, "policy=eft"]) == 0
    assert "on mine" in capsys.readouterr().out
    assert evaluate.main(["-m", "--config-dir", name, *arguments, "policy=random,eft"]) == 0


def test_no_such_directory(capfd: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["--config-dir", "nowhere", "suite=smoke", "policy=eft"]) == 2
    assert "nowhere: there is no such directory" in capfd.readouterr().err


def test_flags_may_stand_anywhere_and_be_one_word_with_their_value() -> None:
    words = ordered(["suite=smoke", "--config-dir=a=b", "--info", "config", "seed=1", "-m"])
    assert words == ["--config-dir", "a=b", "--info=config", "-m", "suite=smoke", "seed=1"]
