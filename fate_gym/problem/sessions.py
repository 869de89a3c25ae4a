"""Relations between workflows: branches of the prefix tree, and turns of sessions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from fate_gym.errors import InputError, check_known
from fate_gym.problem.workflow import Prefix, Workflow


def prefix_branches(workflows: Iterable[Workflow]) -> dict[str, Prefix]:
    """Return where each prefix group branches off its parent, by group; roots are left out.

    Raises:
        InputError: two workflows disagree, or a group is its own ancestor.
    """
    branches: dict[str, Prefix] = {}
    for workflow in workflows:
        for prefix in workflow.prefixes:
            known = branches.setdefault(prefix.group, prefix)
            if known != prefix:
                raise InputError(
                    f"prefix group {prefix.group!r} shares {prefix.shared_tokens:,} tokens with "
                    f"{prefix.parent!r}, elsewhere {known.shared_tokens:,} with {known.parent!r}",
                    item=f"workflow '{workflow.id}'",
                    field="prefixes",
                    remedy="declare a group in the same way everywhere, or name it otherwise",
                )
    over = _on_a_cycle({group: prefix.parent for group, prefix in branches.items()})
    if over is not None:
        raise InputError(
            f"prefix group {over!r} is its own ancestor",
            field="prefixes",
            remedy="let one group of the cycle be a root: declare no parent for it",
        )
    return branches


def branch_starts(workflows: Iterable[Workflow]) -> dict[str, Prefix]:
    """Return `prefix_branches` with each group's parent the group whose own part it starts in.

    A group that shares no more tokens with its parent than the parent does with its own parent
    branches off that one instead.
    """
    declared = prefix_branches(workflows)
    branches: dict[str, Prefix] = {}
    for group, prefix in declared.items():
        parent = end_of_path(declared, prefix.parent, prefix.shared_tokens)
        branches[group] = prefix.model_copy(update={"parent": parent})
    return branches


def ancestry(branches: Mapping[str, Prefix], group: str) -> Iterator[str]:
    """Yield a group, its parent, and so on to the root."""
    yield group
    while group in branches:
        group = branches[group].parent
        yield group


def end_of_path(branches: Mapping[str, Prefix], group: str, tokens: int) -> str:
    """Return the group that holds the last of the first ``tokens`` tokens of ``group``."""
    while group in branches and branches[group].shared_tokens >= tokens:
        group = branches[group].parent
    return group


def check_turns(workflows: Iterable[Workflow]) -> None:
    """Check that every turn follows a workflow of the problem, and never itself.

    Raises:
        InputError: naming the workflow at fault.
    """
    follows = {workflow.id: workflow.follows for workflow in workflows}
    for name, before in follows.items():
        if before is not None:
            item = f"workflow '{name}'"
            check_known("follows unknown workflow", before, follows, item=item, field="follows")
    over = _on_a_cycle({name: before for name, before in follows.items() if before is not None})
    if over is not None:
        raise InputError(
            "follows itself, over others or at once",
            item=f"workflow '{over}'",
            field="follows",
            remedy="let the first turn of the session follow nothing",
        )


def apart(workflow: Workflow) -> Workflow:
    """Return a copy of a workflow that follows no other, for instance for a problem of its own."""
    return workflow.model_copy(update={"follows": None, "think_seconds": 0.0})


def _on_a_cycle(parents: Mapping[str, str]) -> str | None:
    """Return some node that is its own ancestor, None if there is none."""
    rooted: set[str] = set()
    for start in parents:
        path: dict[str, None] = {}
        node = start
        while node in parents and node not in rooted:
            if node in path:
                return node
            path[node] = None
            node = parents[node]
        rooted.update(path)
    return None
