"""Traces of LLM agents as plain data: calls, their order, and their tokens.

One JSON object is one session or one run. This is the project's own format, which `fate-gym
import` reads (one trace per line), and into which other session formats are converted;
`fate_gym.workloads.sessions` turns traces into workflows.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fate_gym.catalog.limits import MOST_CHARACTERS, MOST_STAGES, Seconds, Tokens
from fate_gym.catalog.limits import Queries as Samples
from fate_gym.problem.workflow import Name

Number = Annotated[int, Field(ge=0, le=MOST_STAGES)]
"""Number of a call, a turn or an agent."""
TraceId = Annotated[str, Field(min_length=1, max_length=MOST_CHARACTERS - 64)]
"""Names of workflows and prefix groups are made from it."""


class _Strict(BaseModel):
    """Accepts no text or boolean as a number, and no fraction as a whole number.

    Not a `Frozen`: its validator in Python would turn JSON's lists into Python lists, which strict
    mode does not accept as tuples.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        str_max_length=MOST_CHARACTERS,
    )


class Call(_Strict):
    """A call of a model (``llm``) or of a tool; optional fields may be left out or null."""

    id: Number = Field(description="0, 1, 2 … in the order of the list, which is that of starts")
    kind: Literal["llm", "tool"] = "llm"
    parents: tuple[Number, ...] = Field((), description="calls that had to end first; smaller ids")
    role: Name | None = Field(None, description="what the call is for: main, judge, sub:Explore …")
    agent: Number | None = Field(None, description="number of the sub-agent")
    turn: Number | None = Field(None, description="counts the user's messages")
    model: Name | None = Field(None, description="as the source names it")
    tool: Name | None = Field(None, description="name of the tool")
    prompt_tokens: Tokens | None = Field(
        None, description="of an llm call, needed there: the whole prompt, cached or not"
    )
    output_tokens: Tokens | None = Field(None, description="of one sample; left out: 0")
    samples: Samples | None = Field(None, description="answers to one prompt; left out: 1")
    shared_with: tuple[Number, Tokens] | None = Field(
        None,
        description="[call, tokens]: the earlier call whose prompt has the longest common prefix "
        "with this one, and its length",
    )
    cached_prefix_tokens: Tokens | None = Field(
        None, description="as the provider reported; used where no call has shared_with"
    )
    prefix_group: Name | None = Field(
        None, description="system prompt and tools that prompts of several sessions begin with"
    )
    prefix_tokens: Tokens | None = Field(None, description="length of that beginning")
    tool_seconds: Seconds | None = Field(
        None,
        description="of a tool its length; of an llm call the gap after its last parent, in which "
        "tools ran that have no calls",
    )
    think_seconds: Seconds | None = Field(
        None, description="the same gap where a human had the word"
    )
    start_s: Seconds | None = Field(None, description="after the first call; not used")
    duration_s: Seconds | None = Field(
        None,
        description="of the provider's API, not used; of a tool, where tool_seconds is missing",
    )
    ttft_s: Seconds | None = Field(None, description="to the first token; not used")
    seen_tokens: Tokens | None = Field(None, description="seen in any earlier request; not used")
    reasoning_tokens: Tokens | None = Field(None, description="part of the output; not used")
    output_estimated: bool | None = Field(None, description="not used")
    output_spread: bool | None = Field(None, description="not used")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.kind == "tool":
            if self.shared_with is not None or self.samples is not None:
                raise ValueError("a tool has neither shared_with nor samples")
            return self
        if not self.prompt_tokens:
            raise ValueError("a call of kind llm needs prompt_tokens, 1 at least")
        if self.prefix_tokens and self.prefix_group is None:
            raise ValueError("prefix_tokens of a call needs a prefix_group")
        if self.shared_with is not None and self.shared_with[1] > self.prompt_tokens:
            raise ValueError("shared_with has more tokens than prompt_tokens")
        return self

    @property
    def is_llm(self) -> bool:
        return self.kind == "llm"

    @property
    def prompt(self) -> int:
        return self.prompt_tokens or 0

    @property
    def output(self) -> int:
        return self.output_tokens or 0

    @property
    def queries(self) -> int:
        return self.samples or 1


class Trace(_Strict):
    """A session or run: calls, and what they have in common."""

    id: TraceId
    calls: tuple[Call, ...] = Field(min_length=1, max_length=MOST_STAGES)
    source: Name | None = Field(None, description="where it was recorded")
    family: Name | None = Field(None, description="kind of application; splits go by family")
    group: Name | None = Field(None, description="runs of one task have it in common")
    origin: Name | None = Field(None, description="for reference; not used")
    arrival_s: Seconds | None = Field(None, description="when its first turn begins")
    prefix_tokens: Tokens | None = Field(
        None,
        description="system prompt and tools that the main conversation begins with, as those of "
        "other sessions of the same source and length",
    )

    @model_validator(mode="after")
    def _calls_refer_to_earlier_ones(self) -> Self:
        for number, call in enumerate(self.calls):
            where = f"call #{number}: "
            if call.id != number:
                raise ValueError(f"{where}has id {call.id}; calls count from 0 in their order")
            if any(parent >= number for parent in call.parents):
                raise ValueError(f"{where}a parent has to be an earlier call")
            if len(set(call.parents)) < len(call.parents):
                raise ValueError(f"{where}a parent is listed twice")
            if call.shared_with is not None:
                self._check_shared(number, *call.shared_with)
        return self

    def _check_shared(self, number: int, other: int, tokens: int) -> None:
        where = f"call #{number}: "
        if other >= number or not self.calls[other].is_llm:
            raise ValueError(f"{where}shared_with has to name an earlier call of kind llm")
        if tokens > self.calls[other].prompt:
            raise ValueError(f"{where}shares more tokens than the prompt of call #{other} has")
