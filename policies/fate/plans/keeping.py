"""Copies between a planner's memory (numbered as the problem) and the context of an excerpt."""

from __future__ import annotations

from fate_gym.jit import Ints, inlined, kernel
from policies.fate.plans.schema import Context, Memory


@kernel
def recall(memory: Memory, stages: Ints, workflows: Ints, c: Context) -> None:
    """Load the best plan, biases and facts of the excerpt's stages and workflows into ``c``.

    Args:
        memory: memory of the whole problem.
        stages: (n,) the problem's numbers of the excerpt's stages.
        workflows: (m,) the problem's numbers of its workflows.
        c: context of the excerpt; its biases are numbered by the kinds of its stages.
    """
    ws, best = c.work, c.best
    _number_kinds(memory, stages)
    for i in range(best.stages.size):
        if i >= stages.size:
            best.stages[i].width = 0
            ws.stages[i].kind = 0
            continue
        s = stages[i]
        best.stages[i] = memory.planned[s]
        for k in range(c.problem.max_shards):
            best.devices[i, k], best.counts[i, k] = memory.devices[s, k], memory.counts[s, k]
        ws.stages[i] = memory.facts[s]
        ws.stages[i].kind = memory.kind_at[memory.facts[s].kind]
    for i in range(workflows.size):
        ws.workflows[i].alone = memory.alone[workflows[i]]
        c.biases.shifts[i] = memory.shifts[workflows[i]]
    for i in range(memory.kinds_count):
        kind = memory.kind_of[i]
        c.biases.kinds[i] = memory.kinds[kind]
        for d in range(c.problem.devices.size):
            c.biases.seconds[i, d] = memory.seconds[kind, d]


@kernel
def remember(memory: Memory, stages: Ints, workflows: Ints, c: Context) -> None:
    """Save the best plan and biases of ``c`` to memory; arguments as in `recall`."""
    best = c.best
    for i in range(stages.size):
        s = stages[i]
        memory.planned[s] = best.stages[i]
        for k in range(c.problem.max_shards):
            memory.devices[s, k], memory.counts[s, k] = best.devices[i, k], best.counts[i, k]
    for i in range(workflows.size):
        memory.shifts[workflows[i]] = c.biases.shifts[i]
    for i in range(memory.kinds_count):
        kind = memory.kind_of[i]
        memory.kinds[kind] = c.biases.kinds[i]
        for d in range(c.problem.devices.size):
            memory.seconds[kind, d] = c.biases.seconds[i, d]


@inlined
def _number_kinds(memory: Memory, stages: Ints) -> None:
    """Number the kinds of the stages by first appearance."""
    for kind in range(memory.kind_at.size):
        memory.kind_at[kind] = -1
    memory.kinds_count = 0
    for i in range(stages.size):
        kind = memory.facts[stages[i]].kind
        if memory.kind_at[kind] < 0:
            memory.kind_at[kind] = memory.kinds_count
            memory.kind_of[memory.kinds_count] = kind
            memory.kinds_count += 1
