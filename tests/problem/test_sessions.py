"""Relations between workflows: which follows which, and the tree of prefixes."""

from __future__ import annotations

import pytest

from fate_gym.errors import InputError
from fate_gym.problem import Cluster, Device, Prefix, Problem, Stage, Workflow
from fate_gym.problem.sessions import check_turns, prefix_branches

ONE = Cluster(id="one", devices=(Device(id="p"),))
STAGE = Stage(id="s", seconds_on={"p": 1.0})


def turn(name: str, follows: str | None = None) -> Workflow:
    return Workflow(id=name, stages=(STAGE,), follows=follows)


def test_turns_stand_in_any_order_and_may_fork() -> None:
    turns = [turn("c", "b"), turn("a"), turn("b", "a"), turn("d", "b"), turn("alone")]
    check_turns(turns)
    assert len(Problem.build(ONE, turns).workflows) == 5


def test_nobody_follows_an_unknown_workflow() -> None:
    with pytest.raises(InputError, match=r"follows unknown workflow 'frist'.*did you mean 'first'"):
        check_turns([turn("first"), turn("second", "frist")])
    with pytest.raises(InputError, match="'second'"):
        Problem.build(ONE, [turn("second", "gone")])


@pytest.mark.parametrize(
    "turns",
    [
        [turn("a", "a")],
        [turn("a", "b"), turn("b", "a")],
        [turn("x"), turn("a", "c"), turn("b", "a"), turn("c", "b"), turn("y", "x")],
        # Behind a cycle, not on it: the fault names one on it.
        [turn("d", "a"), turn("a", "b"), turn("b", "a")],
    ],
)
def test_nobody_follows_itself(turns: list[Workflow]) -> None:
    with pytest.raises(InputError, match="follows itself") as caught:
        check_turns(turns)
    assert "workflow 'd'" not in str(caught.value)
    with pytest.raises(InputError, match="follows itself"):
        Problem.build(ONE, turns)


def test_thinking_is_after_a_turn() -> None:
    with pytest.raises(ValueError, match="think_seconds needs follows"):
        Workflow(id="a", stages=(STAGE,), think_seconds=1.0)


def test_what_is_not_used_is_not_written() -> None:
    """Hashes of problems without sessions stay as they were."""
    written = turn("a").model_dump()
    assert not {"follows", "think_seconds", "session", "prefixes"} & set(written)
    assert turn("b", "a").model_dump()["follows"] == "a"


# --- prefixes -------------------------------------------------------------------------------


def branching(name: str, *prefixes: Prefix) -> Workflow:
    return Workflow(id=name, stages=(STAGE,), prefixes=prefixes)


def test_branches_are_those_of_all_workflows() -> None:
    first, second = (
        Prefix(group=group, parent=parent, shared_tokens=tokens)
        for group, parent, tokens in (("chat", "system", 100), ("retry", "chat", 300))
    )
    branches = prefix_branches([branching("a", first), branching("b", second, first)])
    assert branches == {"chat": first, "retry": second}
    assert prefix_branches([branching("a")]) == {}


def test_workflows_agree_on_a_branch() -> None:
    flows = [
        branching(name, Prefix(group="chat", parent="system", shared_tokens=tokens))
        for name, tokens in (("a", 100), ("b", 200))
    ]
    with pytest.raises(InputError, match=r"workflow 'b'.*shares 200 tokens.*elsewhere 100"):
        prefix_branches(flows)


def test_no_group_is_its_own_ancestor() -> None:
    pairs = [("a", "b"), ("b", "c"), ("c", "a")]
    flows = [
        branching(f"w{i}", Prefix(group=group, parent=parent, shared_tokens=1))
        for i, (group, parent) in enumerate(pairs)
    ]
    with pytest.raises(InputError, match="is its own ancestor"):
        prefix_branches(flows)
    assert len(prefix_branches(flows[:2])) == 2
