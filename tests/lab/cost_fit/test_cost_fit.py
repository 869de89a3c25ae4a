"""The fit of the cost model: the catalogue's constants follow from the measured data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fate_gym import catalog
from fate_gym.errors import InputError
from fate_gym.lab.cost_fit import measured
from fate_gym.lab.cost_fit.app import fit_and_show
from fate_gym.lab.cost_fit.constants import (
    CATALOGUE,
    Constants,
    catalogue_constants,
    write_efficiency,
)
from fate_gym.lab.cost_fit.errors import PAGE, error_markdown, error_table, write_errors
from fate_gym.lab.cost_fit.fit import TRAIN_MODELS, TRAIN_SHAPES, fit
from fate_gym.lab.cost_fit.formulas import within_bandwidth
from fate_gym.lab.cost_fit.predictions import compare
from fate_gym.problem import Cluster, Device, Problem, Stage, Workflow
from fate_gym.sim import compile_problem

DATA = Path(__file__).parents[2] / "data" / "cost_model"
ERRORS = CATALOGUE / "cost_errors.csv"
KEYS = ["level", "phase", "split", "gpu", "model", "precision", "engine"]


@pytest.fixture(scope="module")
def tables() -> measured.Tables:
    return measured.read_tables(DATA)


@pytest.fixture(scope="module")
def fitted(tables: measured.Tables) -> Constants:
    return fit(tables)


def test_the_catalogue_has_what_the_fit_gives(tables: measured.Tables, fitted: Constants) -> None:
    kept = catalogue_constants()
    assert {catalog.gpu(measured.GPUS[name]).fitted for name in fitted.gpus} == {True}
    for name, rates in fitted.gpus.items():
        for field in ("flops", "bytes_s", "mfu", "mbu", "attention_mfu", "attention_mbu"):
            assert getattr(kept.gpus[name], field) == pytest.approx(getattr(rates, field), rel=1e-3)
    assert kept.layer_s == pytest.approx(fitted.layer_s, rel=1e-3)
    found = error_table(compare(tables, kept)).fillna("")
    table = pd.read_csv(ERRORS, keep_default_na=False)
    assert found[KEYS].values.tolist() == table[KEYS].values.tolist()
    for column in ("rows", "median_abs_error", "p90_abs_error", "median_error"):
        assert found[column].to_numpy() == pytest.approx(table[column].to_numpy(), abs=2e-3)


def test_held_out_layers_are_within_fifteen_percent() -> None:
    table = pd.read_csv(ERRORS, keep_default_na=False)
    held_out = table[(table.level == "layer") & (table.split == "test")]
    pairs = {phase: set(held_out.gpu[held_out.phase == phase]) for phase in ("prefill", "decode")}
    assert pairs["prefill"] == pairs["decode"] == {"A100-80", "H100-SXM", "H200-SXM", "L40S"}
    assert held_out.median_abs_error.max() <= 0.15


def test_the_fit_does_not_see_what_is_held_out(tables: measured.Tables, fitted: Constants) -> None:
    linear = tables.linear[tables.linear.model.isin(TRAIN_MODELS)]
    prefill = tables.prefill[tables.prefill["shape"].isin(TRAIN_SHAPES)]
    decode = tables.decode[tables.decode["shape"].isin(TRAIN_SHAPES)]
    alone = measured.Tables(linear, prefill, decode, tables.engine[:0])
    assert fit(alone) == fitted


def test_the_fit_finds_constants_that_made_the_data(tables: measured.Tables) -> None:
    truth = catalogue_constants()
    rows = compare(tables, truth)
    linear = tables.linear.copy()
    predicted = rows[rows.phase == "linear"].predicted_s.to_numpy() * 1e3
    between = linear.nongemm_ms_per_layer.notna()
    hidden = linear.model.map({n: s.hidden for n, s in measured.SHAPES.items()})
    known = linear.gpu.isin(truth.gpus)
    bandwidth = linear.gpu.map({n: r.bytes_s for n, r in truth.gpus.items()})
    rest = truth.linear_passes * 2e3 * hidden * linear.num_tokens / bandwidth + truth.linear_s * 1e3
    linear["nongemm_ms_per_layer"] = rest.where(between)
    linear["gemm_ms_per_layer"] = predicted - rest.where(between, 0.0)
    made = measured.Tables(linear[known], tables.prefill, tables.decode, tables.engine)
    found = fit(made)
    for name, rates in truth.gpus.items():
        assert found.gpus[name].mfu == pytest.approx(rates.mfu, rel=1e-3)
        assert found.gpus[name].mbu == pytest.approx(rates.mbu, rel=1e-3)
    assert found.ramp_tokens == pytest.approx(truth.ramp_tokens, rel=1e-2)
    assert found.linear_passes == pytest.approx(truth.linear_passes, rel=1e-3)


def pass_seconds(gpu: str, tokens: int, logits: int, pairs: float, context: float) -> float:
    """Compute the seconds of a pass of Llama-3.1-8B, from the fit's formulas for one layer.

    Args:
        gpu: key of the constants.
        tokens: tokens that go through the layers.
        logits: tokens that go through the output projection.
        pairs: pairs of tokens in the attention of prefill.
        context: tokens that decoding attends to, over all queries.
    """
    shape, constants = measured.ENGINE_SHAPES["Llama-3.1-8B"], catalogue_constants()
    rates, kv_width = constants.gpus[gpu], shape.kv_heads * shape.head_dim
    params = shape.layers * shape.layer_params + shape.head_params * logits / tokens
    read = 2.0 * (shape.layers * shape.layer_params + shape.head_params)
    compute = 2.0 * params * (tokens + constants.ramp_tokens) / (rates.mfu * rates.flops)
    passes = constants.linear_passes * 2.0 * shape.hidden * tokens
    passes += constants.attention_passes * 4.0 * (shape.width + kv_width) * tokens
    layer = 4.0 * shape.width * pairs / (rates.attention_mfu * rates.flops)
    layer += 4.0 * kv_width * context / (rates.attention_mbu * rates.bytes_s)
    layer += passes / rates.bytes_s + constants.layer_s
    return max(compute, read / (rates.mbu * rates.bytes_s)) + shape.layers * layer


@pytest.mark.parametrize("gpu", ["a100", "h100"])
@pytest.mark.parametrize(("queries", "prompt", "output"), [(1, 700, 30), (40, 1500, 200)])
def test_the_simulator_computes_what_was_fitted(
    gpu: str, queries: int, prompt: int, output: int
) -> None:
    name = measured.GPUS[gpu]
    stage = Stage(
        id="s", model="Llama-3.1-8B", queries=queries, prompt_tokens=prompt, output_tokens=output
    )
    cluster = Cluster(id="one", devices=(Device(id="d", gpu=name),))
    compiled = compile_problem(Problem.build(cluster, [Workflow(id="w", stages=(stage,))]))
    prefill = pass_seconds(gpu, queries * prompt, queries, queries * prompt * prompt / 2, 0.0)
    step = pass_seconds(gpu, queries, queries, 0.0, queries * (prompt + output / 2))
    expected = catalog.execution().prefill_launch_s + prefill + output * step
    # The shape counts the weights of GEMMs alone, the catalogue rounds the model's card.
    assert compiled.clean_seconds[0, 0] == pytest.approx(expected, rel=0.01)


def test_engines_of_which_16_bit_models_fit_take_as_long_as_computed() -> None:
    table = pd.read_csv(ERRORS, keep_default_na=False)
    requests = table[(table.level == "engine") & (table.phase == "request")]
    full = requests[requests.precision == "bf16"]
    assert full.median_abs_error.max() <= 0.03
    assert full.p90_abs_error.max() <= 0.11
    assert len(requests) == 6


def test_every_run_of_an_engine_is_in_the_catalogue(tables: measured.Tables) -> None:
    table = pd.read_csv(CATALOGUE / "cost_engines.csv")
    assert len(table) == len(tables.engine)
    errors = pd.read_csv(ERRORS, keep_default_na=False)
    for phase in ("ttft", "tpot", "request"):
        error = (table[f"{phase}_computed_s"] / table[f"{phase}_measured_s"] - 1.0).abs()
        keys = [table[key] for key in ("gpu", "model", "precision", "engine")]
        for level, chosen in (
            ("engine", table.kv_full == 0),
            ("engine, KV full", table.kv_full == 1),
        ):
            found = error[chosen].groupby(keys).median()
            shown = errors[(errors.level == level) & (errors.phase == phase)]
            assert found.to_numpy() == pytest.approx(shown.median_abs_error.to_numpy(), abs=1e-3)


def test_cached_data_are_left_out(tables: measured.Tables) -> None:
    kept = within_bandwidth(tables.decode)
    assert 0 < len(tables.decode) - len(kept) < 0.2 * len(tables.decode)
    bandwidth = kept.gpu.map(
        {n: catalog.gpu(measured.GPUS[n]).bandwidth_gb_s * 1e9 for n in set(kept.gpu)}
    )
    read = 512.0 * kept.num_kv_heads * kept.batch * kept.context_len
    assert (read / bandwidth * 1e3 <= kept.latency_ms).all()


def _without(path: Path, column: str) -> None:
    table = pd.read_csv(path)
    table.drop(columns=column).to_csv(path, index=False)


def _negative(path: Path, column: str) -> None:
    table = pd.read_csv(path)
    table.loc[0, column] = -1.0
    table.to_csv(path, index=False)


def _text(path: Path, column: str) -> None:
    table = pd.read_csv(path).astype({column: object})
    table.loc[0, column] = "fast"
    table.to_csv(path, index=False)


@pytest.mark.parametrize("break_it", [_without, _negative, _text])
@pytest.mark.parametrize(
    ("file", "column"),
    [
        (measured.LINEAR, "gemm_ms_per_layer"),
        (measured.ATTENTION["decode"], "latency_ms"),
        (measured.ENGINE, "silicon_tpot_ms"),
    ],
)
def test_a_broken_table_is_one_error(tmp_path: Path, break_it: Any, file: str, column: str) -> None:
    for source in DATA.iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    break_it(tmp_path / file, column)
    with pytest.raises(InputError, match=column):
        measured.read_tables(tmp_path)


def test_a_missing_table_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="linear_layers"):
        measured.read_tables(tmp_path)


def test_writing_keeps_gpus_without_fit(
    tmp_path: Path, tables: measured.Tables, fitted: Constants
) -> None:
    rows = compare(tables, fitted)
    errors = error_table(rows)
    command = str(catalog.read_yaml("efficiency.yaml")["command"])
    write_efficiency(fitted, tmp_path, command)
    write_errors(errors, rows, tmp_path)
    for name in ("efficiency.yaml", "cost_errors.csv", "cost_engines.csv"):
        assert (tmp_path / name).read_text() == (CATALOGUE / name).read_text()


def test_the_command_draws_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit_and_show(DATA, figures=tmp_path)
    assert "median_abs_error" in capsys.readouterr().out
    for name in ("scatter", "engines", "curves"):
        assert (tmp_path / f"cost_model_{name}.png").read_bytes().startswith(b"\x89PNG")


def test_predictions_grow_with_the_batch(tables: measured.Tables) -> None:
    rows = compare(tables, catalogue_constants())
    linear = rows[rows.phase == "linear"]
    for _, part in linear.groupby(["gpu", "model"]):
        assert (np.diff(part.sort_values("size").predicted_s) >= 0).all()


def test_the_page_shows_the_errors_of_the_catalogue() -> None:
    errors = pd.read_csv(ERRORS, keep_default_na=False)
    shown = error_markdown(errors)
    assert shown in PAGE.read_text(encoding="utf-8")
    assert len(shown.splitlines()) > 30
