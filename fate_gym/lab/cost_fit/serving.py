"""The cost model of a whole engine, to compare with measured ones."""

from __future__ import annotations

from dataclasses import replace

from fate_gym import catalog
from fate_gym.catalog import GB, Gpu
from fate_gym.lab.cost_fit.constants import Constants
from fate_gym.lab.cost_fit.measured import Shape


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
