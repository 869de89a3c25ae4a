"""What a suite holds: a table of its workflows by family, and pictures of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fate_gym.errors import InputError
from fate_gym.lab.hydra_app import CONFIG_MODULE, explain
from fate_gym.metrics.intensity import StateParts, problem_state_parts
from fate_gym.problem import Cluster, Problem, Workflow, topological_order
from fate_gym.sim import compile_problem

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fate_gym.workloads import SuiteSpec

_PICTURES = 16
_FEW = 4  # pictures, at least where there are so many sizes
_TOOL = "#4d4d4d"
_EDGE = "#b0b0b0"


@dataclass(frozen=True)
class Facts:
    """One workflow in numbers; tokens count all queries, bytes all edges."""

    workflow: Workflow
    levels: NDArray[np.int64]  # (stages,), edges on the longest path from a source
    models: frozenset[str]
    tokens: int
    bytes: float
    state: StateParts

    @property
    def stages(self) -> int:
        return len(self.workflow.stages)

    @property
    def depth(self) -> int:
        return int(self.levels.max()) + 1

    @property
    def width(self) -> int:
        return int(np.bincount(self.levels).max())


def compose_suite(overrides: Sequence[str]) -> tuple[SuiteSpec, Cluster, int]:
    """The suite, cluster and seed that options such as ``suite=quick`` compose.

    Raises:
        InputError: for an unknown option or choice.
    """
    from hydra import compose, initialize_config_module
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from fate_gym.lab.config import parse_config

    # A job needs a policy; which one does not matter for its problems.
    arguments = [*overrides, "policy=round_robin"]
    try:
        with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
            values = OmegaConf.to_container(compose("config", overrides=arguments), resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, arguments, "config") from None
    assert isinstance(values, dict)
    config = parse_config({str(name): value for name, value in values.items()})
    return config.suite, config.cluster, config.seed


def describe(problems: Sequence[Problem]) -> list[Facts]:
    """The facts of every workflow; state intensity is that of the workflow alone."""
    found = []
    for problem in problems:
        for workflow in problem.workflows:
            alone = problem.model_copy(update={"workflows": (workflow,)})
            inherited = {
                stage: sum(edge.inherited_tokens for edge in edges)
                for stage, edges in workflow.parents.items()
            }
            found.append(
                Facts(
                    workflow=workflow,
                    levels=_levels(workflow),
                    models=frozenset(stage.model for stage in workflow.stages if stage.model),
                    tokens=sum(
                        stage.prefix_tokens
                        + stage.queries
                        * (stage.prompt_tokens + inherited[stage.id] + stage.output_tokens)
                        for stage in workflow.stages
                        if stage.model
                    ),
                    bytes=sum(edge.bytes for edge in workflow.edges),
                    state=problem_state_parts(compile_problem(alone)),
                )
            )
    return found


def print_description(title: str, problems: Sequence[Problem], facts: Sequence[Facts]) -> None:
    """A table with a row for each family, 80 columns wide: ranges, then medians."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("family", overflow="fold", min_width=12)
    for heading in (
        "runs", "stages", "depth", "width", "mod-\nels", "k to-\nkens", "GB\nmoved",
        "state", "load", "pre-\nfix", "move",
    ):  # fmt: skip
        table.add_column(heading, justify="right", no_wrap=True)
    families = by_family(facts)
    for family, rows in families.items():
        table.add_row(family, *_cells(rows))
    if len(families) > 1:
        table.add_section()
        table.add_row("all", *_cells(facts))
    Console().print(table)
    last = max(workflow.arrival for problem in problems for workflow in problem.workflows)
    stages = sum(row.stages for row in facts)
    print(f"{len(problems)} problems, {len(facts)} workflows, {stages} stages; ", end="")
    print(f"the last arrives at {last:.0f} s." if last else "all arrive at once.")
    print("Ranges, and medians of tokens, bytes and state intensity: loads, prefixes and")
    print("transfers (move) over execution.")


def by_family(facts: Sequence[Facts]) -> dict[str, list[Facts]]:
    """Facts by family, in the order of their first occurrence."""
    families: dict[str, list[Facts]] = {}
    for row in facts:
        families.setdefault(row.workflow.family or "none", []).append(row)
    return dict(sorted(families.items()))


def _cells(rows: Sequence[Facts]) -> list[str]:
    def span(value: Callable[[Facts], int]) -> str:
        values = [value(row) for row in rows]
        low, high = min(values), max(values)
        return str(low) if low == high else f"{low}–{high}"

    def median(value: Callable[[Facts], float], digits: int) -> str:
        return f"{np.median([value(row) for row in rows]):.{digits}f}"

    return [
        str(len(rows)),
        span(lambda row: row.stages),
        span(lambda row: row.depth),
        span(lambda row: row.width),
        span(lambda row: len(row.models)),
        median(lambda row: row.tokens / 1e3, 0),
        median(lambda row: row.bytes / 1e9, 2),
        median(lambda row: row.state.intensity, 2),
        median(lambda row: row.state.share(row.state.load), 2),
        median(lambda row: row.state.share(row.state.prefix), 2),
        median(lambda row: row.state.share(row.state.transfer), 3),
    ]


def draw_suite(title: str, facts: Sequence[Facts]) -> Figure:
    """Pictures of workflows of each family, small ones first, and histograms of the lengths.

    Of many families the smallest workflow of each is shown, of a few several up to the median.

    Stages stand in columns by their level and have the colour of their model; tools are squares.
    """
    from matplotlib.figure import Figure

    shown = _shown(list(by_family(facts).values())[:_PICTURES])
    models = sorted({model for row in shown for model in row.models})
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(12, 2.6 * lines + 3.4), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left")
    parts: Any = figure.subfigures(2, 1, height_ratios=[2.6 * lines, 3.0])
    top, bottom = parts
    axes = top.subplots(lines, columns, squeeze=False).ravel()
    colours = _colours(models)
    for place, ax in enumerate(axes):
        ax.axis("off")
        if place < len(shown):
            _draw_dag(ax, shown[place], colours)
    tools = any(stage.kind != "model" for row in shown for stage in row.workflow.stages)
    _legend(top, colours, tools=tools)
    _histograms(bottom.subplots(1, 4), facts)
    return figure


def _colours(models: Sequence[str]) -> dict[str, Any]:
    from matplotlib import colormaps

    palette = colormaps["tab20"].colors  # type: ignore[attr-defined]
    return {model: palette[place % len(palette)] for place, model in enumerate(models)}


def _shown(families: Sequence[Sequence[Facts]]) -> list[Facts]:
    """Workflows of different sizes: the smallest of each family, and more where these are few."""
    each = max(1, _FEW // len(families))
    shown: list[Facts] = []
    for rows in families:
        ordered = sorted(rows, key=lambda row: row.stages)
        places = np.linspace(0, (len(ordered) - 1) // 2 if each > 1 else 0, each).astype(int)
        sizes = {ordered[place].stages: ordered[place] for place in places.tolist()}
        shown += sizes.values()
    return shown


def _legend(figure: Any, colours: dict[str, Any], *, tools: bool) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=model)
        for model, colour in colours.items()
    ]
    if tools:
        tool = Line2D([], [], marker="s", linestyle="", color=_TOOL, label="tool or fixed")
        handles.append(tool)
    figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False, fontsize=8)


def _draw_dag(ax: Axes, facts: Facts, colours: dict[str, Any]) -> None:
    from matplotlib.collections import LineCollection

    stages = facts.workflow.stages
    sizes = np.bincount(facts.levels)
    seen = np.zeros(len(sizes))
    x, y = np.zeros(len(stages)), np.zeros(len(stages))
    for place, level in enumerate(facts.levels.tolist()):
        x[place] = level
        y[place] = (seen[level] + 0.5) / sizes[level]
        seen[level] += 1
    number = {stage.id: place for place, stage in enumerate(stages)}
    lines = [
        [
            (x[number[edge.parent]], y[number[edge.parent]]),
            (x[number[edge.child]], y[number[edge.child]]),
        ]
        for edge in facts.workflow.edges
    ]
    ax.add_collection(LineCollection(lines, colors=_EDGE, linewidths=0.5, zorder=1))
    size = float(np.clip(400 / max(facts.width, facts.depth), 4, 40))
    for marker, kind in (("o", True), ("s", False)):
        chosen = [place for place, stage in enumerate(stages) if (stage.kind == "model") == kind]
        ax.scatter(
            x[chosen],
            y[chosen],
            s=size,
            marker=marker,
            c=[colours.get(stages[place].model or "", _TOOL) for place in chosen],
            zorder=2,
        )
    ax.set_xlim(-0.5, len(sizes) - 0.5)
    ax.set_ylim(0, 1)
    label = facts.workflow.family or facts.workflow.id
    ax.set_title(f"{label}: {facts.stages} stages", fontsize=9, loc="left")


def _histograms(axes: NDArray[Any], facts: Sequence[Facts]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    stages = [stage for row in facts for stage in row.workflow.stages if stage.model]
    columns: list[tuple[str, list[float]]] = [
        ("prefix tokens of a stage", [stage.prefix_tokens for stage in stages]),
        ("own prompt tokens of a query", [stage.prompt_tokens for stage in stages]),
        ("output tokens of a query", [stage.output_tokens for stage in stages]),
        ("MB of an edge", [edge.bytes / 1e6 for row in facts for edge in row.workflow.edges]),
    ]
    for ax, (title, values) in zip(axes, columns, strict=True):
        positive = [value for value in values if value > 0]
        if positive:
            low, high = np.log10(min(positive)), np.log10(max(positive))
            edges = np.logspace(low - 0.05, high + 0.05, 30)
            ax.hist(positive, bins=edges, color="#0072b2")
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.xaxis.set_major_locator(
                LogLocator(subs=(1.0,) if high - low > 2 else (1.0, 2.0, 5.0), numticks=6)
            )
        nothing = len(values) - len(positive)
        ax.set_title(title + (f" ({nothing} have none)" if nothing else ""), fontsize=9, loc="left")
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)


def _levels(workflow: Workflow) -> NDArray[np.int64]:
    level: dict[str, int] = {}
    for stage in topological_order(workflow):
        level[stage] = max((level[edge.parent] + 1 for edge in workflow.parents[stage]), default=0)
    return np.array([level[stage.id] for stage in workflow.stages])


def check_figure_path(path: Any) -> None:
    """Raises `InputError` unless matplotlib can write that kind of file."""
    from matplotlib.backend_bases import FigureCanvasBase

    known = FigureCanvasBase.get_supported_filetypes()
    if path.suffix.lstrip(".").lower() not in known:
        raise InputError(
            f"cannot draw a {path.suffix or 'file without suffix'}",
            source=path,
            remedy="use .png, .svg or .pdf",
        )
