"""`fate-gym calibrate` from end to end, with a tiny decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from fate_gym.lab.calibrate import app
from fate_gym.lab.calibrate.plan import Task, plan
from fate_gym.lab.cli import main
from fate_gym.lab.decoder.shape import DecoderShape
from fate_gym.workloads.gpu_file import read_gpu


@pytest.fixture
def few_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce the tasks to short prompts and small copies."""

    def small(
        shapes: Mapping[str, DecoderShape], sizes: Sequence[int], **options: Any
    ) -> list[Task]:
        return plan(shapes, (1 << 16, 1 << 18), **options, most_tokens=128)

    monkeypatch.setattr(app, "plan", small)


@pytest.mark.usefixtures("few_tasks")
def test_a_cpu_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    path = tmp_path / "mine.yaml"
    command = ["calibrate", "--device", "cpu", "--minutes", "0.001", "--scale", "32"]
    assert main([*command, "--name", "desk", "-o", str(path)]) == 0
    out = capsys.readouterr().out
    assert "whole pass" in out and "gpu: mine.yaml#desk" in out
    gpu = read_gpu("mine.yaml#desk", tmp_path)
    assert gpu.fitted and gpu.own is not None and 0 < gpu.mfu <= 1
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert data["made"]["rounds"] == 3 and data["made"]["torch"]
    assert data["made"]["command"].startswith("fate-gym calibrate --device cpu")
    assert {one["what"] for one in data["residuals"]} >= {"gemm", "prefill", "decode", "pass"}
    assert data["measured"]["disk_gb_s"] > 0
    rows = pd.read_csv(path.with_suffix(".csv"))
    assert (rows.measured_s > 0).all() and (rows.low_s <= rows.measured_s).all()
    assert path.with_suffix(".png").stat().st_size > 1000
    assert {file.suffix for file in tmp_path.iterdir()} == {".yaml", ".csv", ".png"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "Llama-3.1-9B"], "did you mean"),
        (["--scale", "0.5"], "--scale 0.5 is less than 1"),
        (["--minutes", "0"], "--minutes 0 is not above 0"),
        (["--like", "H100"], "unknown GPU 'H100'"),
        (["--model", "Qwen2.5-72B-AWQ"], "quantised"),
        (["--model", "Qwen2.5-72B", "--scale", "1"], "choose a larger --scale"),
        (["--model", "Mixtral-8x7B"], "is a mixture"),
        (["--model", "bge-large"], "is an encoder"),
        (["-o", "mine.json"], "ends in .yaml"),
    ],
)
def test_bad_input_is_one_line(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    assert main(["calibrate", "--device", "cpu", *options]) == 2
    err = capsys.readouterr().err
    assert said in err and len(err.splitlines()) == 1


def test_the_smallest_scale_that_fits_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    device = app.open_device("cpu")
    monkeypatch.setattr(type(device), "free_bytes", 10**13)
    whole = app.shapes_that_fit(device, ["Llama-3.1-8B"], 1.0)["Llama-3.1-8B"]
    assert whole.layers == 32
    first = app.shapes_that_fit(device, ["Llama-3.1-8B"], None)["Llama-3.1-8B"]
    assert first.layers == 4  # a CPU begins small
    monkeypatch.setattr(type(device), "free_bytes", 3 * 10**9)
    assert app.shapes_that_fit(device, ["Qwen2.5-72B"], None)["Qwen2.5-72B"].layers < 10
