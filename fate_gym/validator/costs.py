"""Seconds of prefill and decode.

Re-implements the paragraphs "Prefill", "Decode" and "Tensor parallelism" of
docs/execution-model.md.
"""

from __future__ import annotations

import math

from fate_gym.catalog import GB, Model
from fate_gym.validator.state import Hits
from fate_gym.validator.world import Machine, Node, World


class Rates:
    """How fast one GPU, or several that work as one, serve a model."""

    def __init__(self, model: Model, machine: Machine) -> None:
        assert machine.gpu is not None
        self.facts, self.model, self.gpu = machine.facts, model, machine.gpu
        self.gpus, self.peer = machine.gpus, machine.peer

    def linear(self, tokens: float, outputs: float) -> float:
        """Return the GEMM seconds of ``tokens`` tokens, of which ``outputs`` yield a next one."""
        computing = 0.0
        if tokens > 0:
            in_layers, in_head = self._params
            products = 2 * (in_layers * tokens + in_head * outputs)
            computing = products / (self._mfu(tokens) * self._peak)
        return max(computing, self._reading(tokens))

    def attending(self, pairs: float) -> float:
        """Return the seconds of the attention of prompts, for ``pairs`` of tokens."""
        mfu = self.gpu.attention_mfu
        if mfu is None:
            mfu = min(1.0, self.facts.attention_mfu_ratio * self.gpu.mfu)
        return 4 * self.model.layers * self._width * pairs / (mfu * self._peak)

    def recalling(self, tokens: float) -> float:
        """Return the seconds to read the KV of ``tokens`` tokens of context."""
        mbu = self.gpu.attention_mbu
        if mbu is None:
            mbu = min(1.0, self.facts.attention_mbu_ratio * self.gpu.mbu)
        return tokens * self.model.kv_bytes_per_token / (mbu * self._bandwidth)

    def between(self, tokens: float) -> float:
        """Return the seconds between GEMMs of all layers: traffic, all-reduces and fixed times."""
        facts, model = self.facts, self.model
        read_and_written = 2 * (self._width + model.kv_heads * model.head_dim)
        passed = facts.linear_passes * model.hidden + facts.attention_passes * read_and_written
        moved = 2 * passed * tokens / self._bandwidth
        layer = moved + facts.linear_layer_s + facts.attention_layer_s
        if self.gpus > 1:
            # Ring all-reduce traffic: each GPU sends 2 (k - 1) / k times the reduced data.
            sent = tokens * model.hidden * 2 * 2 * (self.gpus - 1) / self.gpus
            layer += 2 * (sent / self.peer + facts.all_reduce_s)
        return model.layers * layer

    @property
    def _peak(self) -> float:
        return self.gpus * self.gpu.tflops * 1e12

    @property
    def _bandwidth(self) -> float:
        return self.gpus * self.gpu.bandwidth_gb_s * GB

    @property
    def _width(self) -> int:
        model = self.model
        return model.hidden if model.heads is None else model.heads * model.head_dim

    def _mfu(self, tokens: float) -> float:
        return self.gpu.mfu * tokens / (tokens + self.facts.mfu_ramp_tokens)

    @property
    def _params(self) -> tuple[float, float]:
        """Parameters that multiply every token, and those of the output projection."""
        model = self.model
        head = model.vocab * model.hidden
        active = (model.params_b if model.active_b is None else model.active_b) * 1e9
        return active - (1 if model.tied_embedding else 2) * head, head

    def _reading(self, tokens: float) -> float:
        """Return the seconds to read the weights that ``tokens`` tokens need."""
        model = self.model
        total = model.weight_bytes
        if not model.tied_embedding:
            total -= 2 * model.vocab * model.hidden
        if model.expert_weight_share > 0:
            idle = (1 - model.experts_per_token / model.experts) ** tokens
            total -= model.expert_weight_share * model.weight_bytes * idle
        return total / (self.gpu.mbu * self._bandwidth)


class Costs:
    """The costs of a model stage on an exclusive device."""

    def __init__(self, world: World, node: Node, machine: Machine) -> None:
        assert node.model is not None
        self.rates = Rates(node.model, machine)
        self.launch = machine.facts.prefill_launch_s
        self.stage, self.inherited = node.stage, node.inherited
        self.batch = wave_limit(node, machine, world.facts.max_batch)

    def prefill(self, n: int, hits: Hits) -> float:
        """Return the prefill seconds of ``n`` queries."""
        p, u = self.stage.prefix_tokens, self.stage.prompt_tokens
        new = float(p - hits.prefix)
        each = u + (self.inherited - hits.cached - hits.gone)
        tokens = new + n * each
        pairs = new * (hits.prefix + new / 2)
        pairs += n * each * (p + u + self.inherited - each / 2)
        attention = self.rates.attending(pairs) if tokens > 0 else 0.0
        return self.rates.linear(tokens, n) + attention + self.rates.between(tokens) + self.launch

    def decode(self, n: int) -> tuple[int, float]:
        """Return the number of waves and the decode seconds of ``n`` queries."""
        waves = math.ceil(n / self.batch)
        last = n - (waves - 1) * self.batch
        steps = (waves - 1) * self._step(self.batch) + self._step(last)
        return waves, self.stage.output_tokens * steps

    def _step(self, x: int) -> float:
        """Return the seconds of one decode step with ``x`` queries in the wave."""
        own = self.stage.prompt_tokens + self.inherited + self.stage.output_tokens / 2
        attention = self.rates.recalling(x * (self.stage.prefix_tokens + own))
        return self.rates.linear(x, x) + attention + self.rates.between(x)


def wave_limit(node: Node, machine: Machine, most: int) -> int:
    """Return the queries in one full wave of a model stage, at most ``most``."""
    assert node.model is not None
    each = node.query_tokens * node.model.kv_bytes_per_token
    if each == 0:
        return most
    prefix = node.stage.prefix_tokens * node.model.kv_bytes_per_token
    room = machine.limit - node.model.weight_bytes - prefix
    return max(1, min(most, math.floor(room / each)))
