"""The placements of a trace, and the checks of each before it runs."""

from __future__ import annotations

from collections.abc import Iterator

from fate_gym.validator.legality import check_moment, check_split
from fate_gym.validator.state import Row, State
from fate_gym.validator.world import Node


def placements(rows: list[Row]) -> Iterator[list[Row]]:
    """Yield the rows of each placement; a stage that lost a shard has several placements."""
    placed: list[Row] = []
    for row in rows:
        if placed and (row["stage"] != placed[-1]["stage"] or row["slot"] == 0):
            yield placed
            placed = []
        placed.append(row)
    if placed:
        yield placed


def node_of(state: State, rows: list[Row]) -> Node:
    """Return the stage of a placement."""
    number = rows[0]["stage"]
    if not 0 <= number < len(state.world.nodes):
        state.faults.stop(f"shards: unknown stage number {number}")
    return state.world.nodes[number]


def check_placement(state: State, node: Node, rows: list[Row]) -> None:
    """Check that a placement was allowed, and apply the latest retention before it."""
    if node.number in state.vanished_by:
        state.faults.stop(f"{node.name}: committed, but it has vanished")
    while state.retentions and state.retentions[0][0] <= rows[0]["index"]:
        state.retention = state.retentions.pop(0)[1]
    check_moment(state, node, rows)
    check_split(state, node, rows)


def check_all_ran(state: State) -> None:
    """Check that every stage that did not vanish has ended."""
    for node in state.world.nodes:
        if node.number not in state.done and node.number not in state.vanished_by:
            state.faults.append(f"{node.name}: never ran")
