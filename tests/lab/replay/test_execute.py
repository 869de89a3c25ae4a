"""Real execution of schedules: on a CPU, with tiny decoders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from fate_gym.errors import InputError
from fate_gym.lab.cli import main
from fate_gym.lab.decoder.device import TorchDevice, open_device
from fate_gym.lab.decoder.network import KvCache
from fate_gym.lab.decoder.shape import DecoderShape, shape_of
from fate_gym.lab.replay.execute import Executor, execute, peak_bytes
from fate_gym.lab.replay.script import Evict, Load, Open, Part, Pass, Script, script_of
from fate_gym.lab.replay.study import EXECUTIONS
from fate_gym.lab.replay.units import Units
from tests.lab.replay.test_script import script, trace_of

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def device() -> TorchDevice:
    return open_device("cpu")


def tiny(one: Script) -> dict[str, DecoderShape]:
    """Return tiny decoders in place of the models."""
    facts = one.trace.problem.model_facts
    return {name: shape_of(facts[name], 8) for name in one.models}


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_loads_and_passes_take_time_and_nothing_else_does(
    device: TorchDevice, execution: str
) -> None:
    one = script(1, execution, "round_robin")
    assert any(isinstance(operation, Evict) for operation in one.operations)
    seconds = execute(device, one, tiny(one)).run()
    for operation, taken in zip(one.operations, seconds, strict=True):
        assert (taken > 0) == isinstance(operation, Load | Pass)


def test_prefixes_are_found_where_they_were_left(device: TorchDevice) -> None:
    """The second part of a group copies what the first has computed, and computes no more of it."""
    one = script(3, "exclusive", "heft")
    reusing = next(part for part in one.parts if part.known == part.prefix > 0)
    executor = Executor(device, one, tiny(one))
    seen: list[KvCache] = []
    with device.torch.inference_mode():
        for operation in one.operations:
            executor._execute(operation)
            executor.progress.follow(operation)
            if operation == Open(reusing.number):
                break
    cache = executor._caches[reusing.number]
    seen.append(cache)
    known = cache.keys[..., : reusing.known, :]
    assert (known.abs().sum(dim=(0, 2, 4)) > 0).all()
    assert (cache.keys[..., reusing.known :, :] == 0).any()
    entry = executor._prefixes[reusing.path[0].key[1]]
    assert torch.equal(known[:, 0], entry[0][..., : reusing.known, :])


def part_of(queries: int, known: int, tokens: int) -> Part:
    return Part(
        number=0, stage=0, model="m", queries=queries, prefix=20, known=known, own=12,
        tokens=tokens, pairs=0.0, output=1, first_comes_with_prompt=True, path=(), written=(),
        parents=(), has_heirs=False, transfer_s=0.0,
    )  # fmt: skip


@pytest.mark.parametrize("budget", [1, 3, 7, 12, 13, 25, 1000])
@pytest.mark.parametrize(("queries", "known", "tokens"), [(1, 0, 32), (3, 20, 36), (4, 5, 60),
                                                          (3, 20, 20), (2, 0, 20)])  # fmt: skip
def test_chunks_cover_the_prompts(
    device: TorchDevice, queries: int, known: int, tokens: int, budget: int
) -> None:
    """Every token that is computed is so once, whatever the chunks, up to the prompt's end."""
    units = Units(part_of(queries, known, tokens))
    shape = DecoderShape(1, 64, 1, 1, 16, 64, 256)
    cache = KvCache(device, shape, queries, 33)
    computed: dict[tuple[int, int], int] = {}
    ends = set()
    left = tokens
    while left > 0:
        segments = units.take(cache, min(budget, left))
        assert sum(segment.tokens for segment in segments) == min(budget, left)
        left -= min(budget, left)
        for segment in segments:
            for row in range(segment.rows.start, segment.rows.stop):
                for place in range(segment.start, segment.start + segment.length):
                    computed[row, place] = computed.get((row, place), 0) + 1
                ends |= {row} if segment.logits else set()
    assert set(computed.values()) == {1}
    assert len(computed) == tokens
    assert {place for row, place in computed if row == 0} >= set(range(known, 20))
    if tokens > 20 - known:
        assert ends == set(range(queries))


def test_memory_is_planned_before_anything_runs(device: TorchDevice) -> None:
    one = script(1, "exclusive", "round_robin")
    shapes = tiny(one)
    peak = peak_bytes(one, shapes)
    weights = sorted(2 * shape.params for shape in shapes.values())
    assert sum(weights[:2]) < peak < sum(weights) + 10**8
    huge = {name: replace(shape, layers=10**6) for name, shape in shapes.items()}
    with pytest.raises(InputError, match="raise --scale"):
        execute(device, one, huge)


def test_the_command_replays_a_saved_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace_of(1, "batching", "heft").save(tmp_path / "run.json")
    command = ["replay", str(tmp_path / "run.json"), "--device", "cpu", "--scale", "8"]
    assert main([*command, "--repeats", "2", "-o", str(tmp_path / "rows.csv")]) == 0
    out = capsys.readouterr().out
    assert "heft on CPU, 2 times" in out and "8 stages, median error" in out
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert set(rows.what) == {"phase", "stage", "makespan"}
    assert (rows.measured_s > 0).all()


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ('{"trace_version": 9}', [], "trace of version 9"),
        ("[]", [], "not a trace"),
        (None, ["--repeats", "0"], "at least 1"),
        (None, ["--gpu", "L4"], "FILE.yaml#NAME"),
        (None, ["--of", "d9"], "unknown device 'd9'"),
        (None, ["--device", "tpu"], "unknown device 'tpu'"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: str | None,
    options: list[str],
    said: str,
) -> None:
    path = tmp_path / "run.json"
    trace_of(1, "exclusive", "heft").save(path)
    if change is not None:
        path.write_text(change, encoding="utf-8")
    assert main(["replay", str(path), "--device", "cpu", *options]) == 2
    err = capsys.readouterr().err
    assert said in err and len(err.splitlines()) == 1


def test_a_loaded_trace_is_the_same_script(tmp_path: Path) -> None:
    trace = trace_of(2, "batching", "fate_rollout")
    trace.save(tmp_path / "run.json")
    again = type(trace).load(tmp_path / "run.json")
    assert script_of(again, None, "x").operations == script_of(trace, None, "x").operations
