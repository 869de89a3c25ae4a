"""The calls of one session on every device over time, with tokens prefilled again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from fate_gym.lab.jobs.schedules import Schedule, ShardRow
from fate_gym.lab.report.figures.style import TEXT, canvas
from fate_gym.metrics.outcome import LEAST_S
from fate_gym.sim.occupancy import lanes, steps
from fate_gym.sim.phases import phases

COLOURS = {
    "load, transfer": "#cc79a7",
    "prefill, again": "#d55e00",
    "prefill, new": "#9ecbe8",
    "decode": "#0072b2",
}
"""Parts of a call, in the order in which they are drawn."""

OTHERS = "#dcdcdc"
_TURNS = ("#4d4d4d", "#8a8a8a")

Box = tuple[float, float, float, float]
"""Left, width, top and height; seconds and rows."""


def session_figure(schedules: Mapping[str, Schedule], session: str, *, title: str = "") -> Figure:
    """Draw the calls of one session on every device; one panel per schedule, shared time axis.

    The first row shows when a turn is under way. Grey: a device runs something else. The prefill of
    a call is divided in proportion to its tokens: those computed before, on any device, come first.

    Args:
        schedules: schedules of one problem by policy, from top to bottom.
        session: name of a session that is in all of them.
        title: title of the figure.
    """
    own = {policy: of_session(schedule, session) for policy, schedule in schedules.items()}
    devices = len(next(iter(schedules.values())).devices)
    row = 0.3 if devices <= 16 else 0.18
    figure, all_axes = canvas(
        10.0, 1.1 + len(schedules) * (0.55 + row * (devices + 1)), rows=len(schedules), sharex=True
    )
    panels = np.atleast_1d(all_axes)
    start = min(one["arrival"] for rows in own.values() for one in rows)
    end = max(one["end"] for rows in own.values() for one in rows)
    for axes, (policy, schedule) in zip(panels, schedules.items(), strict=True):
        axes.set_xlim(start, start + max(LEAST_S, end - start) * 1.005)
        _draw_others(axes, schedule, session)
        _draw_calls(axes, own[policy], schedule.devices)
        _draw_turns(axes, own[policy], 0.02 * (end - start))
        axes.set_yticks(range(-1, devices), ["turn", *schedule.devices])
        axes.set_ylim(devices - 0.45, -1.55)
        axes.tick_params(axis="y", length=0, labelsize=8 if devices <= 16 else 6)
        axes.set_title(_numbers(policy, own[policy]), fontsize=10, loc="left", color=TEXT)
    panels[-1].set_xlabel("time, s")
    parts = COLOURS | {"other sessions": OTHERS}
    figure.legend(
        handles=[Patch(color=colour, label=part) for part, colour in parts.items()],
        loc="outside lower right",
        ncols=len(parts),
        handlelength=1.2,
        frameon=False,
        fontsize=8,
    )
    figure.suptitle(title or f"session {session}", fontsize=11, x=0.01, ha="left", color=TEXT)
    return figure


def of_session(schedule: Schedule, session: str) -> list[ShardRow]:
    """Return the shards of a session, tools included."""
    # Schedules stored before sessions existed lack the field.
    return [row for row in schedule.shards if row.get("session") == session]


def most_again(schedules: Iterable[Schedule]) -> str:
    """Return the session with most tokens prefilled again in total; empty: there are none."""
    again: dict[str, float] = {}
    for row in (row for schedule in schedules for row in schedule.shards):
        if name := row.get("session"):
            again[name] = again.get(name, 0.0) + row["again"]
    return max(again, key=lambda name: again[name], default="")


def _turns(own: Sequence[ShardRow]) -> list[tuple[float, float]]:
    """Return arrival and end of each turn, by arrival."""
    spans: dict[str, tuple[float, float]] = {}
    for row in own:
        _, end = spans.get(row["workflow"], (0.0, 0.0))
        spans[row["workflow"]] = row["arrival"], max(end, row["end"])
    return sorted(spans.values())


def _numbers(policy: str, own: Sequence[ShardRow]) -> str:
    """Make the title of a panel."""
    under_way = steps(*zip(*_turns(own), strict=True)).positive_seconds()
    again, prefilled = (sum(row[name] for row in own) for name in ("again", "prefilled"))
    share = f" ({again / prefilled:.0%})" if prefilled > 0 else ""
    return (
        f"{policy}: {under_way:.1f} s without thinking; {again / 1e3:,.1f} of "
        f"{prefilled / 1e3:,.1f} thousand tokens are prefilled again{share}"
    )


def _draw_turns(axes: Axes, own: Sequence[ShardRow], least: float) -> None:
    """Draw when turns are under way, with their numbers if they take ``least`` seconds or more."""
    for number, (start, end) in enumerate(_turns(own)):
        colour = _TURNS[number % len(_TURNS)]
        axes.barh(-1, end - start, left=start, height=0.5, color=colour, linewidth=0)
        if end - start >= least:
            axes.text(
                (start + end) / 2, -1, str(number + 1),
                ha="center", va="center_baseline", fontsize=7, fontweight="bold", color="white",
            )  # fmt: skip


def _draw_others(axes: Axes, schedule: Schedule, session: str) -> None:
    """Draw when devices run other sessions, or workflows without a session."""
    boxes: list[Box] = []
    for y, device in enumerate(schedule.devices):
        others = [
            row
            for row in schedule.shards
            if row["device"] == device and row.get("session") != session
        ]
        busy = steps([row["start"] for row in others], [row["end"] for row in others])
        # Times at which the device becomes busy and idle, alternately.
        turns = busy.times[np.diff(busy.values > 0, prepend=False)].reshape(-1, 2)
        boxes += [(start, end - start, y - 0.42, 0.84) for start, end in turns.tolist()]
    _draw_boxes(axes, boxes, OTHERS, zorder=1.0)


def _draw_calls(axes: Axes, own: Sequence[ShardRow], devices: Sequence[str]) -> None:
    """Draw the calls of the session; concurrent ones share their device's row."""
    boxes: dict[str, list[Box]] = {part: [] for part in COLOURS}
    for y, device in enumerate(devices):
        rows = [row for row in own if row["device"] == device]
        ends = ([row["start"] for row in rows], [row["end"] for row in rows])
        lane = lanes(np.zeros(len(rows)), *ends)
        height = 0.7 / (lane.max(initial=0) + 1)
        for row, number in zip(rows, lane.tolist(), strict=True):
            start, _, _, begin, prefilled, end = map(float, phases(row, False))
            share = row["again"] / row["prefilled"] if row["prefilled"] > 0 else 0.0
            middle = begin + share * (prefilled - begin)
            times = (start, begin, middle, prefilled, end)
            top = y - 0.35 + number * height
            for part, left, right in zip(COLOURS, times, times[1:], strict=False):
                boxes[part].append((left, right - left, top, height))
    for part, colour in COLOURS.items():
        # A line of half a point keeps short calls of a long session visible.
        _draw_boxes(axes, boxes[part], colour, zorder=3.0, line=0.5)


def _draw_boxes(
    axes: Axes, boxes: Sequence[Box], colour: str, *, zorder: float, line: float = 0.0
) -> None:
    corners = [
        [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
        for x, width, y, height in boxes
        if width > 0
    ]
    style: dict[str, Any] = {
        "facecolors": colour,
        "edgecolors": colour,
        "lw": line,
        "zorder": zorder,
    }
    axes.add_collection(PolyCollection(corners, **style))
