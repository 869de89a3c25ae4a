"""When planning pays: gains of FATE by cluster and setting, the cells of a map."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from fate_gym.lab.config import MapConfig, option_texts
from fate_gym.lab.jobs.result import JobResult
from fate_gym.lab.report.baselines import choose_baselines, mean_order
from fate_gym.lab.report.mean_latency import problem_ratios
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
"""Display names of the kinds of baselines."""


class Gain(NamedTuple):
    """The gain of a policy over another.

    Attributes:
        against: the other policy.
        n: number of workflows (or problems, `MapConfig.mean_over`) that both have run.
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
        policy: policy whose gains are shown.
        over: what gains are measured against: a kind of baseline, or the name of a policy.
        gains: gains by place; places without results are missing.
    """

    policy: str
    over: str
    gains: dict[Place, Gain]

    @property
    def title(self) -> str:
        return f"{self.policy} over {self.other}"

    @property
    def other(self) -> str:
        """Display name of what gains are measured against."""
        return OVER.get(self.over, self.over)


def gain_from(against: str, found: Versus) -> Gain:
    """Convert a comparison to a gain."""
    value, low, high = found.difference
    return Gain(against, found.n, Estimate(-value, -high, -low))


def gains_over(
    rows: pd.DataFrame,
    families: Mapping[str, str],
    boosted: Collection[str],
    policies: Collection[str],
) -> dict[str, dict[str, Gain]]:
    """Compute, by policy, the gain over each kind of baseline in these rows.

    The strongest ones are chosen on the same rows, which favours them.

    Args:
        rows: workflows, as in ``workflows.parquet``.
        families: family of each policy.
        boosted: policies that are boosted.
        policies: policies whose gains to compute; those without rows are left out.
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
    """Compute the heat maps of a sweep, without empty ones.

    Without a reference: the gain of every FATE policy over each kind of baseline. With one: the
    gain of the reference over every other FATE policy (what the missing part is worth).

    Args:
        sweep: the sweep.
        spec: which of its jobs are in which cell.
        reference: reference policy of an ablation.
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
    """Return the rows of every non-empty cell, in the order of the map."""
    places = {str(job.directory): place_of(result, spec) for job, result in sweep.finished}
    of_job = sweep.rows["job"].map(places)
    cells = [(row, column) for row in spec.rows for column in spec.columns.values()]
    found = {cell: sweep.rows[of_job == cell] for cell in cells}
    known = {cell: rows for cell, rows in found.items() if not rows.empty}
    if spec.mean_over == "problems":
        # A problem counts as a single workflow.
        return {cell: problem_ratios(rows).assign(workflow=0) for cell, rows in known.items()}
    return known


def place_of(result: JobResult, spec: MapConfig) -> Place | None:
    """Return the cell of a job, if any, by its cluster and the options it was given.

    The job must have all options of its row and none of another row's.
    """
    names = {name for options in spec.rows.values() for name in options}
    given = {text for text in result.overrides if text.split("=", 1)[0] in names}
    column = spec.columns.get(result.cluster)
    for row, options in spec.rows.items():
        if column is not None and given == set(option_texts(options)):
            return row, column
    return None
