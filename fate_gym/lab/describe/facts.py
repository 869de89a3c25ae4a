"""Statistics of a suite's workflows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from fate_gym.metrics.intensity import StateParts, problem_state_parts
from fate_gym.problem import Problem, Workflow, topological_order
from fate_gym.problem.sessions import apart
from fate_gym.sim import compile_problem


@dataclass(frozen=True)
class Facts:
    """Statistics of one workflow; tokens count all queries, bytes all edges."""

    workflow: Workflow
    levels: NDArray[np.int64]  # (stages,), edges on the longest path from a source
    models: frozenset[str]
    tokens: int
    bytes: float
    state: StateParts

    @property
    def family(self) -> str:
        return self.workflow.family or "none"

    @property
    def stages(self) -> int:
        return len(self.workflow.stages)

    @property
    def depth(self) -> int:
        return int(self.levels.max()) + 1

    @property
    def width(self) -> int:
        return int(np.bincount(self.levels).max())


def describe(problems: Sequence[Problem]) -> list[Facts]:
    """Compute the facts of every workflow; state intensity is that of the workflow alone."""
    found = []
    for problem in problems:
        for workflow in problem.workflows:
            alone = problem.model_copy(update={"workflows": (apart(workflow),)})
            inherited = {
                stage: sum(edge.inherited_tokens for edge in edges)
                for stage, edges in workflow.parents.items()
            }
            found.append(
                Facts(
                    workflow=workflow,
                    levels=_levels(workflow),
                    models=frozenset(stage.model for stage in workflow.stages if stage.model),
                    tokens=sum(
                        stage.prefix_tokens
                        + stage.queries
                        * (stage.prompt_tokens + inherited[stage.id] + stage.output_tokens)
                        for stage in workflow.stages
                        if stage.model
                    ),
                    bytes=sum(edge.bytes for edge in workflow.edges),
                    state=problem_state_parts(compile_problem(alone)),
                )
            )
    return found


def by_family(facts: Sequence[Facts]) -> dict[str, list[Facts]]:
    """Group facts by family, sorted by name."""
    ordered = sorted(facts, key=lambda row: row.family)
    return {name: list(rows) for name, rows in groupby(ordered, key=lambda row: row.family)}


def _levels(workflow: Workflow) -> NDArray[np.int64]:
    level: dict[str, int] = {}
    for stage in topological_order(workflow):
        level[stage] = max((level[edge.parent] + 1 for edge in workflow.parents[stage]), default=0)
    return np.array([level[stage.id] for stage in workflow.stages])
