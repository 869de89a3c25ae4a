"""Stages, edges and workflows: the work to be scheduled."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from itertools import accumulate, chain
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar

from pydantic import ConfigDict, Field, NonNegativeFloat, model_validator

from fate_gym.catalog.given import Given
from fate_gym.catalog.limits import (
    MOST_CHARACTERS,
    MOST_TOKENS,
    Bytes,
    Limit,
    Queries,
    Seconds,
    Tokens,
)

T = TypeVar("T", bound=Hashable)

Name = Annotated[str, Field(min_length=1, max_length=MOST_CHARACTERS)]
StageKind = Literal["model", "tool", "fixed"]


class Frozen(Given):
    """Base of the parts of a problem: no NaN, no infinity, only valid Unicode text."""

    # Any length limit makes pydantic decode text, and thus reject lone surrogates.
    model_config = ConfigDict(allow_inf_nan=False, str_max_length=MOST_CHARACTERS)

    def __getstate__(self) -> dict[Any, Any]:
        # Cached properties are recomputed on demand; worker processes need not carry them.
        state = super().__getstate__()
        return state | {"__dict__": self._fields_of(state["__dict__"])}

    def __copy__(self) -> Self:
        # Drops cached properties: `model_copy(update=...)` would keep the old values' ones.
        copied = super().__copy__()
        object.__setattr__(copied, "__dict__", self._fields_of(copied.__dict__))
        return copied

    @classmethod
    def _fields_of(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name in cls.model_fields}


class Stage(Frozen):
    """One stage of a workflow: a batch of queries to one model, a tool call, or a fixed job.

    Exactly one of ``model``, ``tool_seconds`` and ``seconds_on`` is given:

    * ``model``: the stage runs on a device that can host the model;
    * ``tool_seconds``: the stage runs on the host for that long and needs no device;
    * ``seconds_on``: a task of classical scheduling, with its seconds on each device.
    """

    id: Name
    label: str = Field("", description="task type; stages of one type look alike")
    model: Name | None = None
    queries: Queries = Field(1, description="queries that run as one batch")
    prefix_group: Name | None = Field(None, description="stages of a group share a prompt prefix")
    prefix_tokens: Tokens = Field(0, description="tokens of the shared prefix")
    prompt_tokens: Tokens = Field(0, description="own prompt tokens of one query")
    output_tokens: Tokens = Field(0, description="tokens that one query generates")
    extends_prefix: bool = Field(
        False,
        description="prompt and output continue the prefix: later stages of its group find them",
        # Results store hashes of problems: those of problems without sessions stay valid.
        exclude_if=lambda extends: not extends,
    )
    tool_seconds: Seconds | None = None
    seconds_on: dict[Name, Seconds] | None = Field(
        None, description="seconds by device id; devices left out cannot run the stage"
    )
    allowed_devices: tuple[Name, ...] | None = Field(
        None, description="if given, the only devices that may run the stage"
    )

    @property
    def kind(self) -> StageKind:
        if self.model is not None:
            return "model"
        return "tool" if self.tool_seconds is not None else "fixed"

    @model_validator(mode="after")
    def _one_kind(self) -> Stage:
        kinds = [self.model, self.tool_seconds, self.seconds_on]
        if sum(kind is not None for kind in kinds) != 1:
            raise ValueError("needs exactly one of model, tool_seconds and seconds_on")
        if self.seconds_on is not None and not self.seconds_on:
            raise ValueError("seconds_on names no device")
        if self.seconds_on is not None and self.queries != 1:
            raise ValueError("a stage with seconds_on has exactly one query")
        if self.prefix_tokens and self.prefix_group is None:
            raise ValueError("prefix_tokens needs a prefix_group")
        if self.extends_prefix and (self.prefix_group is None or self.model is None):
            raise ValueError("extends_prefix needs a model and a prefix_group")
        if self.extends_prefix and self.queries != 1:
            raise ValueError("a stage that extends its prefix has exactly one query")
        if self.model is not None and self.prefix_tokens + self.prompt_tokens == 0:
            raise ValueError("a model stage needs prompt_tokens or prefix_tokens")
        return self


class Edge(Frozen):
    """The output of ``parent`` that ``child`` needs before it starts.

    ``bytes`` is the whole payload (text alone is a few kilobytes, which costs next to nothing).
    ``inherited_tokens`` are prompt tokens of each query of the child that repeat the parent's
    context; on a device that still caches that context they need no prefill.
    """

    parent: Name
    child: Name
    bytes: Bytes = 0.0
    inherited_tokens: Tokens = 0


class Prefix(Frozen):
    """A prefix group that branches off another, in the tree of all prompts.

    Prompts of ``group`` begin with the first ``shared_tokens`` tokens of those of ``parent``. A
    group that is not declared is a root: it shares nothing with others.
    """

    group: Name
    parent: Name
    shared_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)]


class Branch(Frozen):
    """One option of a choice, with the stages that only it has."""

    probability: float = Field(gt=0, le=1)
    stages: tuple[Name, ...] = ()


class Choice(Frozen):
    """When stage ``after`` ends, one branch is drawn; the stages of the others vanish."""

    after: Name
    options: tuple[Branch, ...] = Field(min_length=1)

    @property
    def probabilities(self) -> list[float]:
        return [option.probability for option in self.options]

    @property
    def stages(self) -> list[str]:
        """The stages that may vanish."""
        return list(chain.from_iterable(option.stages for option in self.options))


class FanOut(Frozen):
    """When stage ``after`` ends, the number of replicas is drawn; the others vanish.

    A replica is one stage or several. The first k live with probability ``weights[k - 1]``.
    """

    after: Name
    replicas: tuple[Annotated[tuple[Name, ...], Field(min_length=1)], ...] = Field(min_length=1)
    weights: tuple[NonNegativeFloat, ...] = Field(min_length=1)

    @property
    def stages(self) -> list[str]:
        """The stages that may vanish."""
        return list(chain.from_iterable(self.replicas))


class Slo(Frozen):
    """Service level objectives of every request of a workflow (a model stage with output)."""

    ttft_s: Limit | None = Field(None, description="most seconds from ready to the first token")
    tpot_s: Limit | None = Field(
        None, description="most seconds between output tokens, on average over the request"
    )

    @model_validator(mode="after")
    def _says_something(self) -> Slo:
        if self.ttft_s is None and self.tpot_s is None:
            raise ValueError("needs ttft_s, tpot_s or both")
        return self


class Life(NamedTuple):
    """A stage lives if the uniform draw of stage ``after`` is in [low, high)."""

    after: str
    low: float
    high: float


class Workflow(Frozen):
    """A DAG of stages that arrives at some time and is done when its last stage ends.

    A turn of a session ``follows`` another: it arrives ``think_seconds`` after that one's end, but
    not before ``arrival``.

    Which of the stages of ``choices`` and ``fan_outs`` live is drawn as the workflow runs; the
    others vanish: they are done without having run.
    """

    id: Name
    stages: tuple[Stage, ...] = Field(min_length=1)
    edges: tuple[Edge, ...] = ()
    choices: tuple[Choice, ...] = ()
    fan_outs: tuple[FanOut, ...] = ()
    prefixes: tuple[Prefix, ...] = Field(
        (),
        description="branches of the prefix tree that its stages use; the tree is the problem's",
        exclude_if=lambda prefixes: not prefixes,
    )
    arrival: Seconds = Field(0.0, description="not before this time")
    follows: Name | None = Field(
        None,
        description="workflow that has to end first: the turn before, of a session",
        exclude_if=lambda follows: follows is None,
    )
    think_seconds: Seconds = Field(
        0.0,
        description="from the end of that turn to the arrival of this one",
        exclude_if=lambda seconds: seconds == 0.0,
    )
    session: Name | None = Field(
        None,
        description="what its turns have in common, for policies and metrics",
        exclude_if=lambda session: session is None,
    )
    deadline: Seconds | None = Field(None, description="seconds after the arrival")
    slo: Slo | None = Field(
        None,
        description="objectives of its requests; metrics judge by them, schedules do not change",
        # Results store hashes of problems: those of problems without objectives stay valid.
        exclude_if=lambda slo: slo is None,
    )
    tenant: str = "default"
    family: str = Field("", description="where the topology comes from; splits go by family")

    @model_validator(mode="after")
    def _thinks_after_a_turn(self) -> Workflow:
        if self.think_seconds and self.follows is None:
            raise ValueError("think_seconds needs follows, the workflow whose end it counts from")
        return self

    @cached_property
    def parents(self) -> dict[str, tuple[Edge, ...]]:
        """The edges into each stage, by stage id."""
        into: dict[str, list[Edge]] = {stage.id: [] for stage in self.stages}
        for edge in self.edges:
            into[edge.child].append(edge)
        return {stage: tuple(edges) for stage, edges in into.items()}

    @cached_property
    def lives(self) -> dict[str, Life]:
        """The `Life` of each stage that may vanish, by stage id."""
        found: dict[str, Life] = {}
        for choice in self.choices:
            ends = [*accumulate(choice.probabilities)]
            ends[-1] = _ALWAYS
            for option, low, high in zip(choice.options, [0.0, *ends], ends, strict=False):
                found.update({stage: Life(choice.after, low, high) for stage in option.stages})
        for fan_out in self.fan_outs:
            # Replica i lives if more than i are drawn; the draws for at most i replicas lie below.
            lows = [0.0, *accumulate(fan_out.weights)]
            for replica, low in zip(fan_out.replicas, lows, strict=False):
                found.update({stage: Life(fan_out.after, low, _ALWAYS) for stage in replica})
        return found


_ALWAYS = 2.0
"""Above every draw, whatever rounding does to sums of probabilities."""


def topological_order(workflow: Workflow) -> list[str]:
    """Return stage ids, parents first, ties in the order of the stages (Kahn 1962).

    Stages on a cycle, or reachable from one, are left out.
    """
    edges = ((edge.parent, edge.child) for edge in workflow.edges)
    generations = topological_generations((stage.id for stage in workflow.stages), edges)
    return [stage for generation in generations for stage in generation]


def topological_generations(
    nodes: Iterable[T], edges: Iterable[tuple[T, T]]
) -> Iterator[tuple[T, ...]]:
    """Yield the nodes of a graph by the length of the longest path to them.

    Edges are (parent, child). Nodes on a cycle, or reachable from one, are left out.
    """
    sorter: TopologicalSorter[T] = TopologicalSorter(dict.fromkeys(nodes, ()))
    for parent, child in edges:
        sorter.add(child, parent)
    with suppress(CycleError):
        sorter.prepare()
    while generation := sorter.get_ready():
        yield generation
        sorter.done(*generation)
