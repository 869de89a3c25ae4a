"""Seconds of one iteration of a serving engine, by the cost model."""

from __future__ import annotations

from dataclasses import dataclass

from fate_gym.lab.cost_fit.constants import Constants
from fate_gym.lab.cost_fit.measured import Shape


@dataclass(frozen=True)
class IterationCost:
    """The terms of docs/execution-model.md for one model on one GPU.

    ``flops`` and ``weight_bytes_s`` are rates that linear layers reach. The others are seconds: of
    a pair of tokens in prefill attention, of a byte of KV that decoding reads, of what a token
    moves between the kernels, and of all layers whatever the batch is (``fixed_s``).
    """

    params: float  # parameters that every token is multiplied with
    head_params: float  # parameters of the output projection
    read_bytes: float  # weights that an iteration reads, all experts included
    kv_bytes: float  # KV of a token
    flops: float
    weight_bytes_s: float
    ramp_tokens: float
    pair_s: float
    kv_byte_s: float
    token_s: float
    fixed_s: float
    expert_bytes: float = 0.0  # of read_bytes, those that lie in experts
    expert_share: float = 0.0  # experts that a token uses, over all experts

    def seconds(self, tokens: int, logits: int, pairs: float, context: float) -> float:
        """Seconds of an iteration.

        Args:
            tokens: of decoding queries and of prompts.
            logits: tokens that the output projection is computed for.
            pairs: pairs of tokens that prefill attends to.
            context: tokens that decoding queries attend to, over all queries.
        """
        work = 2.0 * (self.params * tokens + self.head_params * logits)
        compute = work * (tokens + self.ramp_tokens) / (tokens * self.flops)
        linear = max(compute, self.weight_bytes(tokens) / self.weight_bytes_s)
        attention = pairs * self.pair_s + context * self.context_token_s
        return linear + attention + tokens * self.token_s + self.fixed_s

    def weight_bytes(self, tokens: int) -> float:
        """Bytes of weights that are read: of the experts, those that some token uses."""
        if not self.expert_bytes:
            return self.read_bytes
        return self.read_bytes - self.expert_bytes * (1.0 - self.expert_share) ** tokens

    @property
    def context_token_s(self) -> float:
        """Seconds that a decoding query spends on each token of its context."""
        return self.kv_bytes * self.kv_byte_s


def iteration_cost(
    shape: Shape, gpu: str, constants: Constants, weight_bytes: int = 2, kv_bytes: int = 2
) -> IterationCost:
    """The cost of a dense model on one GPU.

    Args:
        shape: of the model.
        gpu: key of ``constants.gpus``.
        constants: efficiencies and shared constants.
        weight_bytes: of a weight in the layers: 1 computes at twice the peak. Embedding and output
            projection stay at two bytes.
        kv_bytes: of a number in the KV cache.
    """
    rates = constants.gpus[gpu]
    body = shape.layers * shape.layer_params
    kv_width = shape.kv_heads * shape.head_dim
    passes = constants.linear_passes * shape.hidden
    passes += constants.attention_passes * 2.0 * (shape.width + kv_width)
    return IterationCost(
        params=body,
        head_params=shape.head_params,
        read_bytes=weight_bytes * body + 2.0 * shape.head_params,
        kv_bytes=2.0 * kv_bytes * shape.layers * kv_width,
        flops=rates.mfu * rates.flops * 2.0 / weight_bytes,
        weight_bytes_s=rates.mbu * rates.bytes_s,
        ramp_tokens=constants.ramp_tokens,
        pair_s=4.0 * shape.layers * shape.width / (rates.attention_mfu * rates.flops),
        kv_byte_s=1.0 / (rates.attention_mbu * rates.bytes_s),
        token_s=2.0 * shape.layers * passes / rates.bytes_s,
        fixed_s=shape.layers * constants.layer_s,
    )
