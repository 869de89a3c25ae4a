"""Positions of stages in a picture, and the critical path of a schedule."""

from __future__ import annotations

from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from fate_gym.lab.jobs.schedules import ShardRow
from fate_gym.lab.report.page.graph import critical_path, places


def shard(device: str, start: float, end: float, arrival: float = 0.0) -> ShardRow:
    return cast(ShardRow, {"device": device, "start": start, "end": end, "arrival": arrival})


def test_stages_stand_right_of_their_parents_and_near_them() -> None:
    # Two chains whose second stages are listed crosswise.
    placed = places(6, [(0, 3), (1, 2), (2, 4), (3, 5)])
    assert placed.column == [0, 0, 1, 1, 2, 2]
    assert placed.place[3] == placed.place[0] == placed.place[5]
    assert placed.place[2] == placed.place[1] == placed.place[4]


@given(
    st.sets(st.tuples(st.integers(0, 8), st.integers(0, 8)).filter(lambda edge: edge[0] < edge[1]))
)
def test_no_two_stages_share_a_place(edges: set[tuple[int, int]]) -> None:
    placed = places(9, sorted(edges))
    assert len(set(zip(placed.column, placed.place, strict=True))) == 9
    assert all(placed.column[parent] < placed.column[child] for parent, child in edges)


def test_the_critical_path_goes_back_over_devices_and_inputs() -> None:
    # a -> c; b holds c's device up; d waits for c on another device; e ends early.
    shards = [
        shard("p", 0.0, 2.0),
        shard("q", 0.0, 5.0),
        shard("q", 5.0, 6.0),
        shard("p", 6.0, 9.0),
        shard("p", 2.0, 3.0),
    ]
    path = critical_path(shards, [0, 1, 2, 3, 4], [(0, 2), (2, 3), (0, 4)])
    assert [tuple(link) for link in path] == [(1, False), (2, True), (3, False)]


def test_a_stage_on_several_devices_counts_by_its_last_shard_and_tools_hold_nobody_up() -> None:
    shards = [
        shard("p", 0.0, 1.0),
        shard("q", 0.0, 3.0),
        shard("", 3.0, 7.0),
        shard("p", 7.0, 8.0),
    ]
    path = critical_path(shards, [0, 0, 1, 2], [(0, 1), (1, 2)])
    assert [tuple(link) for link in path] == [(0, False), (1, False), (2, False)]


def test_a_later_arrival_begins_a_path() -> None:
    shards = [shard("p", 0.0, 1.0), shard("p", 4.0, 6.0, arrival=4.0)]
    assert [tuple(link) for link in critical_path(shards, [0, 1], [])] == [(1, False)]
