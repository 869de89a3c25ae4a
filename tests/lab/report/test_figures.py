"""Figures show the data."""

from __future__ import annotations

import errno
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from matplotlib.figure import Figure

from fate_gym.lab.jobs.schedules import Schedule, ShardRow
from fate_gym.lab.report.figures.decisions import DecisionTimes, decision_figure
from fate_gym.lab.report.figures.gantt import PHASES, gantt_figure
from fate_gym.lab.report.figures.occupancy import (
    by_device,
    occupancy_figure,
    schedule_occupancy,
)
from fate_gym.lab.report.figures.rows import decision_time_figure
from fate_gym.lab.report.figures.session import COLOURS, most_again, session_figure
from fate_gym.lab.report.figures.shares import differences_figure, ecdf_figure
from fate_gym.lab.report.figures.style import policy_colours, save_figure
from fate_gym.lab.tables import Estimate


def _shard(device: str, start: float, end: float, **parts: float) -> ShardRow:
    row = {"load_s": 0.0, "transfer_s": 0.0, "prefill_s": 0.0, "noise": 1.0} | parts
    inputs = max(row["load_s"], row["transfer_s"])
    return ShardRow(
        schedule="a",
        problem="p",
        workflow="w",
        session="",
        arrival=0.0,
        stage="s",
        model="m",
        device=device,
        queries=1,
        waves=1,
        start=start,
        first=row.get("first", start + (inputs + row["prefill_s"]) * row["noise"]),
        end=end,
        decode_s=0.0,
        load_s=row["load_s"],
        transfer_s=row["transfer_s"],
        prefill_s=row["prefill_s"],
        noise=row["noise"],
        prefilled=0.0,
        again=0.0,
    )


def test_a_shard_is_drawn_phase_by_phase() -> None:
    shard = _shard("d1", 1.0, 11.0, load_s=2.0, transfer_s=1.0, prefill_s=1.0, noise=2.0)
    tool = _shard("", 0.0, 5.0)
    figure = gantt_figure({"a": Schedule("p", ["d0", "d1"], [shard, tool])})
    (axes,) = figure.axes
    spans = {
        phase: [(p.vertices[0, 0], p.vertices[1, 0]) for p in collection.get_paths()]
        for phase, collection in zip(PHASES, axes.collections, strict=True)
    }
    assert spans == {
        "load": [(1.0, 5.0)],
        "transfer": [(1.0, 3.0)],
        "prefill": [(5.0, 7.0)],
        "decode": [(7.0, 11.0)],
    }
    assert [label.get_text() for label in axes.get_yticklabels()] == ["d0", "d1"]


def test_shards_that_overlap_share_a_row() -> None:
    shards = [_shard("d0", 0.0, 4.0), _shard("d0", 2.0, 6.0), _shard("d0", 4.0, 8.0)]
    figure = gantt_figure({"a": Schedule("p", ["d0", "d1"], shards)})
    (axes,) = figure.axes
    decode = dict(zip(PHASES, axes.collections, strict=True))["decode"]
    boxes = [
        (box.xmin, box.xmax, box.ymin, box.ymax)
        for box in (path.get_extents() for path in decode.get_paths())
    ]
    top, middle, low = -0.38, 0.0, 0.38
    assert sorted(boxes) == [
        pytest.approx((0.0, 4.0, top, middle)),
        pytest.approx((2.0, 6.0, middle, low)),
        pytest.approx((4.0, 8.0, top, middle)),
    ]


def test_occupancy_is_drawn_by_device_and_over_time() -> None:
    shards = [_shard("d0", 0.0, 4.0), _shard("d0", 2.0, 8.0), _shard("", 0.0, 8.0)]
    shards[1]["queries"], shards[1]["waves"] = 9, 2
    schedule = Schedule("p", ["d0", "d1"], shards)
    edges = np.array([0.0, 2.0, 4.0, 8.0])
    cells = [line.means(edges).tolist() for line in by_device(schedule)]
    assert cells == [[1.0, 6.0, 5.0], [0.0, 0.0, 0.0]]
    assert schedule_occupancy(schedule).integral() == 4 + 5 * 6
    figure = occupancy_figure({"a": schedule, "b": Schedule("p", ["d0", "d1"], shards[:1])})
    assert [axes.get_title(loc="left") for axes in figure.axes[:2]] == [
        "a: 8 s; 4.2 queries in service on a busy device, devices busy 50% of the time",
        "b: 4 s; 1.0 queries in service on a busy device, devices busy 50% of the time",
    ]


def test_colours_are_distinct_for_the_best_and_grey_beyond() -> None:
    names = ["fate", "round_robin", *(f"b{i}" for i in range(8))]
    families = dict.fromkeys(names, "heuristic") | {"fate": "fate"}
    colours = policy_colours(names, families)
    assert len({colours[name] for name in names[:7]}) == 7
    assert colours["b6"] == colours["b7"]


def test_ecdf_ends_at_one() -> None:
    values = {"a": np.array([0.5, 0.7]), "round_robin": np.ones(2)}
    figure = ecdf_figure(values, policy_colours(list(values), dict.fromkeys(values, "x")))
    line = next(line for line in figure.axes[0].lines if str(line.get_label()).startswith("a"))
    assert np.asarray(line.get_ydata())[-1] == pytest.approx(1.0)


def test_decision_times_are_drawn_over_stages() -> None:
    times = {n: DecisionTimes(0.1, n / 100, 1.0, 0.9) for n in (1_000, 10, 100)}
    figure = decision_figure({"fate": {"alone": times}, "fate_rollout": {"alone": times}})
    left, right = figure.axes
    p99 = left.lines[1]  # the first is the goal
    assert p99.get_xydata().tolist() == [[10, 0.1], [100, 1.0], [1_000, 10.0]]
    assert (left.get_xscale(), left.get_yscale()) == ("log", "log")
    assert [axes.get_title() for axes in (left, right)] == ["fate", "fate_rollout"]


def test_a_session_is_drawn_over_the_work_of_others() -> None:
    first = _shard("d0", 1.0, 9.0, load_s=1.0, prefill_s=4.0)
    first |= {"session": "a", "prefilled": 400.0, "again": 100.0}
    second = _shard("d1", 12.0, 14.0) | {"session": "a", "workflow": "w1", "arrival": 11.0}
    other = _shard("d1", 0.0, 5.0) | {"session": "b", "again": 50.0}
    schedule = Schedule("p", ["d0", "d1"], [first, second, other, _shard("d1", 4.0, 8.0)])
    assert most_again([schedule]) == "a"
    assert most_again([Schedule("p", ["d0"], [_shard("d0", 0.0, 1.0)])]) == ""
    (axes,) = session_figure({"policy": schedule}, "a").axes
    spans = [
        [(p.vertices[0, 0], p.vertices[1, 0]) for p in collection.get_paths()]
        for collection in axes.collections
    ]
    assert dict(zip(["others", *COLOURS], spans, strict=True)) == {
        "others": [(0.0, 8.0)],
        "load, transfer": [(1.0, 2.0)],
        "prefill, again": [(2.0, 3.0)],
        "prefill, new": [(3.0, 6.0)],
        "decode": [(6.0, 9.0), (12.0, 14.0)],
    }
    turns = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches]
    assert turns == [(0.0, 9.0), (11.0, 14.0)]
    assert axes.get_title(loc="left") == (
        "policy: 12.0 s without thinking; 0.1 of 0.4 thousand tokens are prefilled again (25%)"
    )


def _named(name: str) -> list[Figure]:
    """Return figures in which everything has this name."""
    shards = [_shard("d0", 0.0, 1.0) | {"model": name}]
    schedules = {name: Schedule(name, ["d0", name], shards)}
    return [
        gantt_figure(schedules, title=name),
        occupancy_figure(schedules, title=name),
        ecdf_figure({name: np.array([0.5])}, {name: "red"}),
        decision_time_figure({name: [0.01, 0.1, 1.0, 10.0, 1e2, 1e3]}, {name: "red"}),
    ]


@pytest.mark.parametrize("name", ["$x_$", "$\\frac$", "a$b", "$$", "\\$x^$"])
def test_names_are_shown_as_they_are(name: str, tmp_path: Path) -> None:
    for number, figure in enumerate(_named(name)):
        path = tmp_path / f"{number}.svg"
        save_figure(figure, path)
        # Of texts that are drawn as paths, SVG keeps what they say in comments.
        assert f"<!-- {name}" in path.read_text(encoding="utf-8")
    assert "<!-- 0.01 -->" in path.read_text(encoding="utf-8")


def test_control_characters_of_names_are_escaped(tmp_path: Path) -> None:
    name = "\x1b[2J\x00\u202eé"
    shown = "\\x1b[2J\\x00\\u202eé"
    for number, figure in enumerate(_named(name)):
        path = tmp_path / f"{number}.svg"
        for _ in range(2):
            save_figure(figure, path)
        ET.parse(path)
        assert f"<!-- {shown}" in path.read_text(encoding="utf-8")


def test_a_full_disk_leaves_no_part_of_a_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = ecdf_figure({"a": np.array([0.5])}, {"a": "red"})
    save_figure(figure, tmp_path / "f.svg")
    before = (tmp_path / "f.svg").read_bytes()

    def full(path: Path, **_: object) -> None:
        Path(path).write_bytes(b"<svg")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(figure, "savefig", full)
    with pytest.raises(OSError, match="No space left"):
        save_figure(figure, tmp_path / "f.svg")
    assert [path.name for path in tmp_path.iterdir()] == ["f.svg"]
    assert (tmp_path / "f.svg").read_bytes() == before


def test_differences_show_the_share_of_workflows_below_each_and_the_interval() -> None:
    percent = {"fate": np.array([-4.0, -2.0, 1.0, 2.0]), "eft": np.array([5.0, 8.0])}
    means = {"fate": Estimate(-0.8, -2.0, 0.5), "eft": Estimate(6.5, 5.0, 8.0)}
    colours = policy_colours(list(percent), {"fate": "fate", "eft": "list scheduling"})
    figure = differences_figure(percent, means, colours, against="heft")
    (axes,) = figure.axes
    assert "against heft" in axes.get_xlabel()
    (line,) = [one for one in axes.lines if str(one.get_label()).startswith("fate")]
    assert "-0.8 [-2.0, +0.5] %" in str(line.get_label())
    x, y = line.get_data()
    at_zero = np.asarray(y)[np.searchsorted(np.asarray(x), 0.0, side="right") - 1]
    assert at_zero == 0.5
    low, high = axes.get_xlim()
    assert low < -4.0 and high > 5.0
