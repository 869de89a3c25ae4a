"""Pictures of a running episode: text, a Gantt chart as an array, a window.

Matplotlib is imported inside the functions; only the window needs pyplot and a display.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from fate_gym.sim.layout import EVICT_WEIGHTS, HOST, TOOL_STAGE, Array

if TYPE_CHECKING:
    from matplotlib.collections import PolyCollection

    from fate_gym.env.env import WorkflowSchedulingEnv
    from fate_gym.sim import CompiledProblem, Trace

Frame = NDArray[np.uint8]
Floats = NDArray[np.float64]

PHASES = {"load": "#d55e00", "transfer": "#cc79a7", "prefill": "#9ecbe8", "decode": "#0072b2"}
"""Colours of the four phases of a shard, in the order in which they happen (Okabe & Ito 2008)."""
TOOL = "#8c6d31"
DOWN = "#4d4d4d"
LETTERS = {"load": "L", "transfer": "T", "prefill": "P", "decode": "D"}
"""The same in text; a load and a transfer at the same time show as the longer of the two."""

_GREY, _TEXT, _RULE = "#8a8a8a", "#222222", "#e4e4e4"
_COLUMNS = 64
_WIDTH, _DPI = 1120, 100


def render(env: WorkflowSchedulingEnv) -> str | Frame | None:
    """What the render mode of an environment asks for; see `WorkflowSchedulingEnv.render`."""
    if env.render_mode is None:
        gymnasium.logger.warn(
            "render() does nothing without a render mode: "
            'make the environment with render_mode="rgb_array", "ansi" or "human".'
        )
        return None
    if env.render_mode == "ansi":
        return as_text(env)
    if env.render_mode == "rgb_array":
        return picture(env)
    _show(env)
    return None


class Spans(NamedTuple):
    """When the phases of R shards begin and end, seconds."""

    rows: Array  # (R,) `fate_gym.sim.layout.SHARD_ROW`
    start: Floats
    loaded: Floats
    moved: Floats
    begin: Floats  # of prefill: both load and transfer are done
    prefilled: Floats
    end: Floats


def spans(rows: Array) -> Spans:
    """The phases of the shards of a log, stretched by their noise."""
    noise = rows["noise"]
    start = rows["start"].copy()
    loaded = start + rows["load_s"] * noise
    # The noise of a tool is on its own seconds alone.
    moved = start + rows["transfer_s"] * np.where(rows["device"] == HOST, 1.0, noise)
    begin = np.maximum(loaded, moved)
    prefilled = begin + rows["prefill_s"] * noise
    # Shards that are lost end early.
    end = rows["end"].copy()
    loaded, moved, begin, prefilled = (
        np.minimum(time, end) for time in (loaded, moved, begin, prefilled)
    )
    return Spans(rows, start, loaded, moved, begin, prefilled, end)


class Stay(NamedTuple):
    """A model in the memory of a device, from the load until it has to go."""

    device: int
    model: int
    start: float
    end: float


def stays(trace: Trace, models: Array, until: float) -> list[Stay]:
    """When models were resident.

    Args:
        trace: of the run so far.
        models: (S,) model of each stage, -1 without.
        until: seconds, end of what is still resident.
    """
    since: dict[tuple[int, int], float] = {}
    found: list[Stay] = []
    evictions = trace.evictions[trace.evictions["kind"] == EVICT_WEIGHTS]
    gone: dict[int, list[Any]] = {}
    for row in evictions:
        gone.setdefault(int(row["shard"]), []).append(row)
    failures = [(float(row["down"]), int(row["device"])) for row in trace.outages]
    for number, shard in enumerate(trace.shards):
        start = float(shard["start"])
        # What fails at the instant of a placement has failed before it.
        while failures and failures[0][0] <= shard["committed"]:
            _fail(since, found, *failures.pop(0))
        for row in gone.get(number, ()):
            key = (int(row["device"]), int(row["key"]))
            found.append(Stay(*key, since.pop(key, start), start))
        model = int(models[shard["stage"]])
        if model >= 0:
            since.setdefault((int(shard["device"]), model), start)
    for failure in failures:
        _fail(since, found, *failure)
    found += [Stay(*key, start, max(start, until)) for key, start in since.items()]
    return found


def _fail(since: dict[tuple[int, int], float], found: list[Stay], down: float, device: int) -> None:
    """A device that fails loses all its models, those of shards to come as well."""
    for key in [key for key in since if key[0] == device]:
        start = since.pop(key)
        if start < down:
            found.append(Stay(*key, start, down))


def lanes(here: list[Stay]) -> NDArray[np.int64]:
    """A lane for each stay: those of one device that overlap stand in different ones."""
    taken: dict[int, list[float]] = {}
    lane = np.zeros(len(here), np.int64)
    for i in sorted(range(len(here)), key=lambda i: here[i].start):
        ends = taken.setdefault(here[i].device, [])
        free = next((j for j, end in enumerate(ends) if end <= here[i].start), len(ends))
        ends[free : free + 1] = [here[i].end]
        lane[i] = free
    return lane


def horizon_of(seconds: float) -> float:
    """The end of the time axis: the next of 1, 1.5, 2, 3, 5, 7.5, 10 times a power of ten."""
    if seconds <= 0.0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(seconds))
    steps = (1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0)
    return next((step * power for step in steps if step * power >= seconds), 10.0 * power)


# --- text -------------------------------------------------------------------------------------


def as_text(env: WorkflowSchedulingEnv) -> str:
    """The run so far: a line a device with its timeline, memory and models, and the window."""
    compiled = env.compiled
    view = compiled.view
    trace, view_now = env.trace(), env.view()
    ended = int((trace.stage_end > 0).sum())
    horizon = horizon_of(max(env.time, float(trace.shards["end"].max(initial=0.0))))
    up = view_now.up
    counts = f"{ended} of {len(trace.stage_ids)} stages ended, {len(view_now.ready)} ready"
    legend = "L load, T transfer, P prefill, D decode, small letters: yet to come"
    lines = [
        f"{compiled.problem.id}: {env.time:.2f} s, {counts}",
        f"one column is {horizon / _COLUMNS:.3g} s; {legend}",
    ]
    timelines = _timelines(spans(trace.shards), len(trace.device_ids), horizon, env.time)
    here: dict[int, list[str]] = {}
    for stay in stays(trace, view.stages["model"], math.inf):
        if stay.end == math.inf:
            here.setdefault(stay.device, []).append(trace.model_names[stay.model])
    width = max(len(name) for name in trace.device_ids)
    queues = view_now.drain_estimates() - env.time
    for d, name in enumerate(trace.device_ids):
        models = ", ".join(here.get(d, ())) or "-"
        state = f"queue {queues[d]:7.2f} s" if up[d] else "down           "
        lines.append(f"{name:>{width}} |{timelines[d]}| {state}  {models}")
    for slot, stage in enumerate(env.window):
        workflow, name = trace.stage_ids[stage]
        ends = view_now.end_estimates(stage)
        best = int(ends.argmin())
        lines.append(
            f"slot {slot}: {workflow}/{name}, rank {view.stages[stage]['upward_rank']:.2f} s, "
            f"earliest end {ends[best]:.2f} s on {trace.device_ids[best]}"
        )
    return "\n".join(lines) + "\n"


def _timelines(shards: Spans, devices: int, horizon: float, now: float) -> list[str]:
    lines = [["."] * _COLUMNS for _ in range(devices)]
    scale = _COLUMNS / horizon
    for i, row in enumerate(shards.rows):
        if row["device"] == HOST:
            continue
        longer = "load" if shards.loaded[i] >= shards.moved[i] else "transfer"
        parts = (
            (longer, shards.start[i], shards.begin[i]),
            ("prefill", shards.begin[i], shards.prefilled[i]),
            ("decode", shards.prefilled[i], shards.end[i]),
        )
        for phase, start, end in parts:
            for column in range(int(start * scale), min(_COLUMNS, math.ceil(end * scale))):
                if (column + 0.5) / scale < start or (column + 0.5) / scale >= end:
                    continue
                letter = LETTERS[phase]
                over = (column + 0.5) / scale > now
                lines[row["device"]][column] = letter.lower() if over else letter
    return ["".join(line) for line in lines]


# --- picture ----------------------------------------------------------------------------------


def picture(env: WorkflowSchedulingEnv) -> Frame:
    """(H, W, 3) Gantt chart of the run so far; the size is the same for a whole episode.

    Above in each row: load (upper half) beside transfer (lower half), then prefill, then decode.
    Below, a strip each: the models in the device's memory. Pale: committed, yet to come.
    """
    trace = env.trace()
    end = max(env.time, float(trace.shards["end"].max(initial=0.0)))
    return _chart_of(env).draw(trace, env.time, horizon_of(end))


def _chart_of(env: WorkflowSchedulingEnv) -> Chart:
    chart = env.chart
    if not isinstance(chart, Chart) or chart.compiled is not env.compiled:
        chart = Chart(env.compiled)
        env.chart = chart
    return chart


class Chart:
    """A Gantt chart of one problem: what stays is drawn once, what changes for every frame.

    Args:
        compiled: the problem.
    """

    def __init__(self, compiled: CompiledProblem) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.compiled = compiled
        names = list(compiled.device_ids)
        if (compiled.view.stages["kind"] == TOOL_STAGE).any():
            names.append("tools")
        self._host = len(compiled.device_ids)
        height = 34 if len(names) <= 18 else max(4, 612 // len(names))
        legend = 22 * (1 + math.ceil(len(compiled.model_names) / 5))
        top, bottom, left, right = 34, 34 + legend, 92, 14
        total = top + bottom + height * len(names)
        total += total % 2  # video encoders want even sizes
        figure = Figure(figsize=(_WIDTH / _DPI, total / _DPI), dpi=_DPI, facecolor="white")
        # Matplotlib's canvases have no types.
        self._canvas: Any = FigureCanvasAgg(figure)
        self._axes = figure.add_axes(
            (
                left / _WIDTH,
                bottom / total,
                1 - (left + right) / _WIDTH,
                1 - (top + bottom) / total,
            )
        )
        axes = self._axes
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="y", length=0, labelsize=8 if height >= 12 else 4, labelcolor=_TEXT)
        axes.tick_params(axis="x", labelsize=8, labelcolor=_TEXT, color=_GREY)
        axes.set_xlabel("simulated time, s", fontsize=8, color=_TEXT, labelpad=2)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(_GREY)
        for y in range(len(names) + 1):
            axes.axhline(y - 0.5, color=_RULE, lw=0.8, zorder=0)
        self._colours = self._palette(len(compiled.model_names))
        self._legend(figure, total)
        self._title = figure.text(
            left / _WIDTH, 1 - 21 / total, "", fontsize=10, color=_TEXT, animated=True
        )
        self._clock = figure.text(
            1 - right / _WIDTH, 1 - 21 / total, "", fontsize=10, ha="right", color=_TEXT,
            animated=True,
        )  # fmt: skip
        self._moving: list[Any] = []
        self._horizon = -1.0
        self._background: Any = None

    @staticmethod
    def _palette(models: int) -> list[Any]:
        from matplotlib import colormaps

        colours = colormaps["tab20"].colors  # type: ignore[attr-defined]
        # Strong colours first, then their pale partners.
        order = [*range(0, 20, 2), *range(1, 20, 2)]
        return [colours[order[m % 20]] for m in range(models)]

    def _legend(self, figure: Any, total: int) -> None:
        from matplotlib.patches import Patch

        style: dict[str, Any] = {"frameon": False, "fontsize": 8, "handlelength": 1.2}
        phases = dict(PHASES) | ({"tool": TOOL} if self._has_tools else {})
        if self.compiled.problem.options.failures is not None:
            phases["down"] = DOWN
        figure.legend(
            handles=[Patch(color=colour, label=phase) for phase, colour in phases.items()],
            loc="lower left",
            bbox_to_anchor=(86 / _WIDTH, (22 * (self._legend_rows - 1)) / total),
            ncols=len(phases),
            **style,
        )
        if self.compiled.model_names:
            figure.legend(
                handles=[
                    Patch(color=colour, label=name)
                    for name, colour in zip(self.compiled.model_names, self._colours, strict=True)
                ],
                loc="lower left",
                bbox_to_anchor=(86 / _WIDTH, 0.0),
                ncols=5,
                **style,
            )

    @property
    def _has_tools(self) -> bool:
        return len(self._axes.get_yticks()) > self._host

    @property
    def _legend_rows(self) -> int:
        return 1 + math.ceil(len(self.compiled.model_names) / 5)

    def draw(self, trace: Trace, now: float, horizon: float) -> Frame:
        """One frame."""
        if horizon != self._horizon:
            self._horizon = horizon
            self._axes.set_xlim(0.0, horizon)
            self._canvas.draw()
            self._background = self._canvas.copy_from_bbox(self._canvas.figure.bbox)
        self._canvas.restore_region(self._background)
        for artist in self._artists(trace, now, horizon):
            self._axes.add_artist(artist)
            self._axes.draw_artist(artist)
            artist.remove()
        ended = int((trace.stage_end > 0).sum())
        self._title.set_text(trace.problem.id[-70:])
        self._clock.set_text(f"{now:.2f} s    {ended} of {len(trace.stage_ids)} stages ended")
        renderer = self._canvas.get_renderer()
        self._title.draw(renderer)
        self._clock.draw(renderer)
        return np.asarray(self._canvas.buffer_rgba())[..., :3].copy()

    def _artists(self, trace: Trace, now: float, horizon: float) -> list[Any]:
        from matplotlib.lines import Line2D
        from matplotlib.patches import Rectangle

        shards = spans(trace.shards)
        tool = shards.rows["device"] == HOST
        y = np.where(tool, self._host, shards.rows["device"]).astype(float)
        top, low, middle = y - 0.42, y + 0.10, y - 0.16
        phases = (
            ("load", shards.start, shards.loaded, top, middle),
            ("transfer", shards.start, shards.moved, middle, low),
            ("prefill", shards.begin, shards.prefilled, top, low),
            ("decode", shards.prefilled, shards.end, top, low),
        )
        artists: list[Any] = [
            _bars(start, end, upper, lower, np.where(tool, TOOL, PHASES[name]).tolist())
            if name == "decode"
            else _bars(start, end, upper, lower, PHASES[name])
            for name, start, end, upper, lower in phases
        ]
        here = stays(trace, self.compiled.view.stages["model"], max(now, shards.end.max(initial=0)))
        if here:
            device, model, start, end = (np.array(column) for column in zip(*here, strict=True))
            lane = lanes(here)
            strip = 0.34 / max(3, int(lane.max()) + 1)
            upper = device + 0.13 + strip * lane
            colours = [self._colours[m] for m in model.tolist()]
            artists.append(_bars(start, end, upper, upper + strip, colours, edge=False))
        if len(trace.outages):
            down, up = trace.outages["down"], np.minimum(trace.outages["up"], horizon)
            row = trace.outages["device"].astype(float)
            artists.append(_bars(down, np.minimum(up, now), row - 0.42, row + 0.48, DOWN))
        rows = len(self._axes.get_yticks())
        artists.append(
            Rectangle((now, -0.5), horizon - now, rows, facecolor="white", alpha=0.55, zorder=4)
        )
        artists.append(Line2D([now, now], [-0.5, rows - 0.5], color=_TEXT, lw=1.2, zorder=5))
        return artists


def _bars(
    start: Floats, end: Floats, upper: Floats, lower: Floats, colour: Any, *, edge: bool = True
) -> PolyCollection:
    from matplotlib.collections import PolyCollection

    corners = np.stack(
        [
            np.stack([start, upper], axis=-1),
            np.stack([end, upper], axis=-1),
            np.stack([end, lower], axis=-1),
            np.stack([start, lower], axis=-1),
        ],
        axis=1,
    )
    shown = end > start
    if isinstance(colour, list):
        colour = [one for one, draw in zip(colour, shown.tolist(), strict=True) if draw]
    return PolyCollection(
        list(corners[shown]),
        facecolors=colour,
        edgecolors="white" if edge else "none",
        linewidths=0.4 if edge else 0.0,
        zorder=3,
    )


# --- window -----------------------------------------------------------------------------------


def _show(env: WorkflowSchedulingEnv) -> None:
    """Bring the window up to date; without a display, print the text."""
    import matplotlib.pyplot as plt
    from matplotlib.backends.registry import BackendFilter, backend_registry

    interactive = {
        name.lower()
        for name in backend_registry.list_builtin(  # type: ignore[no-untyped-call]
            BackendFilter.INTERACTIVE
        )
    }
    if plt.get_backend().lower() not in interactive:
        sys.stdout.write(as_text(env))
        sys.stdout.flush()
        return
    window = env.screen
    frame = picture(env)
    if window is None or not plt.fignum_exists(window.number):
        plt.ion()
        height, width = frame.shape[:2]
        window = plt.figure("fate-gym", figsize=(width / _DPI, height / _DPI), dpi=_DPI)
        window.add_axes((0, 0, 1, 1)).set_axis_off()
        env.screen = window
    (axes,) = window.axes
    axes.clear()
    axes.set_axis_off()
    axes.imshow(frame)
    window.canvas.draw_idle()
    plt.pause(1.0 / env.metadata["render_fps"])


def close(env: WorkflowSchedulingEnv) -> None:
    """Close the window, if there is one."""
    if env.screen is not None:
        import matplotlib.pyplot as plt

        plt.close(env.screen)
        env.screen = None


__all__ = [
    "Chart",
    "Spans",
    "Stay",
    "as_text",
    "close",
    "horizon_of",
    "lanes",
    "picture",
    "render",
    "spans",
    "stays",
]
