"""How the measured engines were started and loaded.

Two benchmarks made the engine table:

* **genai-perf**, as aiconfigurator drives it (``eval/benchmarks/genai_perf_runner.py``): all
  prompts and outputs have the same length; a warm-up of 2 requests per client runs to its end; then
  every client submits at once, and the means over 10 requests per client are reported. The
  simultaneous start is part of the measurement, so nothing is discarded here either.
* **InferenceMAX** (the rows of Llama-3.1-70B; ``benchmarks/70b_fp8_h200_slurm.sh`` and
  ``70b_fp8_h200_trt_slurm.sh``): 10 requests per client, no warm-up, lengths uniform in
  [0.8 x, x] (``random-range-ratio``).
"""

from __future__ import annotations

import random
from typing import Any

from fate_gym import catalog
from fate_gym.catalog import GB, Gpu, Model
from fate_gym.lab.cost_fit.closed_loop import ClosedLoop, Request
from fate_gym.lab.cost_fit.constants import Constants
from fate_gym.lab.cost_fit.measured import ENGINE_SHAPES, GPUS, SYSTEMS, Shape

REQUESTS_A_CLIENT = 10
_RANGE_RATIO = 0.8
_INFERENCE_MAX = "Llama-3.1-70B"

# Tokens per iteration beyond prompt and batch, with sequences = clients: aiconfigurator's
# generator/rule_plugin/benchmark/{vllm,sglang,trtllm}.rule (SGLang with enable_mixed_chunk).
# The engines' own defaults on these GPUs are 8192 tokens (vLLM max_num_batched_tokens of the API
# server and 1024 sequences, arg_utils.py; TensorRT-LLM max_num_tokens, with a batch of 2048; SGLang
# chunked_prefill_size, server_args.py).
_EXTRA_TOKENS = 1500
# max-num-batched-tokens and max_num_tokens in the scripts of InferenceMAX.
_INFERENCE_MAX_TOKENS = {"vllm": 8192, "trtllm": 16384}

_VLLM_UTILISATION = 0.9  # gpu_memory_utilization, of all memory
_TRTLLM_FRACTION = 0.9  # free_gpu_memory_fraction, of the memory left by the weights
# mem_fraction_static of SGLang, of all memory, by its heuristic (sgl-project/sglang#10975): all but
# 512 MiB, 1.5 MiB per token of the default chunk (8192), 2 MiB per sequence in CUDA graphs (256)
# and 128 MiB, of 81,559 and 143,771 MiB.
_SGLANG_FRACTION = {"h100_sxm": 0.835, "h200_sxm": 0.907}


def benchmark(row: Any, model: str, constants: Constants) -> ClosedLoop:
    """Set up the benchmark behind a row of the engine table."""
    shape, gpu = ENGINE_SHAPES[model], SYSTEMS[row.system]
    eight_bits = row.precision == "fp8"
    # 8-bit KV: set in the scripts of InferenceMAX; and with 16-bit KV the concurrent clients of
    # TensorRT-LLM on 8-bit Qwen3-32B would not fit. Else the engines' default: the model's type.
    eight_bit_kv = eight_bits and (model == _INFERENCE_MAX or row.backend == "trtllm")
    served = _model(model, shape, eight_bits, eight_bit_kv)
    room = _kv_room(row, catalog.gpu(GPUS[gpu]).memory_gb * GB, served.weight_bytes)
    if model == _INFERENCE_MAX:
        budget = _INFERENCE_MAX_TOKENS[row.backend]
    else:
        budget = int(row.isl) + int(row.concurrency) + _EXTRA_TOKENS
    return ClosedLoop(
        model=served,
        gpu=_gpu(gpu, constants, eight_bits),
        kv_tokens=int(room / served.kv_bytes_per_token),
        token_budget=budget,
        requests=_requests(row, model),
    )


def _model(name: str, shape: Shape, eight_bits: bool, eight_bit_kv: bool) -> Model:
    """Make a model as it was served; embedding and output projection keep two bytes per weight."""
    body, head = shape.layers * shape.layer_params, shape.head_params
    return Model(
        name=name,
        params_b=(body + 2 * head) / 1e9,
        layers=shape.layers,
        hidden=shape.hidden,
        # The cost model assumes two bytes per number; halving the heads halves the bytes.
        kv_heads=shape.kv_heads // 2 if eight_bit_kv else shape.kv_heads,
        head_dim=shape.head_dim,
        heads=shape.heads,
        vocab=shape.vocab,
        weight_gb=(body * (1 if eight_bits else 2) + 2 * 2 * head) / GB,
    )


def _gpu(key: str, constants: Constants, eight_bits: bool) -> Gpu:
    """Make a GPU with the efficiencies under test; 8-bit linear layers have twice the FLOP/s.

    Attention computes in 16 bits.
    """
    rates, factor = constants.gpus[key], 2 if eight_bits else 1
    facts = {
        "tflops": factor * rates.flops / 1e12,
        "bandwidth_gb_s": rates.bytes_s / GB,
        "mfu": rates.mfu,
        "mbu": rates.mbu,
        "attention_mfu": rates.attention_mfu / factor,
        "attention_mbu": rates.attention_mbu,
    }
    return catalog.gpu(GPUS[key]).model_copy(update=facts)


def _kv_room(row: Any, memory: float, weights: float) -> float:
    """Bytes that an engine reserves for KV."""
    if row.backend == "trtllm":
        return _TRTLLM_FRACTION * (memory - weights)
    sglang = row.backend == "sglang"
    return (_SGLANG_FRACTION[row.system] if sglang else _VLLM_UTILISATION) * memory - weights


def _requests(row: Any, model: str) -> list[list[Request]]:
    """Make the requests of each client.

    In the benchmarks a client that has its answer takes the next request from a shared list. Here
    each client has its own list: with equal lengths that is the same, and with drawn lengths each
    client gets others from the same distribution.
    """
    clients, prompt, output = int(row.concurrency), int(row.isl), int(row.osl)
    if model != _INFERENCE_MAX:
        return [[Request(prompt, output)] * REQUESTS_A_CLIENT] * clients
    draw = random.Random(0)
    least = [int(_RANGE_RATIO * length) for length in (prompt, output)]
    drawn = [
        Request(draw.randint(least[0], prompt), draw.randint(least[1], output))
        for _ in range(REQUESTS_A_CLIENT * clients)
    ]
    return [drawn[client::clients] for client in range(clients)]
