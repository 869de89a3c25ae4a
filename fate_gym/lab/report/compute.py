"""The statistics of a sweep, from its result files alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from fate_gym.errors import InputError
from fate_gym.lab.config import ReportConfig
from fate_gym.lab.report.axis import curves_over
from fate_gym.lab.report.baselines import Baselines, choose_baselines, mean_order
from fate_gym.lab.report.regimes import Gain, Panel, gains_over, regime_panels
from fate_gym.lab.report.summary import PolicySummary, summarise
from fate_gym.lab.report.versus import Versus, effects_of
from fate_gym.lab.sweep.command import SWEEP, read_saved
from fate_gym.lab.sweep.results import Sweep, read_sweep
from fate_gym.lab.tables import Estimate


@dataclass(frozen=True)
class Report:
    """A sweep and its statistics.

    Attributes:
        sweep: the sweep as read.
        spec: report settings of the sweep's experiment.
        baselines: policies that the others are compared with.
        baseline_source: the sweep on which the baselines were chosen, if it is another one.
        summary: one record per policy over all suites, best mean first.
        suites: the same for each suite.
        effects: every other policy against the reference in ``spec``.
        curves: by policy, the mean latency ratio at each value of the axis in ``spec``, or the
            difference to the reference if ``spec`` has one.
        panels: the heat maps of the map in ``spec``.
        gains: gains of each FATE policy over the strongest baseline of each kind.
    """

    sweep: Sweep
    spec: ReportConfig
    baselines: Baselines
    baseline_source: Path | None
    summary: list[PolicySummary]
    suites: dict[str, list[PolicySummary]]
    effects: dict[str, Versus]
    curves: dict[str, dict[float, Estimate]]
    panels: list[Panel]
    gains: dict[str, dict[str, Gain]]

    @property
    def strongest(self) -> str | None:
        return self.baselines.strongest

    @property
    def order(self) -> list[str]:
        """Policies, best mean first."""
        return [row.policy for row in self.summary]

    @property
    def best_fate(self) -> str | None:
        """The best policy of the family ``fate``."""
        return next((name for name in self.order if self.sweep.families[name] == "fate"), None)

    @property
    def best(self) -> str:
        """The best FATE policy, or the best policy of all if there is none."""
        return self.best_fate or self.order[0]

    @property
    def title(self) -> str:
        return self.spec.title or self.sweep.root.resolve().name


def compute_report(root: Path, *, baseline_from: Path | None = None) -> Report:
    """Compute a sweep's statistics; write nothing. Raises `InputError` if no job has finished."""
    sweep = read_sweep(root)
    spec = _spec(root)
    chosen_on = sweep if baseline_from is None else read_sweep(baseline_from)
    baselines = choose_baselines(mean_order(chosen_on.rows), chosen_on.families, chosen_on.boosted)
    if baseline_from is not None and baselines.strongest not in sweep.families:
        raise InputError(
            f"{baselines.strongest} is not in this sweep, and is the strongest of {baseline_from}",
            source=root,
            remedy=f"run it here too: policy={baselines.strongest}",
        )
    summary = summarise(sweep.rows, sweep.decisions, sweep.families, baselines)
    suites = {}
    for suite in sorted(set(sweep.rows["suite"])):
        part = sweep.of_suite(suite)
        whole = len(part.rows) == len(sweep.rows)
        suites[suite] = (
            summary if whole else summarise(part.rows, part.decisions, sweep.families, baselines)
        )
    fate = [row.policy for row in summary if sweep.families[row.policy] == "fate"]
    return Report(
        sweep=sweep,
        spec=spec,
        baselines=baselines,
        baseline_source=baseline_from,
        summary=summary,
        suites=suites,
        effects=effects_of(sweep.rows, sweep.families, spec.reference) if spec.reference else {},
        curves=curves_over(sweep, spec.axis, spec.reference) if spec.axis else {},
        panels=regime_panels(sweep, spec.map, spec.reference) if spec.map else [],
        gains=gains_over(sweep.rows, sweep.families, sweep.boosted, fate),
    )


def _spec(root: Path) -> ReportConfig:
    """Read the report settings of a sweep's experiment, as stored with the sweep."""
    try:
        return ReportConfig.model_validate(read_saved(root).get("report") or {})
    except ValidationError as error:
        raise InputError(
            error.errors()[0]["msg"], source=root / SWEEP, remedy="delete the file"
        ) from None
