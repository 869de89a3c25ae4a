"""How the measured engines were started and loaded, and what the cost model says of such a run.

Two benchmarks made the engine table:

* **genai-perf**, as aiconfigurator drives it (``eval/benchmarks/genai_perf_runner.py``): all
  prompts and outputs have the same length; a warm-up of 2 requests a client runs to its end; then
  every client submits at once, and the means over 10 requests a client are reported. That they
  start at once is part of the measurement, so nothing is discarded here either.
* **InferenceMAX** (the rows of Llama-3.1-70B; ``benchmarks/70b_fp8_h200_slurm.sh`` and
  ``70b_fp8_h200_trt_slurm.sh``): 10 requests a client, no warm-up, lengths uniform in
  [0.8 x, x] (``random-range-ratio``).

Time to first token counts from submission, queueing included; time a token is
(end - first token) / (output - 1).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fate_gym import catalog
from fate_gym.catalog import GB
from fate_gym.lab.cost_fit.constants import Constants
from fate_gym.lab.cost_fit.measured import ENGINE_SHAPES, GPUS, SYSTEMS
from fate_gym.lab.cost_fit.serving.closed_form import serve
from fate_gym.lab.cost_fit.serving.costs import IterationCost, iteration_cost
from fate_gym.lab.cost_fit.serving.queries import Engine, Request, Run

REQUESTS_A_CLIENT = 10
_RANGE_RATIO = 0.8
_INFERENCE_MAX = "Llama-3.1-70B"

# Tokens an iteration beyond prompt and batch, and sequences = clients: aiconfigurator's
# generator/rule_plugin/benchmark/{vllm,sglang,trtllm}.rule (SGLang with enable_mixed_chunk).
# The engines' own defaults on these GPUs are 8192 tokens (vLLM max_num_batched_tokens of the API
# server and 1024 sequences, arg_utils.py; TensorRT-LLM max_num_tokens, with a batch of 2048; SGLang
# chunked_prefill_size, server_args.py).
_EXTRA_TOKENS = 1500
# max-num-batched-tokens and max_num_tokens in the scripts of InferenceMAX.
_INFERENCE_MAX_TOKENS = {"vllm": 8192, "trtllm": 16384}

_VLLM_UTILISATION = 0.9  # gpu_memory_utilization, of all memory
_TRTLLM_FRACTION = 0.9  # free_gpu_memory_fraction, of what weights leave
# mem_fraction_static of SGLang, of all memory, by its heuristic (sgl-project/sglang#10975): all but
# 512 MiB, 1.5 MiB a token of the default chunk (8192), 2 MiB a sequence in CUDA graphs (256) and
# 128 MiB, of 81,559 and 143,771 MiB.
_SGLANG_FRACTION = {"h100_sxm": 0.835, "h200_sxm": 0.907}


@dataclass(frozen=True)
class Benchmark:
    """One row of the engine table, ready to be served."""

    cost: IterationCost
    engine: Engine
    requests: Sequence[Request]
    clients: int

    @property
    def fits(self) -> bool:
        """The KV of all clients fits into memory at once, on average."""
        tokens = float(np.mean([request.kv_tokens for request in self.requests]))
        return self.clients * tokens <= self.engine.kv_tokens

    @property
    def output(self) -> float:
        """Mean output tokens of a request."""
        return float(np.mean([request.output for request in self.requests]))

    def run(self) -> Run:
        """What is served."""
        return serve(self.cost, self.engine, self.requests, self.clients)


@dataclass(frozen=True)
class Means:
    """What a benchmark reports: means over its requests, in seconds."""

    ttft: float
    tpot: float
    request: float


def means(run: Run, warm_up: int = 0) -> Means:
    """Means over the requests of a run but the first ``warm_up`` that ended."""
    counted = run.queries[warm_up:]
    ttft, tpot, request = np.mean([(q.ttft, q.tpot, q.seconds) for q in counted], axis=0).tolist()
    return Means(ttft, tpot, request)


def benchmark(row: Any, model: str, constants: Constants) -> Benchmark:
    """The benchmark behind a row of the engine table."""
    shape, gpu = ENGINE_SHAPES[model], SYSTEMS[row.system]
    eight_bits = row.precision == "fp8"
    # 8-bit KV: in the scripts of InferenceMAX; and the clients of TensorRT-LLM that ran together on
    # 8-bit Qwen3-32B need more than the memory in 16 bits. Else the engines' default, the model's.
    eight_bit_kv = eight_bits and (model == _INFERENCE_MAX or row.backend == "trtllm")
    cost = iteration_cost(shape, gpu, constants, 2 - eight_bits, 2 - eight_bit_kv)
    weights = cost.read_bytes + 2.0 * shape.head_params
    room = _kv_room(row, catalog.gpu(GPUS[gpu]).memory_gb * GB, weights)
    clients = int(row.concurrency)
    if model == _INFERENCE_MAX:
        budget = _INFERENCE_MAX_TOKENS[row.backend]
    else:
        budget = int(row.isl) + clients + _EXTRA_TOKENS
    engine = Engine(
        kv_tokens=int(room / cost.kv_bytes),
        token_budget=budget,
        max_sequences=clients,
        launch_s=catalog.execution().prefill_launch_s,
    )
    return Benchmark(cost, engine, _requests(row, model), clients)


def _kv_room(row: Any, memory: float, weights: float) -> float:
    """Bytes that an engine keeps for KV."""
    if row.backend == "trtllm":
        return _TRTLLM_FRACTION * (memory - weights)
    sglang = row.backend == "sglang"
    return (_SGLANG_FRACTION[row.system] if sglang else _VLLM_UTILISATION) * memory - weights


def _requests(row: Any, model: str) -> list[Request]:
    count, prompt, output = REQUESTS_A_CLIENT * int(row.concurrency), int(row.isl), int(row.osl)
    if model != _INFERENCE_MAX:
        return [Request(prompt, output)] * count
    draw = random.Random(0)
    least = [int(_RANGE_RATIO * length) for length in (prompt, output)]
    return [
        Request(draw.randint(least[0], prompt), draw.randint(least[1], output))
        for _ in range(count)
    ]
