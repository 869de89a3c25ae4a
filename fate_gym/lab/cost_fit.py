"""Fits the constants of the cost model on measured times, and tests them on held-out models.

The formulas are those of docs/execution-model.md, over columns of a table. Fitted are, for each
GPU, four efficiencies (linear layers and attention; compute and memory bandwidth), and for all of
them the ramp of the MFU, the memory traffic between the GEMMs and the fixed cost of a layer. The
training part is the shapes of Llama-2-7B and CodeLlama-34B; every other model, and every
measurement of a whole engine, is held out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import least_squares

from fate_gym import catalog
from fate_gym.catalog import GB, Gpu
from fate_gym.lab.measured import (
    ENGINE_SHAPES,
    GPUS,
    SHAPES,
    SYSTEMS,
    Shape,
    Tables,
    engine_models,
    read_tables,
)

Column = NDArray[np.float64]
Frame = Any  # a table or a column of pandas, whose stubs make arithmetic unreadable

TRAIN_MODELS = ("Llama-2-7b-hf", "CodeLlama-34b-Instruct-hf")
TRAIN_SHAPES = ("llama-2-7b tp1", "70b/34b tp1")
ATTENTION_OF = {
    "Llama-2-7b-hf": "llama-2-7b tp1",
    "CodeLlama-34b-Instruct-hf": "70b/34b tp1",
    "Llama-2-70b-hf": "70b/34b tp1",
    "Meta-Llama-3-8B": "llama-3-8b tp1",
}
UNSEEN = {"A40": {"bandwidth_gb_s": 696.0, "tflops": 149.7, "mfu": 0.5, "mbu": 0.75}}
"""Measured, but not in the catalogue: data sheet of NVIDIA, and the start values of its kind."""

CATALOGUE = Path(__file__).parents[1] / "catalog"
PAGE = Path(__file__).parents[2] / "docs" / "cost-model.md"
_TABLE_FROM, _TABLE_TO = "<!-- errors -->", "<!-- end -->"
_GOAL = 0.15
_WIDTH = 0.1  # residuals of the logarithm beyond this count less (soft L1)


@dataclass(frozen=True)
class Rates:
    """What one GPU does, as fractions of its data sheet, and the data sheet: FLOP/s, bytes/s."""

    flops: float
    bytes_s: float
    mfu: float
    mbu: float
    attention_mfu: float
    attention_mbu: float


@dataclass(frozen=True)
class Constants:
    """Everything that is fitted. ``linear_s`` and ``attention_s`` are seconds a layer."""

    gpus: dict[str, Rates]
    ramp_tokens: float
    linear_passes: float
    attention_passes: float
    linear_s: float
    attention_s: float

    @property
    def layer_s(self) -> float:
        """Fixed seconds of one layer."""
        return self.linear_s + self.attention_s


def fit(tables: Tables) -> Constants:
    """The constants that fit the training part best."""
    linear = _training_linear(tables)
    names = list(dict.fromkeys(linear.gpu))
    sheet = {name: catalog.gpu(GPUS[name]) for name in names}
    peak = _column(linear.gpu, {name: gpu.tflops * 1e12 for name, gpu in sheet.items()})
    bandwidth = _column(linear.gpu, {name: gpu.bandwidth_gb_s * GB for name, gpu in sheet.items()})
    params = _column(linear.model, {name: s.layer_params for name, s in SHAPES.items()})
    tokens = linear.num_tokens.to_numpy(float)
    index = linear.gpu.map(names.index).to_numpy()
    count = len(names)

    def gemm(x: Column) -> Column:
        mfu, mbu, ramp = x[:count][index], x[count : 2 * count][index], x[-1]
        return np.asarray(linear_seconds(params, tokens, mfu * peak, mbu * bandwidth, ramp))

    start = [0.7] * (2 * count) + [50.0]
    found = _solve(gemm, linear.gemm_ms_per_layer, start, upper=[1.0] * (2 * count) + [500.0])
    mfu, mbu = found[:count], found[count : 2 * count]

    known = linear.nongemm_ms_per_layer.notna().to_numpy()
    unit = 2.0 * tokens * _column(linear.model, {n: s.hidden for n, s in SHAPES.items()})
    unit = unit / bandwidth

    def between(x: Column) -> Column:
        return np.asarray(x[0] * unit[known] + x[1])

    passes = _solve(between, linear.nongemm_ms_per_layer[known], [40.0, 2e-5])
    prefill, prefill_s, attention_passes = _fit_prefill(tables.prefill, names)
    decode, decode_s = _fit_decode(tables.decode, names)
    rates = {
        name: Rates(
            sheet[name].tflops * 1e12,
            sheet[name].bandwidth_gb_s * GB,
            *(float(v) for v in (mfu[i], mbu[i], prefill[i], decode[i])),
        )
        for i, name in enumerate(names)
    }
    attention_s = float(np.mean([prefill_s, decode_s]))
    ramp = float(found[-1])
    return Constants(rates, ramp, float(passes[0]), attention_passes, float(passes[1]), attention_s)


def _training_linear(tables: Tables) -> Frame:
    known = {key for key, name in GPUS.items() if name in catalog.gpus()}
    keep = tables.linear.model.isin(TRAIN_MODELS) & tables.linear.gpu.isin(known)
    return tables.linear[keep].reset_index(drop=True)


def _fit_prefill(table: Frame, names: list[str]) -> tuple[Column, float, float]:
    table = table[table["shape"].isin(TRAIN_SHAPES) & table.gpu.isin(names)]
    peak, bandwidth, index = _rates(table, names)
    flops, traffic = _attention_work(table)

    def attention(x: Column) -> Column:
        return np.asarray(
            flops / (x[: len(names)][index] * peak) + x[-2] * traffic / bandwidth + x[-1]
        )

    start, upper = [0.6] * len(names) + [2.0, 1e-5], [1.0] * len(names) + [50.0, 1e-3]
    found = _solve(attention, table.latency_ms, start, upper)
    return found[: len(names)], float(found[-1]), float(found[-2])


def _fit_decode(table: Frame, names: list[str]) -> tuple[Column, float]:
    table = within_bandwidth(table)
    table = table[table["shape"].isin(TRAIN_SHAPES) & table.gpu.isin(names)]
    _, bandwidth, index = _rates(table, names)
    read = _kv_bytes(table)

    def attention(x: Column) -> Column:
        return np.asarray(read / (x[: len(names)][index] * bandwidth) + x[-1])

    start, upper = [0.8] * len(names) + [1e-5], [1.0] * len(names) + [1e-3]
    found = _solve(attention, table.latency_ms, start, upper)
    return found[: len(names)], float(found[-1])


def within_bandwidth(decode: Frame) -> Frame:
    """Decode attention that does not beat the memory's bandwidth, as data in a cache do."""
    peak = _column(decode.gpu, {n: catalog.gpu(GPUS[n]).bandwidth_gb_s * GB for n in _seen(decode)})
    return decode[_kv_bytes(decode) / peak * 1e3 <= decode.latency_ms]


def _solve(
    seconds: Callable[[Column], Column],
    measured_ms: Frame,
    start: list[float],
    upper: list[float] | None = None,
) -> Column:
    """Least squares on the logarithm of predicted over measured; outliers count less."""
    measured = np.log(measured_ms.to_numpy(float) / 1e3)
    result = least_squares(
        lambda x: np.log(seconds(x)) - measured,
        start,
        bounds=(0.0, np.inf if upper is None else upper),
        x_scale=start,
        loss="soft_l1",
        f_scale=_WIDTH,
    )
    return np.asarray(result.x)


# --- the formulas, a layer --------------------------------------------------------------------


def linear_seconds(params: Any, tokens: Any, flops: Any, bandwidth: Any, ramp: float) -> Any:
    """GEMMs with ``params`` 16-bit weights: the larger of computing and reading the weights."""
    return np.maximum(2.0 * params * (tokens + ramp) / flops, 2.0 * params / bandwidth)


def _attention_work(table: Frame) -> tuple[Column, Column]:
    """FLOPs of causal attention, and bytes of queries, keys, values and outputs, a layer."""
    tokens = (table.batch * table.isl).to_numpy(float)
    flops = 4.0 * table.num_heads.to_numpy(float) * 128 * tokens * table.isl.to_numpy(float) / 2
    heads = (table.num_heads + table.num_kv_heads).to_numpy(float)
    return flops, 2.0 * 2.0 * heads * 128 * tokens


def _kv_bytes(table: Frame) -> Column:
    tokens = (table.batch * table.context_len).to_numpy(float)
    return np.asarray(2.0 * 2.0 * table.num_kv_heads.to_numpy(float) * 128 * tokens)


def _rates(table: Frame, names: list[str]) -> tuple[Column, Column, NDArray[np.int64]]:
    gpus = {name: catalog.gpu(GPUS[name]) for name in names}
    peak = _column(table.gpu, {name: gpu.tflops * 1e12 for name, gpu in gpus.items()})
    bandwidth = _column(table.gpu, {name: gpu.bandwidth_gb_s * GB for name, gpu in gpus.items()})
    return peak, bandwidth, table.gpu.map(names.index).to_numpy()


def _column(keys: Frame, values: dict[str, Any]) -> Column:
    return np.asarray(keys.map(values).to_numpy(float))


def _seen(table: Frame) -> Iterable[str]:
    return dict.fromkeys(table.gpu)


# --- predicted against measured ------------------------------------------------------------------


def compare(tables: Tables, constants: Constants) -> Frame:
    """One row a measurement: what it is of (`error_table`'s keys), measured_s and predicted_s.

    ``size`` is the tokens of a layer's batch (its queries in decode) or the clients of an engine,
    ``prompt`` and ``output`` are an engine's tokens a request. ``layer`` is a transformer layer:
    linear part and attention, as far as measured. ``engine`` is a whole engine in a closed loop.
    ``split``: ``train``, ``test``, or ``unseen``: a GPU without fit.
    """
    parts = [
        _linear_rows(tables, constants),
        _layer_rows(tables, constants, "prefill"),
        _layer_rows(tables, constants, "decode"),
        _engine_rows(tables.engine, constants),
    ]
    return pd.concat(parts, ignore_index=True)


def error_table(rows: Frame) -> Frame:
    """Median and 90th percentile of |relative error|, and its median, by pair and phase."""
    error = rows.predicted_s / rows.measured_s - 1.0
    keys = ["level", "phase", "split", "gpu", "model", "precision", "engine"]
    groups = error.groupby([rows[key] for key in keys])
    table = pd.DataFrame(
        {
            "rows": groups.size(),
            "median_abs_error": groups.apply(lambda e: e.abs().median()),
            "p90_abs_error": groups.apply(lambda e: e.abs().quantile(0.9)),
            "median_error": groups.median(),
        }
    )
    return table.reset_index().round(4)


def _linear_part(table: Frame, constants: Constants) -> Column:
    """Predicted seconds of the linear part of a layer, GEMMs alone where only they are measured."""
    seconds = np.empty(len(table))
    for i, row in enumerate(table.itertuples(index=False)):
        shape, rates = SHAPES[row.model], _rates_of(row.gpu, constants)
        seconds[i] = linear_seconds(
            shape.layer_params,
            row.num_tokens,
            rates.mfu * rates.flops,
            rates.mbu * rates.bytes_s,
            constants.ramp_tokens,
        )
        if not np.isnan(row.nongemm_ms_per_layer):
            traffic = constants.linear_passes * 2.0 * shape.hidden * row.num_tokens
            seconds[i] += traffic / rates.bytes_s + constants.linear_s
    return seconds


def _linear_rows(tables: Tables, constants: Constants) -> Frame:
    table = tables.linear
    measured = table.gemm_ms_per_layer + table.nongemm_ms_per_layer.fillna(0.0)
    return _rows(table, "linear", measured / 1e3, _linear_part(table, constants))


def _layer_rows(tables: Tables, constants: Constants, phase: str) -> Frame:
    """Whole layers: every pair of measured linear part and measured attention of one batch."""
    attention = tables.prefill if phase == "prefill" else within_bandwidth(tables.decode)
    attention = attention[attention.gpu.isin(constants.gpus)]
    attention = attention.rename(columns={"latency_ms": "attention_ms"})
    tokens = attention.batch * attention.isl if phase == "prefill" else attention.batch
    attention = attention.assign(num_tokens=tokens)
    linear = tables.linear.assign(shape=tables.linear.model.map(ATTENTION_OF))
    table = linear.merge(attention, on=["gpu", "shape", "num_tokens"])
    rates = [_rates_of(name, constants) for name in table.gpu]
    predicted = _linear_part(table, constants) + constants.attention_s
    if phase == "prefill":
        flops, traffic = _attention_work(table)
        predicted += flops / np.array([r.attention_mfu * r.flops for r in rates])
        predicted += constants.attention_passes * traffic / np.array([r.bytes_s for r in rates])
    else:
        predicted += _kv_bytes(table) / np.array([r.attention_mbu * r.bytes_s for r in rates])
    measured = table.gemm_ms_per_layer + table.nongemm_ms_per_layer.fillna(0.0) + table.attention_ms
    return _rows(table, phase, measured / 1e3, predicted)


def _rows(table: Frame, phase: str, measured: Any, predicted: Column) -> Frame:
    split = np.where(table.model.isin(TRAIN_MODELS), "train", "test")
    split = np.where(table.gpu.map(GPUS).isin(UNSEEN), "unseen", split)
    return pd.DataFrame(
        {
            "gpu": table.gpu.map(GPUS),
            "model": table.model,
            "level": "layer",
            "phase": phase,
            "engine": "",
            "precision": "bf16",
            "split": split,
            "size": table.num_tokens,
            "prompt": 0,
            "output": 0,
            "measured_s": np.asarray(measured),
            "predicted_s": predicted,
        }
    )


def _rates_of(name: str, constants: Constants) -> Rates:
    if name in constants.gpus:
        return constants.gpus[name]
    facts = UNSEEN[GPUS[name]]
    return Rates(
        facts["tflops"] * 1e12, facts["bandwidth_gb_s"] * GB, facts["mfu"], facts["mbu"], 0.0, 0.0
    )


def _engine_rows(engine: Frame, constants: Constants) -> Frame:
    """Two comparisons a run of an engine under a closed loop of c clients.

    ``request``: the seconds of a request (time to first token, and every other token). In a closed
    loop the engine serves c requests in that time, one after another or together: it is the time of
    a shard of c queries. ``decode``: seconds a token, which is a step of the batch and what the
    prefills of the others take away from it.
    """
    rows = []
    names = engine_models(engine)
    for row, model in zip(engine.itertuples(index=False), names, strict=True):
        gpu = SYSTEMS[row.system]
        precision = "fp8" if row.precision == "fp8" else "bf16"
        serving = Serving(ENGINE_SHAPES[model], catalog.gpu(GPUS[gpu]), constants, gpu, precision)
        clients, prompt, output = int(row.concurrency), int(row.isl), int(row.osl)
        tpot, ttft = row.silicon_tpot_ms / 1e3, row.silicon_ttft_ms / 1e3
        about = (GPUS[gpu], model, row.backend, precision, clients, prompt, output)
        token = serving.token_seconds(clients, prompt, output)
        request = serving.request_seconds(clients, prompt, output)
        rows.append((*about, "decode", tpot, token))
        rows.append((*about, "request", ttft + (output - 1) * tpot, request))
    about_columns = ["gpu", "model", "engine", "precision", "size", "prompt", "output"]
    table = pd.DataFrame(rows, columns=[*about_columns, "phase", "measured_s", "predicted_s"])
    return table.assign(level="engine", split="test")


class Serving:
    """The cost model of a whole dense model on one GPU, in 16 or 8 bits."""

    def __init__(
        self, shape: Shape, gpu: Gpu, constants: Constants, name: str, precision: str
    ) -> None:
        self.shape = shape
        self.constants = constants
        rates = constants.gpus[name]
        eight = precision == "fp8"
        # 8-bit tensor cores do twice the FLOP/s; embedding and output projection stay 16-bit.
        self.rates = replace(rates, flops=rates.flops * (2.0 if eight else 1.0))
        self.attention_flops = rates.attention_mfu * rates.flops
        self.body = shape.layers * shape.layer_params
        self.read = self.body * (1.0 if eight else 2.0) + 2.0 * shape.head_params
        self.kv = 4.0 * shape.layers * shape.kv_heads * shape.head_dim
        utilisation = catalog.execution().memory_utilisation
        self.room = gpu.memory_gb * GB * utilisation - self.read - 2.0 * shape.head_params
        kv_width = shape.kv_heads * shape.head_dim
        passes = constants.linear_passes * shape.hidden
        passes += constants.attention_passes * 2.0 * (shape.width + kv_width)
        self.traffic = 2.0 * shape.layers * passes

    def batch(self, clients: int, prompt: int, output: int) -> int:
        """Queries of one wave."""
        return max(1, min(clients, int(self.room / (self.kv * (prompt + output)))))

    def step(self, batch: int, context: float) -> float:
        """Seconds of one decode step."""
        rates, constants = self.rates, self.constants
        params = self.body + self.shape.head_params
        compute = 2.0 * params * (batch + constants.ramp_tokens) / (rates.mfu * rates.flops)
        seconds = max(compute, self.read / (rates.mbu * rates.bytes_s))
        seconds += batch * context * self.kv / (rates.attention_mbu * rates.bytes_s)
        seconds += batch * self.traffic / rates.bytes_s
        return seconds + self.shape.layers * constants.layer_s

    def prefill(self, queries: int, prompt: int) -> float:
        """Seconds to prefill queries of equal prompts."""
        rates, constants = self.rates, self.constants
        tokens = queries * prompt
        flops = 2.0 * (self.body * tokens + self.shape.head_params * queries)
        compute = flops * (tokens + constants.ramp_tokens) / (tokens * rates.mfu * rates.flops)
        seconds = max(compute, self.read / (rates.mbu * rates.bytes_s))
        attended = 4.0 * self.shape.layers * self.shape.width * tokens * prompt / 2
        seconds += attended / self.attention_flops + tokens * self.traffic / rates.bytes_s
        return seconds + self.shape.layers * constants.layer_s

    def token_seconds(self, clients: int, prompt: int, output: int) -> float:
        """Seconds a token in a closed loop."""
        batch = self.batch(clients, prompt, output)
        step = self.step(batch, prompt + output / 2)
        return step + (batch - 1) / output * self.prefill(1, prompt)

    def request_seconds(self, clients: int, prompt: int, output: int) -> float:
        """Seconds of a request in a closed loop: a shard of as many queries as clients."""
        batch = self.batch(clients, prompt, output)
        full = (clients - 1) // batch
        context = prompt + output / 2
        steps = full * self.step(batch, context) + self.step(clients - full * batch, context)
        return self.prefill(clients, prompt) + output * steps


# --- to and from the catalogue --------------------------------------------------------------------

_HEADER = """\
# Efficiencies of the cost model: shares of peak FLOP/s (mfu) and of memory bandwidth (mbu) that
# linear layers and attention reach, and what all GPUs share (docs/execution-model.md). Written by
# `command`; the errors are in cost_errors.csv. `fitted: false`: not measured, start values of the
# type (end-to-end MFU as published, decode MBU .65 on HBM and .75 on GDDR); their attention
# follows from the ratios under `shared`.
# Sources: Vidur (MIT), aiconfigurator-core 0.12 (Apache-2.0); see fate_gym/lab/measured.py.
"""


def write_catalogue(constants: Constants, errors: Frame, folder: Path, command: str) -> None:
    """Write ``efficiency.yaml`` and ``cost_errors.csv``; GPUs without fit keep their values."""
    gpus = catalog.read_yaml("efficiency.yaml")["gpus"]
    for key, rates in constants.gpus.items():
        shares = {name: _digits(getattr(rates, name)) for name in _EFFICIENCIES}
        gpus[GPUS[key]] = {"fitted": True, **shares}
    ratios = {
        f"attention_{kind}_ratio": float(
            np.median(
                [
                    getattr(r, f"attention_{kind}") / getattr(r, kind)
                    for r in constants.gpus.values()
                ]
            )
        )
        for kind in ("mfu", "mbu")
    }
    shared = {name: getattr(constants, own) for own, name in _SHARED.items()} | ratios
    lines = [_HEADER + f"command: {command}", "shared:"]
    lines += [f"  {name}: {_digits(value)}" for name, value in shared.items()]
    lines += ["gpus:"]
    for name, row in gpus.items():
        values = ", ".join(f"{key}: {str(value).lower()}" for key, value in row.items())
        lines.append(f"  {name}: {{{values}}}")
    (folder / "efficiency.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    errors.to_csv(folder / "cost_errors.csv", index=False, lineterminator="\n")


_EFFICIENCIES = ("mfu", "mbu", "attention_mfu", "attention_mbu")
_SHARED = {
    "ramp_tokens": "mfu_ramp_tokens",
    "linear_passes": "linear_passes",
    "attention_passes": "attention_passes",
    "linear_s": "linear_layer_s",
    "attention_s": "attention_layer_s",
}


def _digits(value: float) -> float:
    return float(f"{value:.4g}")


def catalogue_constants() -> Constants:
    """The constants as the catalogue has them."""
    facts = catalog.execution()
    rates = {}
    for key, name in GPUS.items():
        if name in catalog.gpus():
            gpu = catalog.gpu(name)
            shares = (gpu.mfu, gpu.mbu, facts.attention_mfu(gpu), facts.attention_mbu(gpu))
            rates[key] = Rates(gpu.tflops * 1e12, gpu.bandwidth_gb_s * GB, *shares)
    return Constants(rates, **{own: getattr(facts, name) for own, name in _SHARED.items()})


def error_markdown(errors: Frame) -> str:
    """The held-out part of an error table for docs/cost-model.md; in bold what is over 15 %."""
    lines = [
        "| what | phase | GPU | model | bits | rows | median error | 90th percentile | bias |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    shown = errors[
        (errors.split == "unseen") | (errors.split == "test") & (errors.phase != "linear")
    ]
    for row in shown.sort_values(
        ["level", "phase", "gpu"], ascending=[False, False, True]
    ).itertuples():
        model = f"{row.model}, {row.engine}" if row.engine else row.model
        what = f"{row.level}, start values" if row.split == "unseen" else row.level
        bits = 8 if row.precision == "fp8" else 16
        median = f"{row.median_abs_error:.1%}"
        median = f"**{median}**" if row.median_abs_error > _GOAL else median
        lines.append(
            f"| {what} | {row.phase} | {row.gpu} | {model} | {bits} | {row.rows} | {median} "
            f"| {row.p90_abs_error:.1%} | {row.median_error:+.1%} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """The command: fit, print the error table, and with ``--write`` keep both in the catalogue."""
    parser = argparse.ArgumentParser(description="Fit the cost model on measured times.")
    parser.add_argument("data", type=Path, help="folder with the tables of fate_gym.lab.measured")
    parser.add_argument("--write", action="store_true", help="write the catalogue's files")
    parser.add_argument("--figures", type=Path, help="folder for predicted against measured")
    options = parser.parse_args(arguments)
    tables = read_tables(options.data)
    constants = fit(tables)
    rows = compare(tables, constants)
    errors = error_table(rows)
    with pd.option_context("display.width", 200, "display.max_rows", None):
        print(errors.round(3).to_string(index=False))
    if options.write:
        command = f"python scripts/fit_cost_model.py {options.data} --write"
        write_catalogue(constants, errors, CATALOGUE, command)
        if PAGE.exists():  # not in an installed wheel
            before, _, rest = PAGE.read_text(encoding="utf-8").partition(_TABLE_FROM)
            _, _, after = rest.partition(_TABLE_TO)
            table = f"{_TABLE_FROM}\n{error_markdown(errors)}\n{_TABLE_TO}"
            PAGE.write_text(before + table + after, encoding="utf-8")
    if options.figures is not None:
        from fate_gym.lab.cost_plots import draw

        draw(rows, options.figures)
