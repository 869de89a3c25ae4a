"""Measured engines as problems: closed loops of clients on a batching device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fate_gym import catalog
from fate_gym.errors import InputError
from fate_gym.lab.cost_fit import measured
from fate_gym.lab.cost_fit.benchmark import REQUESTS_A_CLIENT, benchmark
from fate_gym.lab.cost_fit.closed_loop import ClosedLoop, Request, means
from fate_gym.lab.cost_fit.constants import Constants, catalogue_constants
from fate_gym.validator import validate

DATA = Path(__file__).parents[2] / "data" / "cost_model"
CONSTANTS = catalogue_constants()


@pytest.fixture(scope="module")
def engine() -> pd.DataFrame:
    table = measured.read_tables(DATA).engine
    return table.assign(model=measured.engine_models(table))


def rows_of(engine: pd.DataFrame, **wanted: Any) -> list[Any]:
    """Return the rows of the engine table with these values."""
    rows: list[Any] = list(engine.itertuples(index=False))
    return [row for row in rows if all(getattr(row, key) == wanted[key] for key in wanted)]


def loop(
    *clients: tuple[Request, ...], kv_tokens: int = 400_000, token_budget: int = 8192
) -> ClosedLoop:
    """Return a closed loop of clients of Llama-3.1-8B on an H100."""
    return ClosedLoop(
        model=catalog.model("Llama-3.1-8B"),
        gpu=catalog.gpu("H100-SXM"),
        kv_tokens=kv_tokens,
        token_budget=token_budget,
        requests=clients,
    )


def test_a_client_submits_when_it_has_its_answer() -> None:
    requests = (Request(700, 20), Request(300, 5), Request(2000, 1))
    trace = loop(requests, requests[::-1]).run(CONSTANTS)
    ready, end = trace.stage_ready.reshape(2, 3), trace.stage_end.reshape(2, 3)
    assert (ready[:, 0] == 0.0).all()
    assert (ready[:, 1:] == end[:, :-1]).all()
    assert (trace.shards["committed"] == trace.stage_ready[trace.shards["stage"]]).all()


@pytest.mark.parametrize("kv_tokens", [400_000, 1_300])
def test_it_is_what_the_token_stepping_validator_finds(kv_tokens: int) -> None:
    clients = [(Request(400 + 10 * i, 30), Request(500, 40 + i)) for i in range(6)]
    trace = loop(*clients, kv_tokens=kv_tokens, token_budget=600).run(CONSTANTS)
    assert len(trace.shards) == 12
    assert validate(trace) == []


def test_weights_are_there_from_the_start() -> None:
    trace = loop((Request(700, 1),)).run(CONSTANTS)
    assert trace.shards["load_s"][0] < 1e-7


def test_means_are_those_of_the_requests() -> None:
    trace = loop((Request(700, 50), Request(800, 100)), (Request(900, 1),)).run(CONSTANTS)
    found = means(trace)
    first, second, only = np.sort(trace.shards, order="stage")
    assert found.request == pytest.approx((second["end"] + only["end"]) / 3)
    assert found.ttft == pytest.approx(
        (first["first"] + only["first"] + second["first"] - first["end"]) / 3
    )
    tokens = [(first["end"] - first["first"]) / 49, (second["end"] - second["first"]) / 99, 0.0]
    assert only["end"] == only["first"]
    assert found.tpot == pytest.approx(sum(tokens) / 3)


@pytest.mark.parametrize(("kv_tokens", "running"), [(1200, 2), (1199, 1), (10_000, 8)])
def test_as_many_run_as_have_room(kv_tokens: int, running: int) -> None:
    trace = loop(*[(Request(500, 100),) * 3] * 8, kv_tokens=kv_tokens).run(CONSTANTS)
    starts, ends = trace.shards["start"], trace.shards["end"]
    at_a_time = [int(((starts <= now) & (now < ends)).sum()) for now in starts]
    assert max(at_a_time) == running


def test_the_queue_counts_as_time_to_first_token() -> None:
    clients = [(Request(500, 100),) * 5] * 8
    queued = means(loop(*clients, kv_tokens=1200).run(CONSTANTS))
    at_once = means(loop(*clients).run(CONSTANTS))
    assert not loop(*clients, kv_tokens=1200).fits
    assert loop(*clients).fits
    assert queued.ttft > 10 * at_once.ttft
    assert queued.tpot < at_once.tpot
    assert queued.request == pytest.approx(queued.ttft + 99 * queued.tpot)


def test_a_request_without_room_is_one_error() -> None:
    with pytest.raises(InputError, match="GB"):
        loop((Request(500, 101),), kv_tokens=600).run(CONSTANTS)


@pytest.mark.parametrize("name", ["linear_s", "attention_s", "linear_passes", "ramp_tokens"])
def test_times_follow_the_constants_under_test(name: str) -> None:
    # A prompt of 3000 tokens computes, and decoding reads: each constant counts in one of them.
    clients = loop(*[(Request(3000, 20),)] * 4)
    other = replace(CONSTANTS, **{name: 2.0 * getattr(CONSTANTS, name)})
    assert means(clients.run(other)).request > 1.002 * means(clients.run(CONSTANTS)).request


def test_rates_follow_the_constants_under_test(engine: pd.DataFrame) -> None:
    row = rows_of(engine, model="Llama-3.1-8B", system="h100_sxm", concurrency=8)[0]
    slow = replace(CONSTANTS.gpus["h100"], mbu=CONSTANTS.gpus["h100"].mbu / 2)
    halved = replace(CONSTANTS, gpus=CONSTANTS.gpus | {"h100": slow})

    def tpot(constants: Constants) -> float:
        return means(benchmark(row, "Llama-3.1-8B", constants).run(constants)).tpot

    assert tpot(halved) > 1.5 * tpot(CONSTANTS)


def test_eight_bits_are_half_the_bytes_and_twice_the_peak(engine: pd.DataFrame) -> None:
    row = rows_of(engine, model="Llama-3.1-70B", concurrency=64, isl=1024)[0]
    eight = benchmark(row, "Llama-3.1-70B", CONSTANTS)
    sixteen = benchmark(row._replace(precision=""), "Llama-3.1-70B", CONSTANTS)
    body = 2.0 * eight.model.layer_params
    assert eight.model.layer_params == sixteen.model.layer_params
    assert sixteen.model.read_bytes - eight.model.read_bytes == pytest.approx(body / 2)
    assert eight.model.kv_bytes_per_token == sixteen.model.kv_bytes_per_token / 2
    assert eight.model.attention_width == sixteen.model.attention_width
    assert eight.gpu.tflops * eight.gpu.mfu == 2 * sixteen.gpu.tflops * sixteen.gpu.mfu
    for one in (eight, sixteen):
        gpu = one.gpu
        assert gpu.attention_mfu is not None
        rates = CONSTANTS.gpus["h200"]
        assert gpu.tflops * 1e12 * gpu.attention_mfu == pytest.approx(
            rates.flops * rates.attention_mfu
        )
        assert gpu.bandwidth_gb_s * 1e9 == pytest.approx(rates.bytes_s)


def test_the_engines_are_started_as_their_benchmarks_say(engine: pd.DataFrame) -> None:
    for row in rows_of(engine):
        served = benchmark(row, row.model, CONSTANTS)
        assert served.clients == row.concurrency
        assert {len(requests) for requests in served.requests} == {REQUESTS_A_CLIENT}
        every = np.array([request for requests in served.requests for request in requests])
        nominal = np.array([row.isl, row.osl])
        assert (every <= nominal).all()
        if row.model == "Llama-3.1-70B":
            assert (every >= np.floor(0.8 * nominal)).all()
            assert every.mean(axis=0) == pytest.approx(0.9 * nominal, rel=0.03)
            assert served.token_budget == {"vllm": 8192, "trtllm": 16384}[row.backend]
        else:
            assert (every == nominal).all()
            assert served.token_budget == row.isl + row.concurrency + 1500
        room = served.kv_tokens * served.model.kv_bytes_per_token + served.model.weight_bytes
        memory = catalog.gpu(served.gpu.name).memory_gb * 1e9
        assert 0.83 * memory < room < 0.99 * memory
