"""What is not known before a run: noise, lengths, branches, fan-outs, failures of devices.

The shapes are those of the certain workloads with everything that may occur in them: which branch
is taken and how many replicas there are is drawn as the run goes on, by the problem's rules
(docs/execution-model.md). No number here was tuned to the results of any policy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pydantic import Field, NonNegativeFloat

from fate_gym.catalog.agentic import Step, Template
from fate_gym.catalog.roles import Span
from fate_gym.problem import Branch, Choice, Failures, FanOut, Options, Workflow, topological_order
from fate_gym.problem.workflow import Frozen


class Uncertain(Frozen):
    """The kinds of uncertainty in a suite."""

    noise: NonNegativeFloat = Field(0.0, le=2.0, description="sigma of durations")
    lengths: NonNegativeFloat = Field(0.0, le=2.0, description="sigma of output lengths")
    branches: bool = Field(False, description="branches and fan-outs are drawn as the run goes on")
    failures: Failures | None = Field(None, description="of devices")

    def options(self) -> Options:
        """Return the options of a problem."""
        return Options(
            uncertainty=self.noise, length_uncertainty=self.lengths, failures=self.failures
        )


def whole_weights(span: Span) -> list[float]:
    """Return probabilities of 1, 2, ..., ``span.high`` under the log-uniform distribution."""
    total = math.log(span.high + 1) - math.log(span.low)
    weights = [
        (math.log(k + 1) - math.log(k)) / total if k >= span.low else 0.0
        for k in range(1, span.high + 1)
    ]
    # Exact to the last bit: problems must have probabilities that sum to 1.
    weights[-1] = 1.0 - sum(weights[:-1])
    return weights


def draw_template(
    workflow: Workflow, template: Template, stages: Mapping[str, list[str]]
) -> Workflow:
    """Return the workflow with the template's choices: optional steps, and counts that vary.

    Args:
        workflow: a run with every step, and with as many replicas as there may be.
        template: its template.
        stages: ids of the stages of each step, chain by chain.
    """
    fan_outs: list[FanOut] = []
    in_replicas: set[str] = set()
    for name, step in template.steps.items():
        after = _chooser(step, stages)
        if not isinstance(step.count, Span) or after is None:
            continue
        members = [name, *(other for other, s in template.steps.items() if s.count == name)]
        in_replicas.update(members)
        fan_outs.append(
            FanOut(
                after=after,
                replicas=[
                    [
                        stage
                        for member in members
                        for stage in _chain(template.steps[member], stages[member], i)
                    ]
                    for i in range(step.count.high)
                ],
                weights=whole_weights(step.count),
            )
        )
    choices: list[Choice] = []
    for chance, share in template.chances.items():
        steps = [name for name, step in template.steps.items() if step.when == chance]
        after = _chooser(template.steps[steps[0]], stages)
        # Replicas behind a stage that vanishes vanish with it.
        conditional = [s for name in steps if name not in in_replicas for s in stages[name]]
        choices.append(_maybe(after, share, conditional))
    for name, share in template.skips.items():
        after = _chooser(template.steps[name], stages)
        choices.append(_maybe(after, 1.0 - share, stages[name]))
    return workflow.model_copy(update={"choices": tuple(choices), "fan_outs": tuple(fan_outs)})


def _maybe(after: str | None, share: float, stages: Sequence[str]) -> Choice:
    assert after is not None  # templates are checked
    return Choice(
        after=after,
        options=[
            Branch(probability=share, stages=stages),
            Branch(probability=1.0 - share),
        ],
    )


def _chooser(step: Step, stages: Mapping[str, list[str]]) -> str | None:
    """Return the stage whose end decides on a step: the last single stage before it, or None."""
    for name in reversed(step.after):
        if len(stages.get(name, ())) == 1:
            return stages[name][0]
    return None


def _chain(step: Step, stages: Sequence[str], number: int) -> Sequence[str]:
    return stages[number * step.chain : (number + 1) * step.chain]


def draw_maps(workflow: Workflow) -> Workflow:
    """Return the workflow with maps of unknown width, drawn when a stage ends.

    Tasks of one type with the same parents are a map, whose width is drawn when the last of these
    parents ends. At least half of the tasks live; each number from there on is equally likely (an
    assumption: no trace tells). What depends on only one task of the map belongs to its replica.
    """
    parents = {stage: [edge.parent for edge in edges] for stage, edges in workflow.parents.items()}
    labels = {stage.id: stage.label.split("/")[0] for stage in workflow.stages}
    order = topological_order(workflow)
    place = {stage: number for number, stage in enumerate(order)}
    maps: dict[tuple[frozenset[str], str], list[str]] = {}
    for stage in order:
        if parents[stage]:
            maps.setdefault((frozenset(parents[stage]), labels[stage]), []).append(stage)
    fan_outs: list[FanOut] = []
    taken: set[str] = set()
    for (sources, _), heads in maps.items():
        after = max(sources, key=place.__getitem__)
        free = [head for head in heads if head not in taken]
        if len(free) < 2 or any(fan_out.after == after for fan_out in fan_outs):
            continue
        replica = {head: i for i, head in enumerate(free)}
        for stage in order:
            owners = {replica.get(parent, -1) for parent in parents[stage]}
            if (
                stage not in replica
                and stage not in taken
                and len(owners) == 1
                and -1 not in owners
            ):
                replica[stage] = owners.pop()
        taken.update(replica)
        replicas: list[list[str]] = [[] for _ in free]
        for stage, number in replica.items():
            replicas[number].append(stage)
        least = (len(free) + 1) // 2
        share = 1.0 / (len(free) - least + 1)
        weights = [0.0] * (least - 1) + [share] * (len(free) - least + 1)
        fan_outs.append(FanOut(after=after, replicas=replicas, weights=weights))
    return workflow.model_copy(update={"fan_outs": tuple(fan_outs)})


__all__ = ["Uncertain", "draw_maps", "draw_template", "whole_weights"]
