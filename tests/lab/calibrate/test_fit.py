"""The fit recovers the constants of a made-up GPU, and a GPU's file preserves them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import fate_gym
from fate_gym import catalog
from fate_gym.catalog import Gpu, Own
from fate_gym.errors import InputError
from fate_gym.lab.calibrate.entry import check_place, write_entry
from fate_gym.lab.calibrate.fit import Sheet, fit_gpu, predicted_s
from fate_gym.lab.calibrate.plan import Measured, Task, measure, plan
from fate_gym.lab.calibrate.report import comparison, error_markdown, errors, figure
from fate_gym.lab.decoder.shape import DecoderShape, shape_of
from fate_gym.problem import dump_problem, parse_problem
from fate_gym.workloads import load_cluster, load_problem_file
from fate_gym.workloads.gpu_file import read_gpu

SHAPES = {name: shape_of(catalog.model(name)) for name in ("Llama-3.1-8B", "Qwen2.5-7B")}
SIZES = (10**8, 4 * 10**8, 16 * 10**8)
SHEET = Sheet("mine", 80.0, watts=300.0, usd_per_hour=2.0, tflops=300.0, bandwidth_gb_s=2000.0)
TRUTH = Gpu(
    name="mine", memory_gb=80, bandwidth_gb_s=2000, tflops=300, pcie=4, watts=300, usd_per_hour=2,
    mfu=0.61, mbu=0.83, attention_mfu=0.42, attention_mbu=0.71, fitted=True,
    own=Own(
        mfu_ramp_tokens=80, linear_passes=21, attention_passes=3, linear_layer_s=4e-5,
        attention_layer_s=2e-5, prefill_launch_s=0, load_init_s=0.02, pcie_gb_s=21, peer_gb_s=150,
    ),
)  # fmt: skip


def quiet(line: str) -> None:
    """Ignore a line of progress."""


class MadeUp:
    """Measures the times of a GPU with known constants; every third time is twice too long."""

    def __init__(self, shapes: dict[str, DecoderShape], truth: Gpu) -> None:
        self.shapes, self.truth = shapes, truth
        self._count = itertools.count()

    def seconds(self, task: Task) -> float:
        slow = 2.0 if next(self._count) % 3 == 2 else 1.0
        seconds = predicted_s(task, self.shapes, self.truth)
        return slow * (task.bytes / 1e12 + 1e-6 if seconds is None else seconds)


@pytest.fixture(scope="module")
def measured() -> list[Measured]:
    tasks = plan(SHAPES, SIZES, peers=True)
    assert len(tasks) % 3 != 0  # another task is slow in every round
    clock = itertools.count(step=1.0)
    return measure(tasks, MadeUp(SHAPES, TRUTH), seconds=5.0, clock=lambda: next(clock), say=quiet)


@pytest.fixture(scope="module")
def found(measured: list[Measured]) -> Gpu:
    return fit_gpu(measured, SHAPES, SHEET)


@pytest.mark.parametrize("name", ["mfu", "mbu", "attention_mfu", "attention_mbu"])
def test_known_efficiencies_are_found(found: Gpu, name: str) -> None:
    assert getattr(found, name) == pytest.approx(getattr(TRUTH, name), rel=0.01)


def test_known_constants_are_found(found: Gpu) -> None:
    assert found.own is not None and TRUTH.own is not None
    got, want = found.own.model_dump(), TRUTH.own.model_dump()
    assert got == pytest.approx(want, rel=0.02)


def test_peaks_that_nobody_gave_are_the_best_rates(measured: list[Measured]) -> None:
    blind = fit_gpu(measured, SHAPES, Sheet("mine", 80.0, watts=1.0, usd_per_hour=0.0))
    # The peak follows from what was seen, and its product with the share is what was found.
    assert blind.mfu * blind.tflops == pytest.approx(TRUTH.mfu * TRUTH.tflops, rel=0.01)
    assert blind.mbu <= 1 and blind.mfu <= 1
    assert error_of(measured, blind) < 0.01


def error_of(measured: list[Measured], gpu: Gpu) -> float:
    table = errors(comparison(measured, SHAPES, gpu))
    return float(table.median_abs_error.max())


def test_errors_are_those_of_the_constants(measured: list[Measured], found: Gpu) -> None:
    assert error_of(measured, found) < 0.01
    slower = found.model_copy(update={"mfu": found.mfu / 2})
    table = errors(comparison(measured, SHAPES, slower))
    gemm = table[(table.what == "gemm") & (table.split == "train")].iloc[0]
    assert gemm.p90_abs_error == pytest.approx(1.0, abs=0.02)
    assert "| whole pass | no |" in error_markdown(table)
    assert len(figure(comparison(measured, SHAPES, found), "x").axes) == 2


def test_constants_are_fitted_on_the_first_model_alone() -> None:
    tasks = plan(SHAPES, SIZES)
    assert {task.split for task in tasks if task.model == "Qwen2.5-7B"} == {"test"}
    assert {task.split for task in tasks if task.kind == "gemm"} == {"train", "test"}


@pytest.mark.parametrize(("seconds", "rounds"), [(0.0, 3), (100.0, 9)])
def test_rounds_fill_the_time_and_are_three_at_least(seconds: float, rounds: int) -> None:
    now = 0.0

    class Slow:
        def seconds(self, task: Task) -> float:
            nonlocal now
            now += 5.5
            return 1.0

    found = measure(
        [Task("copy", bytes=1)] * 2, Slow(), seconds=seconds, clock=lambda: now,
        say=quiet,
    )  # fmt: skip
    assert {one.rounds for one in found} == {rounds}


def write(path: Path, gpu: Gpu) -> str:
    return write_entry(path, gpu, made={"date": "2026-01-01"}, measured={"disk_gb_s": 1.5},
                       residuals=[{"what": "gemm", "rows": 3}])  # fmt: skip


def test_a_cluster_names_a_measured_gpu(found: Gpu, tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    reference = write(tmp_path / "cluster" / "gpus.yaml", found)
    assert reference == "gpus.yaml#mine"
    assert read_gpu(reference, tmp_path / "cluster") == found
    nodes = f"[{{gpus: {{{reference}: 2, L4: 1}}}}]"
    (tmp_path / "cluster" / "own.yaml").write_text(f"name: own\nnodes: {nodes}\n")
    cluster = load_cluster("own", [tmp_path])
    assert [device.id for device in cluster.devices] == ["mine-0", "mine-1", "l4-0"]
    assert cluster.gpus == (found,)


def test_a_device_of_a_problem_file_names_a_measured_gpu(found: Gpu, tmp_path: Path) -> None:
    reference = write(tmp_path / "gpus.yaml", found)
    devices = [
        {"id": "a", "gpu": reference},
        {"id": "b", "gpu": reference},
        {"id": "c", "gpu": "L4"},
    ]
    stage = {"id": "s", "model": "Phi-3-mini", "prompt_tokens": 5}
    data = {
        "cluster": {"id": "c", "devices": devices},
        "workflows": [{"id": "w", "stages": [stage]}],
    }
    path = tmp_path / "problem.json"
    path.write_text(json.dumps(data))
    problem = load_problem_file(path)
    assert [device.gpu for device in problem.cluster.devices] == ["mine", "mine", "L4"]
    assert problem.device_facts["a"] == found
    again = parse_problem(dump_problem(problem))
    assert again == problem


@pytest.mark.parametrize(
    ("change", "said"),
    [({"version": 2}, "version 2"), ({"gpus": {"other": {}}}, "unknown GPU 'mine'"),
     ({"gpus": {"mine": {"mfu": 2}}}, "memory_gb"), ({"gpu": {}}, "unknown field 'gpu'")],
)  # fmt: skip
def test_a_wrong_file_is_one_error(
    found: Gpu, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    path = tmp_path / "gpus.yaml"
    write(path, found)
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | change))
    with pytest.raises(InputError, match=said) as caught:
        read_gpu("gpus.yaml#mine", tmp_path)
    assert str(path) in str(caught.value)


def test_two_gpus_of_one_name_are_refused(found: Gpu, tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    write(tmp_path / "cluster" / "gpus.yaml", found.model_copy(update={"name": "L4"}))
    text = "name: own\nnodes: [{gpus: {'gpus.yaml#L4': 1, L4: 1}}]\n"
    (tmp_path / "cluster" / "own.yaml").write_text(text)
    with pytest.raises(InputError, match="two GPU types of one name"):
        load_cluster("own", [tmp_path])


@pytest.mark.parametrize(
    ("place", "said"),
    [(Path(fate_gym.__file__).parent / "catalog" / "mine.yaml", "installed package"),
     (Path("mine.txt"), "ends in .yaml"), (Path("nowhere/at/all.yaml"), "does not exist")],
)  # fmt: skip
def test_a_file_has_its_place_outside_the_package(place: Path, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_place(place)


def test_medians_are_of_rounds() -> None:
    values = iter([1.0, 9.0, 2.0])

    class Noisy:
        def seconds(self, task: Task) -> float:
            return next(values)

    clock = itertools.count()
    (one,) = measure([Task("copy")], Noisy(), seconds=0.0, clock=lambda: next(clock), say=quiet)
    assert (one.seconds, one.low, one.high) == (2.0, 1.0, 9.0)
