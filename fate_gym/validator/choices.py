"""Which stages vanish.

Re-implements the section "Choices" of docs/execution-model.md, from the draws in the trace.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from fate_gym.problem import Workflow
from fate_gym.validator.state import State


def check_draws(state: State) -> None:
    """Find the stages that vanish, from the draws of the choosers that live."""
    number = {(node.workflow, node.stage.id): node.number for node in state.world.nodes}
    waiting = {
        number[w, stage]: (number[w, after], low, high)
        for w, workflow in enumerate(state.world.problem.workflows)
        for stage, after, low, high in _conditions(workflow)
    }
    state.chooser = {stage: chooser for stage, (chooser, _, _) in waiting.items()}
    # A chooser may itself be chosen: settle the stages whose chooser is settled first.
    while waiting:
        settled = {stage: row for stage, row in waiting.items() if row[0] not in waiting}
        for stage, (chooser, low, high) in settled.items():
            if chooser in state.vanished_by:
                state.vanished_by[stage] = state.vanished_by[chooser]
                continue
            draw = float(state.trace.draws[chooser])
            if not 0.0 <= draw <= 1.0:
                name = state.world.nodes[chooser].name
                state.faults.stop(f"{name}: draw: {draw!r} is not in [0, 1)")
            if not low <= draw < high:
                state.vanished_by[stage] = chooser
        waiting = {stage: row for stage, row in waiting.items() if stage not in settled}
    choosers = set(state.chooser.values()).difference(state.vanished_by)
    for node in state.world.nodes:
        draw = state.trace.draws[node.number]
        if math.isnan(draw) == (node.number in choosers):
            state.faults.append(f"{node.name}: draw: {draw!r}")


def _conditions(workflow: Workflow) -> Iterator[tuple[str, str, float, float]]:
    """Yield (stage, chooser, low, high): a stage lives if its chooser's draw is in [low, high)."""
    for choice in workflow.choices:
        low = 0.0
        for i, option in enumerate(choice.options, start=1):
            high = math.inf if i == len(choice.options) else low + option.probability
            for stage in option.stages:
                yield stage, choice.after, low, high
            low = high
    for fan_out in workflow.fan_outs:
        low = 0.0
        for replica, weight in zip(fan_out.replicas, fan_out.weights, strict=True):
            for stage in replica:
                yield stage, fan_out.after, low, math.inf
            low += weight
