"""Settings that evaluations, trainings and reports share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from fate_gym.catalog.given import Given

NAME = r"^[A-Za-z0-9][\w.+-]*$"
"""Pattern of names that can be used for directories."""


class Config(Given):
    """Base of all settings: immutable, and unknown fields are errors."""

    model_config = ConfigDict(allow_inf_nan=False)


class TrackingConfig(Config):
    """Weights & Biases. It mirrors the result files and is never the record."""

    mode: Literal["offline", "online", "none"] = Field(
        "offline", description="offline: written beside the results, `wandb sync` sends it later"
    )
    project: str = Field("fate-gym", description="W&B project")
    entity: str | None = Field(None, description="W&B user or team; None: the account's own")
    gantt: bool = Field(True, description="also log a picture of the schedule")


class PathsConfig(Config):
    """Where files go."""

    runs: Path = Field(Path("runs"), description="directory of all sweeps")


Options = Mapping[str, str | int | float | None]
"""Values of options, by their command-line name, e.g. ``cluster.load_gb_s``."""


def option_texts(options: Options) -> list[str]:
    """Format options as command-line words, e.g. ``cluster.load_gb_s=3.0``."""
    return [f"{name}={'null' if value is None else value}" for name, value in options.items()]


Against = Literal["strict", "boosted", "round_robin"]
"""Baseline of gains: the strongest strict baseline, the strongest boosted one, or round robin."""


class MapConfig(Config):
    """A map of regimes: which jobs of a sweep are in which cell."""

    columns: dict[str, str] = Field(min_length=1, description="heading by name of the cluster")
    rows: dict[str, Options] = Field(
        min_length=1,
        description="by heading, the options in which the jobs of a row differ from others; the "
        "grid's settings",
    )
    mean_over: Literal["workflows", "problems"] = Field(
        "workflows",
        description="what means are over: the latency / RoundRobin of every workflow, or the mean "
        "latency / RoundRobin's of every problem. In a stream of requests single ratios differ by "
        "a factor of a thousand",
    )
    published: dict[Against, float] = Field(
        {}, description="gains in percent that a paper reports, to be marked"
    )

    def marked(self, over: str) -> float | None:
        """Return the gain that a paper reports over this baseline, percent; None: not reported."""
        return {str(kind): gain for kind, gain in self.published.items()}.get(over)


class ReportConfig(Config):
    """What the report of a sweep shows in addition to the summary."""

    title: str | None = Field(None, description="of the report; None: the name of the sweep")
    reference: str | None = Field(
        None,
        description="policy whose variants are compared with it, pair by pair, e.g. in an ablation",
    )
    axis: str | None = Field(
        None,
        description="column of workflows.parquet, or option of the jobs such as "
        "policy.params.horizon, to draw the results over",
    )
    axis_name: str | None = Field(None, description="the axis in words; None: its name")
    figures: tuple[str, ...] | None = Field(
        None, description="only these figures, in this order; None: all"
    )
    map: MapConfig | None = Field(None, description="gains by cluster and setting, as a heat map")
