"""Predicts the seconds of a script's operations by the cost model."""

from __future__ import annotations

from typing import Any

from fate_gym.catalog import Gpu, Model
from fate_gym.lab.replay.progress import Progress
from fate_gym.lab.replay.script import Load, Open, Operation, Pass, Script
from fate_gym.problem import Problem
from fate_gym.validator.costs import Rates
from fate_gym.validator.world import World


def predicted_seconds(script: Script, gpu: Gpu | None, models: dict[str, Model]) -> list[float]:
    """Predict the seconds of each operation, without noise.

    Args:
        script: the script.
        gpu: replaces the device's own GPU, if given.
        models: replace the models of the same names.
    """
    predictor = _Predictor(script, World.of(_priced(script, gpu, models)))
    seconds = []
    for operation in script.operations:
        seconds.append(predictor.seconds(operation))
        predictor.progress.follow(operation)
    return seconds


def _priced(script: Script, gpu: Gpu | None, models: dict[str, Model]) -> Problem:
    """Copy the problem with another GPU and other models; the schedule stays as it is."""
    problem = script.trace.problem
    own = {model.name: model for model in problem.models} | models
    changes: dict[str, Any] = {"models": tuple(own.values())}
    if gpu is not None:
        devices = list(problem.cluster.devices)
        devices[script.device] = devices[script.device].model_copy(update={"gpu": gpu.name})
        gpus = {one.name: one for one in problem.gpus} | {gpu.name: gpu}
        changes["gpus"] = tuple(gpus.values())
        changes["cluster"] = problem.cluster.model_copy(update={"devices": tuple(devices)})
    return problem.model_copy(update=changes)


class _Predictor:
    def __init__(self, script: Script, world: World) -> None:
        self.script, self.world, self.progress = script, world, Progress(script)
        self.machine = world.machines[script.device]

    def seconds(self, operation: Operation) -> float:
        if isinstance(operation, Open):
            return self.machine.facts.prefill_launch_s
        if isinstance(operation, Load):
            model = self.world.problem.model_facts[operation.model]
            return self.world.load_seconds(model, self.machine)
        if isinstance(operation, Pass):
            return self._pass(operation)
        return 0.0

    def _pass(self, operation: Pass) -> float:
        progress, parts = self.progress, self.script.parts
        rates = Rates(self.world.problem.model_facts[operation.model], self.machine)
        stepping = sum(parts[number].queries for number in operation.steps)
        tokens = stepping + sum(count for _, count in operation.chunks)
        complete = [number for number, c in operation.chunks if progress.completes(number, c)]
        outputs = stepping + sum(parts[number].queries for number in complete)
        pairs = sum(
            parts[number].pairs * c / parts[number].tokens for number, c in operation.chunks
        )
        contexts = sum(parts[n].queries * progress.context(n) for n in operation.steps)
        seconds = rates.linear(tokens, outputs) + rates.attending(pairs)
        return seconds + rates.recalling(contexts) + rates.between(tokens)
