"""Clients in a closed loop in front of one batching device, as a problem of the simulator.

Each client is a workflow: a chain of requests, each ready when the one before has ended. Nothing is
passed on, so every request has a prompt of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from fate_gym.catalog import GB, Gpu, Model
from fate_gym.catalog.limits import MOST_RATE
from fate_gym.kernel.pricing import price
from fate_gym.lab.cost_fit.constants import Constants, execution_of
from fate_gym.problem import Cluster, Device, Edge, Problem, Stage, Workflow
from fate_gym.sim import (
    Assignment,
    CompiledProblem,
    DecisionView,
    Simulator,
    Trace,
    compile_problem,
)
from fate_gym.sim.compile import fill_constants


class Request(NamedTuple):
    """Prompt and output tokens of a request."""

    prompt: int
    output: int

    @property
    def kv_tokens(self) -> int:
        """Tokens reserved at admission: the request at full length."""
        return self.prompt + self.output


@dataclass(frozen=True)
class ClosedLoop:
    """Clients in a closed loop, and the device that serves them.

    ``gpu`` gives rates; its memory is set to hold the weights and ``kv_tokens`` tokens of KV.
    ``requests`` lists the requests of each client. As many sequences run as there are clients.
    """

    model: Model
    gpu: Gpu
    kv_tokens: int
    token_budget: int
    requests: Sequence[Sequence[Request]]

    @property
    def clients(self) -> int:
        """Number of clients, and so of requests under way at a time."""
        return len(self.requests)

    @property
    def fits(self) -> bool:
        """Whether the KV of all clients fits into memory at once, on average."""
        tokens = float(np.mean([request.kv_tokens for request in self._every]))
        return self.clients * tokens <= self.kv_tokens

    @property
    def output(self) -> float:
        """Mean output tokens of a request."""
        return float(np.mean([request.output for request in self._every]))

    @property
    def _every(self) -> list[Request]:
        return list(itertools.chain.from_iterable(self.requests))

    @cached_property
    def problem(self) -> Problem:
        """The closed loop as a problem of the simulator."""
        # Half a token more, so that rounding does not lose the last token.
        kv = (self.kv_tokens + 0.5) * self.model.kv_bytes_per_token
        memory = {"memory_gb": (self.model.weight_bytes + kv) / GB}
        cluster = Cluster(
            id="engine",
            devices=(Device(id="device", gpu=self.gpu.name),),
            load_init_s=0.0,
            # Engines are started before they are measured, so loads take only nanoseconds.
            load_gb_s=MOST_RATE,
            memory_utilisation=1.0,
            execution="batching",
            prefill="chunked",
            token_budget=self.token_budget,
            max_sequences=self.clients,
        )
        return Problem.build(
            cluster,
            [self._client(i, requests) for i, requests in enumerate(self.requests)],
            gpus=[self.gpu.model_copy(update=memory)],
            models=[self.model],
        )

    def _client(self, number: int, requests: Sequence[Request]) -> Workflow:
        names = [f"r{i}" for i in range(len(requests))]
        stages = (
            Stage(id=name, model=self.model.name, prompt_tokens=prompt, output_tokens=output)
            for name, (prompt, output) in zip(names, requests, strict=True)
        )
        edges = (Edge(parent=one, child=next) for one, next in itertools.pairwise(names))
        return Workflow(id=f"client{number}", stages=tuple(stages), edges=tuple(edges))

    def run(self, constants: Constants) -> Trace:
        """Simulate the loop with the given constants."""
        return Simulator(priced(self.problem, constants)).run(_OneDevice())


class _OneDevice:
    """Sends every request to the only device, in the order in which they become ready."""

    name = "one_device"

    def reset(self, view: DecisionView, seed: int) -> None: ...

    def decide(self, view: DecisionView) -> Sequence[Assignment]:
        return [Assignment(stage, (0,)) for stage in view.ready]


def priced(problem: Problem, constants: Constants) -> CompiledProblem:
    """Compile a problem with the constants that all GPUs share taken from ``constants``.

    The catalogue holds those of the last fit; here they are those under test.
    """
    facts = execution_of(constants)
    compiled = compile_problem(problem)
    arrays = compiled.arrays
    for row in arrays.devices:
        fill_constants(row, facts)
    price(arrays)
    return compiled


class Means(NamedTuple):
    """Means over requests as a benchmark reports them, in seconds."""

    ttft: float
    tpot: float
    request: float


def means(trace: Trace) -> Means:
    """Compute means over the requests of a run.

    Time to first token counts from submission, queueing included; time per output token is
    (end - first token) / (output - 1).
    """
    rows = trace.shards
    submitted = trace.stage_ready[rows["stage"]]
    stages = [stage for workflow in trace.problem.workflows for stage in workflow.stages]
    later = np.maximum(1, [stages[number].output_tokens - 1 for number in rows["stage"]])
    return Means(
        ttft=float((rows["first"] - submitted).mean()),
        tpot=float(((rows["end"] - rows["first"]) / later).mean()),
        request=float((rows["end"] - submitted).mean()),
    )
