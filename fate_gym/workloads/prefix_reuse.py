"""Workflows with a controlled share of stages that share a prefix.

Layers of question answering over long documents: every stage reads a document of a LongBench
task's average length and answers its own question. A given share of the stages reads the same
document; the others read documents of the same length, one each. Nothing else changes with the
share, so that differences between shares are due to reuse.
"""

from __future__ import annotations

import math

import numpy as np

from fate_gym.catalog.longbench import longbench
from fate_gym.catalog.roles import role_rules
from fate_gym.problem import Edge, Stage, Workflow
from fate_gym.workloads.roles import seeded

MODELS = ("Llama-3.1-8B", "Qwen2.5-7B", "Mistral-7B", "Qwen2.5-14B")
"""Candidate models; a workflow uses two of them, in alternate columns."""

LIMIT = 12_288
"""Longest document in tokens; longer ones are cut, as is usual for short-context models."""


def build_prefix_reuse(
    task: str, share: float, seed: int, *, layers: int, width: int, queries: int
) -> Workflow:
    """Build a workflow of ``layers`` x ``width`` stages, named ``<task>-<share>/s<seed>``.

    Models, lengths and edges depend on (seed, task) alone; the stages that share at one share also
    share at every larger one.

    Args:
        task: a LongBench task.
        share: share of the stages that read the same document.
        seed: seed of models and lengths.
        layers: stages on the longest path.
        width: stages per layer.
        queries: questions per stage.
    """
    facts, rules = longbench(), role_rules()
    generator = seeded(seed, "prefix_reuse", task)
    models = generator.permutation(MODELS)[:2].tolist()
    order = generator.permutation(layers * width)
    question = facts.question
    lengths = np.exp(
        math.log(question.p50) + question.sigma * generator.standard_normal(layers * width)
    )
    prompts = np.clip(lengths, question.min, question.max).round().astype(int).tolist()
    sharing = set(order[: round(share * layers * width)].tolist())
    name = f"{task}-{share:g}"
    output = facts.tasks[task].output
    stages = tuple(
        Stage(
            id=f"l{number // width}_{number % width}",
            label="shared" if number in sharing else "private",
            model=models[number % width % 2],
            queries=queries,
            prefix_group=f"{name}/{seed}/{'shared' if number in sharing else number}",
            prefix_tokens=min(LIMIT, facts.document_tokens(task)),
            prompt_tokens=prompts[number],
            output_tokens=output,
        )
        for number in range(layers * width)
    )
    edges = tuple(
        Edge(
            parent=stages[above * width + (column + shift) % width].id,
            child=stages[(above + 1) * width + column].id,
            bytes=rules.text_bytes_per_token * output * queries,
            inherited_tokens=output,
        )
        for above in range(layers - 1)
        for column in range(width)
        for shift in range(min(2, width))
    )
    return Workflow(id=f"{name}/s{seed}", stages=stages, edges=edges, family=f"share {share:g}")
