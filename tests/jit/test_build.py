"""The cache of compiled code with many processes, damaged files and a full disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fate_gym.jit import build
from fate_gym.jit.store import Store, default_directory
from tests.jit.modules import HEADER, load

KERNELS = "\n".join(
    f"@kernel\ndef f{i}(x: float) -> float:\n    return "
    + (f"f{i - 1}(x) + {float(i)}\n" if i else "x\n")
    for i in range(8)
)
TOP = sum(range(8)) + 1.0


@pytest.fixture
def script(tmp_path: Path) -> list[str]:
    """Return a command that calls eight kernels and prints the results."""
    (tmp_path / "jit_script.py").write_text(HEADER + KERNELS, encoding="utf-8")
    return [sys.executable, "-c", "from jit_script import f7; print(f7(1.0))"]


def _environment(tmp_path: Path, store: Path) -> dict[str, str]:
    home = Path(__file__).resolve().parents[2]
    return os.environ | {"PYTHONPATH": f"{tmp_path}:{home}", "FATE_GYM_CACHE": str(store)}


def _run(script: list[str], environment: dict[str, str]) -> tuple[str, str]:
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip(), done.stderr


def test_what_is_compiled_once_is_found_again(tmp_path: Path, script: list[str]) -> None:
    environment = _environment(tmp_path, tmp_path / "store")
    out, said = _run(script, environment)
    assert float(out) == TOP
    # One line: what, how long, that it is only once, and where it is kept.
    assert said.count("\n") == 1
    assert said.startswith("fate-gym: compiling 8 functions for this CPU, about ")
    assert f"only once, they are kept in {tmp_path / 'store'}" in said
    assert _run(script, environment) == (out, "")


def test_many_processes_start_on_an_empty_store(tmp_path: Path, script: list[str]) -> None:
    environment = _environment(tmp_path, tmp_path / "store")
    started = [
        subprocess.Popen(
            script, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    results = [process.communicate() for process in started]
    assert [float(out) for out, _ in results] == [TOP] * 6
    assert sum("compiling" in said for _, said in results) == 1


@pytest.mark.parametrize("damage", [b"", b"short", b"\0" * 4096])
def test_a_damaged_file_is_compiled_anew(tmp_path: Path, script: list[str], damage: bytes) -> None:
    environment = _environment(tmp_path, tmp_path / "store")
    _run(script, environment)
    for path in (tmp_path / "store").glob("jit_script.f*.bin"):
        path.write_bytes(damage)
    assert float(_run(script, environment)[0]) == TOP
    assert _run(script, environment) == (str(TOP), "")


def test_a_file_that_is_cut_is_none(tmp_path: Path) -> None:
    module = load(tmp_path, "@kernel\ndef f(x: float) -> float:\n    return x\n")
    store = Store(tmp_path)
    assert store.read(module.f) is None
    assert store.write(module.f, module.f.compile())
    assert store.read(module.f) is not None
    data = store.path(module.f).read_bytes()
    for size in (0, 31, 32, len(data) // 2, len(data) - 1):
        store.path(module.f).write_bytes(data[:size])
        assert store.read(module.f) is None
    assert not list(tmp_path.glob("*.part"))


def test_versions_of_long_ago_are_dropped(tmp_path: Path) -> None:
    store, kept = Store(tmp_path), []
    for number in range(3):
        text = f"@kernel\ndef f(x: float) -> float:\n    return x + {number}.0\n"
        module = load(tmp_path, text, "jit_version")
        store.write(module.f, module.f.compile())
        kept.append(store.path(module.f))
        if number == 0:
            os.utime(kept[0], (0.0, 0.0))
    assert [path.exists() for path in kept] == [False, True, True]


@pytest.mark.parametrize("where", ["/proc/none", "/dev/full"])
def test_a_store_that_cannot_be_written_lasts_as_long_as_the_process(
    tmp_path: Path, script: list[str], where: str
) -> None:
    out, said = _run(script, _environment(tmp_path, Path(where)))
    assert float(out) == TOP
    assert "compiling 8 functions" in said
    assert f"for this process alone, since {where} cannot be written: set FATE_GYM_CACHE" in said


def test_a_store_that_is_full_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load(tmp_path, "@kernel\ndef f(x: float) -> float:\n    return x\n")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert not Store(tmp_path / "store").write(module.f, module.f.compile())
    assert module.f(2.0) == 2.0


@pytest.mark.parametrize("where", ["/dev/null", "store"])
def test_an_edit_in_another_file_is_seen(tmp_path: Path, where: str) -> None:
    """With a store, and with one that cannot be written: numba's own cache did not see it."""
    environment = _environment(tmp_path, tmp_path / where)
    caller = "from jit_callee import callee\n" + KERNELS
    caller += "@kernel\ndef top(x: float) -> float:\n    return callee(x) + 0.0 * f7(x)\n"
    command = [sys.executable, "-c", "from jit_caller import top; print(top(1.0))"]
    (tmp_path / "jit_caller.py").write_text(HEADER + caller, encoding="utf-8")
    for factor in (2.0, 20.0):
        callee = f"@kernel\ndef callee(x: float) -> float:\n    return {factor} * x\n"
        (tmp_path / "jit_callee.py").write_text(HEADER + callee, encoding="utf-8")
        assert float(_run(command, environment)[0]) == factor


def test_what_could_change_unseen_is_refused(tmp_path: Path) -> None:
    text = (
        "def plain(x):\n    return x\n\n@kernel\ndef f(x: float) -> float:\n    return plain(x)\n"
    )
    module = load(tmp_path, text)
    with pytest.raises(TypeError, match=r"f uses <function plain"):
        module.f.digest  # noqa: B018


def test_what_surrounds_a_kernel_is_part_of_it(tmp_path: Path) -> None:
    inner = "    @kernel\n    def f(x: float) -> float:\n        return x + y\n"
    text = f"def make(y):\n{inner}    return f\n"
    module = load(tmp_path, text)
    assert module.make(1.0).digest != module.make(2.0).digest


def test_without_any_room_it_runs_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> object:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build, "REGISTRY", [])
    monkeypatch.setattr(build, "STORE", Store(tmp_path / "store"))
    module = load(tmp_path, KERNELS, "jit_no_room")
    for name in ("TemporaryDirectory", "TemporaryFile"):
        monkeypatch.setattr(f"tempfile.{name}", full)
    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(Path, "open", full)
    assert module.f7(1.0) == TOP


def test_a_lock_of_another_user_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "REGISTRY", [])  # else whatever this process has imported, too
    monkeypatch.setattr(build, "STORE", Store(tmp_path / "store"))
    module = load(tmp_path, KERNELS, "jit_foreign_lock")
    (tmp_path / "store" / "lock").mkdir(parents=True)  # cannot be opened, by root neither
    assert module.f7(1.0) == TOP


def test_where_the_store_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("FATE_GYM_CACHE", str(tmp_path / "own"))
    assert default_directory() == tmp_path / "own"
    monkeypatch.delenv("FATE_GYM_CACHE")
    assert default_directory() == tmp_path / "xdg" / "fate-gym"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert default_directory() == tmp_path / ".cache" / "fate-gym"

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert default_directory() == Path("/dev/null")


def test_only_what_can_be_imported_is_compiled_elsewhere(tmp_path: Path) -> None:
    module = load(tmp_path, "def make():\n    @kernel\n    def inner(x: float) -> float:\n"
                  "        return x\n    return inner\n")  # fmt: skip
    inner = module.make()
    assert build.missing([inner]) == []
    assert inner(3.0) == 3.0


def test_an_error_of_a_kernel_reaches_the_caller(tmp_path: Path) -> None:
    text = KERNELS + "\n@kernel\ndef bad(x: float) -> float:\n    return f7(x) + x.nothing\n"
    (tmp_path / "jit_script.py").write_text(HEADER + text, encoding="utf-8")
    command = [sys.executable, "-c", "from jit_script import bad; bad(1.0)"]
    environment = _environment(tmp_path, tmp_path / "store")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Unknown attribute 'nothing'" in done.stderr
