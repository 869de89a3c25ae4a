"""When planning pays: gains of FATE by cluster and setting, the cells of a map."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from fate_gym.lab.config import MapConfig, option_texts
from fate_gym.lab.jobs.result import JobResult
from fate_gym.lab.report.baselines import choose_baselines, mean_order
from fate_gym.lab.report.versus import LatencyRatios, Versus
from fate_gym.lab.sweep.results import Sweep
from fate_gym.lab.tables import Estimate

Place = tuple[str, str]
"""The headings of a cell's row and column."""

OVER: Mapping[str, str] = {
    "strict": "strongest strict",
    "boosted": "strongest boosted",
    "round_robin": "RoundRobin",
}
"""What a gain may be over, as it is shown."""


class Gain(NamedTuple):
    """By how much a policy is ahead of another.

    Attributes:
        against: the other.
        n: workflows that both have run.
        percent: 100 (1 − mean / the other's mean) of latency / RoundRobin, with a 95 % bootstrap
            interval that draws whole instances; positive is ahead.
    """

    against: str
    n: int
    percent: Estimate


@dataclass(frozen=True)
class Panel:
    """One heat map.

    Attributes:
        policy: whose gains.
        over: what they are over: a kind of baseline, or the name of a policy.
        gains: by place; places without results are not there.
    """

    policy: str
    over: str
    gains: dict[Place, Gain]

    @property
    def title(self) -> str:
        return f"{self.policy} over {self.other}"

    @property
    def other(self) -> str:
        """What the gains are over, as it is shown."""
        return OVER.get(self.over, self.over)


def gain_from(against: str, found: Versus) -> Gain:
    """A comparison as a gain."""
    value, low, high = found.difference
    return Gain(against, found.n, Estimate(-value, -high, -low))


def gains_over(
    rows: pd.DataFrame,
    families: Mapping[str, str],
    boosted: Collection[str],
    policies: Collection[str],
) -> dict[str, dict[str, Gain]]:
    """By policy, the gain over each kind of baseline that these rows have.

    The strongest ones are chosen on the same rows, which favours them.

    Args:
        rows: workflows, as in ``workflows.parquet``.
        families: family of each policy.
        boosted: policies that are boosted.
        policies: whose gains; those without rows are left out.
    """
    order = mean_order(rows)
    baselines = choose_baselines(order, families, boosted)
    others: dict[str, str | None] = {
        "strict": baselines.strict,
        "boosted": baselines.boosted,
        "round_robin": "round_robin" if "round_robin" in order else None,
    }
    ratios = LatencyRatios(rows, families)
    return {
        policy: {
            kind: gain_from(other, ratios.against(policy, other))
            for kind, other in others.items()
            if other is not None
        }
        for policy in policies
        if policy in order
    }


def regime_panels(sweep: Sweep, spec: MapConfig, reference: str | None) -> list[Panel]:
    """The heat maps of a sweep, without those that would be empty.

    Without a reference: for every FATE policy, its gain over each kind of baseline. With one: the
    gain of the reference over every other FATE policy, which is what that one lacks.

    Args:
        sweep: its jobs.
        spec: which of them are in which cell.
        reference: of an ablation.
    """
    fate = [name for name in mean_order(sweep.rows) if sweep.families[name] == "fate"]
    gains: dict[tuple[str, str], dict[Place, Gain]] = {}
    for place, rows in _cells(sweep, spec).items():
        if reference is None:
            found = gains_over(rows, sweep.families, sweep.boosted, fate)
            for policy, kinds in found.items():
                for kind, gain in kinds.items():
                    gains.setdefault((policy, kind), {})[place] = gain
            continue
        ratios = LatencyRatios(rows, sweep.families)
        for other in fate:
            if other != reference and {other, reference} <= set(ratios.table):
                gain = gain_from(other, ratios.against(reference, other))
                gains.setdefault((reference, other), {})[place] = gain
    wanted = [(p, kind) for p in fate for kind in OVER] if reference is None else sorted(gains)
    return [Panel(*key, gains[key]) for key in wanted if key in gains]


def _cells(sweep: Sweep, spec: MapConfig) -> dict[Place, pd.DataFrame]:
    """The rows of every cell that has some, in the order of the map."""
    places = {str(job.directory): place_of(result, spec) for job, result in sweep.finished}
    of_job = sweep.rows["job"].map(places)
    cells = [(row, column) for row in spec.rows for column in spec.columns.values()]
    found = {cell: sweep.rows[of_job == cell] for cell in cells}
    return {cell: rows for cell, rows in found.items() if not rows.empty}


def place_of(result: JobResult, spec: MapConfig) -> Place | None:
    """Which cell a job is of, if any: by its cluster, and by the options of rows that it was given.

    Of these it has all of its row's, and none of another's.
    """
    names = {name for options in spec.rows.values() for name in options}
    given = {text for text in result.overrides if text.split("=", 1)[0] in names}
    column = spec.columns.get(result.cluster)
    for row, options in spec.rows.items():
        if column is not None and given == set(option_texts(options)):
            return row, column
    return None
