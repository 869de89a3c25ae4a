"""Traces become workflows: turns, gaps, and a prefix tree that reproduces shared tokens."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fate_gym.problem import Problem, Stage, Workflow
from fate_gym.workloads import load_cluster
from fate_gym.workloads.sessions import (
    Call,
    SessionRules,
    Trace,
    session_workflows,
    with_inferred_sharing,
)

RULES = SessionRules(lambda model, _: model or "Llama-3.1-8B")
CLUSTER = load_cluster("mixed_12")


def trace(*calls: dict[str, Any], **fields: Any) -> Trace:
    numbered = [{"id": number} | call for number, call in enumerate(calls)]
    return Trace.model_validate({"id": "t", "calls": numbered} | fields, strict=False)


def chain(*calls: dict[str, Any], **fields: Any) -> Trace:
    """Return a chain of calls."""
    return trace(*({"parents": [n - 1] if n else []} | c for n, c in enumerate(calls)), **fields)


def llm(prompt: int, output: int = 0, **fields: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "output_tokens": output} | fields


class Caches:
    """The caches of a device with unlimited memory, as defined in docs/execution-model.md."""

    def __init__(self, workflows: Iterable[Workflow]) -> None:
        self.branches = {p.group: p for w in workflows for p in w.prefixes}
        self.cached: dict[tuple[str, str], int] = {}

    def start(self, group: str) -> int:
        return self.branches[group].shared_tokens if group in self.branches else 0

    def path(self, group: str, tokens: int) -> list[tuple[str, int]]:
        """Return keys from the last to the root, each with the path's tokens up to its end."""
        keys = []
        while True:
            if self.start(group) < tokens:
                keys.append((group, tokens))
                tokens = self.start(group)
            if group not in self.branches:
                return keys
            group = self.branches[group].parent

    def run(self, stage: Stage) -> int:
        """Run a stage; return the number of cached tokens that it finds."""
        assert stage.model is not None
        if stage.prefix_group is None:
            return 0
        found = 0
        for group, tokens in self.path(stage.prefix_group, stage.prefix_tokens):
            if (stage.model, group) in self.cached:
                found = min(tokens, self.cached[stage.model, group])
                break
        end = stage.prefix_tokens
        if stage.extends_prefix:
            end += stage.prompt_tokens + stage.output_tokens
        for group, tokens in self.path(stage.prefix_group, end):
            key = (stage.model, group)
            self.cached[key] = max(self.cached.get(key, 0), tokens)
        return found


def stages_of(workflows: Sequence[Workflow]) -> dict[int, Stage]:
    return {
        int(stage.id.removeprefix("call-")): stage
        for workflow in workflows
        for stage in workflow.stages
        if stage.model is not None
    }


def found(workflows: Sequence[Workflow]) -> list[int]:
    """Return the cached tokens that each call finds, in order."""
    caches = Caches(workflows)
    return [caches.run(stage) for _, stage in sorted(stages_of(workflows).items())]


def check(source: Trace, workflows: Sequence[Workflow]) -> None:
    """Check properties of the workflows of any trace."""
    stages = stages_of(workflows)
    for call in source.calls:
        if call.kind == "llm":
            stage = stages[call.id]
            assert stage.prefix_tokens + stage.prompt_tokens == call.prompt_tokens
            assert stage.queries == (call.samples or 1)
    problem = Problem.build(CLUSTER, workflows)
    assert len(problem.workflows) == len(workflows)


def test_turns_follow_one_another() -> None:
    source = chain(
        llm(100, 10, turn=0),
        llm(150, 10, turn=0, shared_with=[0, 100], tool_seconds=3.5),
        llm(190, 10, turn=1, shared_with=[1, 150], think_seconds=1000.0),
        llm(220, 10, turn=1, shared_with=[2, 190], tool_seconds=900.0),
        arrival_s=7.0,
    )
    first, second = session_workflows(source, RULES)
    assert (first.id, second.id) == ("t/turn-0", "t/turn-1")
    assert (first.follows, second.follows, second.think_seconds) == (None, "t/turn-0", 1000)
    assert first.session == second.session == "t"
    assert first.arrival == 7
    assert [stage.id for stage in first.stages] == ["call-0", "gap-1", "call-1"]
    assert first.stages[1].tool_seconds == 3.5
    assert second.stages[1].tool_seconds == 60
    assert [(edge.parent, edge.child) for edge in first.edges] == [
        ("call-0", "gap-1"),
        ("gap-1", "call-1"),
    ]
    assert found([first, second]) == [0, 110, 160, 200]
    assert {stage.prefix_group for stage in stages_of([first, second]).values()} == {"session/t/0"}
    (whole,) = session_workflows(source, RULES._replace(cut_turns=False))
    assert whole.id == "t"
    assert [s.tool_seconds for s in whole.stages if s.kind == "tool"] == [3.5, 60, 60]


def test_a_turn_is_not_before_that_of_a_parent() -> None:
    source = chain(llm(10, turn=1), {"kind": "tool", "tool": "ls"}, llm(10, turn=0))
    (only,) = session_workflows(source, RULES)
    assert [stage.id for stage in only.stages] == ["call-0", "tool-1", "call-2"]
    assert only.stages[1].label == "ls"


def test_tools_side_by_side_join() -> None:
    source = trace(
        llm(50, 8),
        {"kind": "tool", "parents": [0], "tool_seconds": 2.0},
        {"kind": "tool", "parents": [0], "duration_s": 70.0},
        llm(60, 8, parents=[0, 1, 2]),
    )
    (workflow,) = session_workflows(source, RULES)
    assert [stage.tool_seconds for stage in workflow.stages] == [None, 2, 60, None]
    assert len(workflow.edges) == 5
    assert workflow.edges[0].bytes == 32


def test_one_continues_and_the_others_branch_off() -> None:
    source = trace(
        llm(1000, 100),
        llm(1200, 50, parents=[0], shared_with=[0, 1000]),
        llm(1200, 50, parents=[0], shared_with=[0, 1000]),
        llm(1300, 50, parents=[1], shared_with=[1, 1200]),
        llm(1300, 50, parents=[2], shared_with=[2, 1200]),
        llm(700, 50, parents=[4], shared_with=[4, 300]),
    )
    workflows = session_workflows(source, RULES)
    assert found(workflows) == [0, 1100, 1000, 1250, 1250, 300]
    stages = stages_of(workflows)
    assert [stages[number].prefix_group for number in range(6)] == [
        *("session/t/0", "session/t/0", "session/t/1", "session/t/0", "session/t/1"),
        "session/t/0",
    ]
    assert not stages[5].extends_prefix
    (branch,) = workflows[0].prefixes
    assert (branch.parent, branch.shared_tokens) == ("session/t/0", 1000)


def test_blocks_count_as_whole_prompts_unless_prompts_are_short() -> None:
    near = chain(llm(1000, 100), llm(1200, 50, shared_with=[0, 900]))
    assert found(session_workflows(near, RULES)) == [0, 1000]
    far = chain(llm(1000, 100), llm(1200, 50, shared_with=[0, 800]))
    assert found(session_workflows(far, RULES)) == [0, 800]
    short = chain(llm(100, 100), llm(1200, 50, shared_with=[0, 20]))
    assert found(session_workflows(short, RULES)) == [0, 20]


def test_outputs_that_do_not_fit_are_not_repeated() -> None:
    source = chain(llm(1000, 500), llm(1200, 50, shared_with=[0, 1000]))
    assert found(session_workflows(source, RULES)) == [0, 1000]


def test_samples_share_their_whole_prompt() -> None:
    judge = {"samples": 3, "parents": [0], "role": "judge"}
    source = trace(
        llm(174, 208, role="propose"),
        llm(367, 38, **judge),
        llm(367, 38, **judge, shared_with=[1, 354]),
        llm(367, 38, **judge, shared_with=[2, 356]),
    )
    workflows = session_workflows(source, RULES)
    stages = stages_of(workflows)
    assert found(workflows) == [0, 0, 354, 356]
    assert [stages[number].prompt_tokens for number in range(4)] == [174, 0, 0, 0]
    assert stages[0].prefix_group is None


def test_system_prompts_are_shared_by_sessions() -> None:
    system = {"prefix_group": "policy", "prefix_tokens": 900}
    sources = [
        chain(
            llm(1000, 10, **system),
            llm(1100, 10, **system, shared_with=[0, 1000]),
            id=name,
        )
        for name in ("a", "b")
    ]
    workflows = [w for source in sources for w in session_workflows(source, RULES)]
    caches = Caches(workflows)
    assert [caches.run(stage) for w in workflows for stage in w.stages] == [0, 1010, 900, 1010]
    of_session = chain(llm(1000), llm(950, agent=0), source="s", prefix_tokens=800)
    first, second = stages_of(session_workflows(of_session, RULES)).values()
    assert (first.prefix_group, first.prefix_tokens) == ("system/s/800", 800)
    assert second.prefix_group is None


def test_sharing_is_inferred_where_only_cached_tokens_are_known() -> None:
    source = chain(
        llm(1000, 100, cached_prefix_tokens=0),
        llm(500, 100, model="other", cached_prefix_tokens=0),
        llm(1300, 100, cached_prefix_tokens=990),
        llm(900, 100, cached_prefix_tokens=400),
    )
    shared = [call.shared_with for call in with_inferred_sharing(source).calls]
    assert shared == [None, None, (0, 1000), (2, 400)]
    rules = RULES._replace(models=lambda model, _: model or "x")
    assert found(session_workflows(source, rules)) == [0, 0, 1100, 400]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (llm(0), "prompt_tokens, 1 at least"),
        (llm(10, id=5), "has id 5; calls count from 0"),
        (llm(10, parents=[1]), "a parent has to be an earlier call"),
        (llm(10, parents=[0, 0]), "listed twice"),
        (llm(10, shared_with=[0, 11]), "more tokens than prompt_tokens"),
        (llm(60, shared_with=[0, 55]), "more tokens than the prompt of call #0"),
        (llm(10, shared_with=[1, 5]), "an earlier call of kind llm"),
        (llm(10, prefix_tokens=5), "needs a prefix_group"),
        ({"kind": "tool", "samples": 2}, "neither shared_with nor samples"),
    ],
)
def test_traces_that_contradict_themselves(call: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        trace(llm(50), call)


# Traces of any shape, and what a cache of whole sequences finds.


@st.composite
def calls(draw: st.DrawFn, number: int, earlier: list[Call], exact: bool) -> Call:
    parents: set[int] = set()
    if number:
        drawn: set[int] = draw(st.sets(st.integers(0, number - 1), max_size=2))
        parents |= drawn
    if number and draw(st.booleans()):
        parents.add(number - 1)
    fields: dict[str, Any] = {
        "parents": tuple(sorted(parents)),
        "turn": (earlier[-1].turn or 0) + draw(st.sampled_from([0, 0, 0, 1])) if earlier else 0,
        "model": draw(st.sampled_from(["Llama-3.1-8B", "Qwen2.5-7B"])),
        "output_tokens": draw(st.integers(0, 40)),
        "samples": draw(st.sampled_from([None, None, 1, 3])),
    }
    same = [call for call in earlier if call.model == fields["model"]]
    least = 0
    if len(same) > 0 and draw(st.integers(0, 3)):
        other = draw(st.sampled_from(same))
        slack = draw(st.just(0) if exact else st.sampled_from([0, 10, 60]))
        whole = max(other.prompt - slack, 1)
        part = draw(st.integers(1, max(other.prompt // 2, 1)))
        tokens = draw(st.sampled_from([whole, whole, part]))
        fields["shared_with"] = (other.id, tokens)
        if exact:
            # Nobody repeats an output that is not there yet, whatever the order.
            ended = (other.id,) if draw(st.booleans()) else other.parents
            fields["parents"] = tuple(sorted(parents.union(ended)))
        least = tokens + draw(st.sampled_from([0, other.output, other.output]))
    elif draw(st.booleans()):
        fields |= {"prefix_group": "g", "prefix_tokens": draw(st.integers(0, 300))}
        least = fields["prefix_tokens"]
    prompt = max(least + draw(st.integers(0, 400)), 1)
    return Call(id=number, prompt_tokens=prompt, **fields)


@st.composite
def traces(draw: st.DrawFn, exact: bool = False) -> Trace:
    made: list[Call] = []
    for number in range(draw(st.integers(1, 12))):
        made.append(draw(calls(number, made, exact)))
    return Trace(id="t", calls=tuple(made))


def before(source: Trace, later: Call) -> set[int]:
    """Return the calls that have ended when a call starts."""
    ended = {call.id for call in source.calls if (call.turn or 0) < (later.turn or 0)}
    for parent in later.parents:
        ended |= {parent} | before(source, source.calls[parent])
    return ended


def sequences(source: Trace) -> list[list[Any]]:
    """Return the tokens of each call: its prompt, and the output if it has one sample."""
    fresh = itertools.count()
    made: list[list[Any]] = []
    continued = set()
    for call in source.calls:
        begin: list[Any] = [("system", n) for n in range(call.prefix_tokens or 0)]
        if call.shared_with is not None:
            other, tokens = call.shared_with
            earlier = source.calls[other]
            whole = tokens + earlier.output
            if (
                earlier.queries == 1
                and earlier.prompt - tokens <= min(128, earlier.prompt / 4)
                and whole <= call.prompt
                and other in before(source, call)
                and other not in continued
            ):
                continued.add(other)
                tokens = whole
            begin = made[other][:tokens]
        length = call.prompt + (call.output if call.queries == 1 else 0)
        made.append(begin + [next(fresh) for _ in range(length - len(begin))])
    return made


def common(one: Sequence[Any], other: Sequence[Any]) -> int:
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def expected(source: Trace, order: Sequence[int]) -> list[int]:
    tokens = sequences(source)
    result = []
    for place, number in enumerate(order):
        call = source.calls[number]
        prompt = tokens[number][: call.prompt]
        ran = (n for n in order[:place] if source.calls[n].model == call.model)
        result.append(max((common(prompt, tokens[n]) for n in ran), default=0))
    return result


@given(traces())
def test_a_replay_finds_what_the_trace_shares(source: Trace) -> None:
    workflows = session_workflows(source, RULES)
    check(source, workflows)
    assert found(workflows) == expected(source, range(len(source.calls)))


@given(traces(exact=True), st.randoms(use_true_random=False))
def test_so_does_a_replay_in_any_order(source: Trace, random: Any) -> None:
    order: list[int] = []
    left = {call.id for call in source.calls}
    while left:
        ready = [n for n in sorted(left) if not before(source, source.calls[n]) & left]
        order.append(random.choice(ready))
        left.remove(order[-1])
    workflows = session_workflows(source, RULES)
    stages, caches = stages_of(workflows), Caches(workflows)
    assert [caches.run(stages[number]) for number in order] == expected(source, order)
