"""Simulated against measured times: by phase, by stage, and of the whole schedule."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fate_gym.lab.cost_fit.formulas import Frame
from fate_gym.lab.replay.script import Script, phase_of
from fate_gym.lab.replay.timeline import timeline

PHASES = ("load", "prefill", "decode")
HEADS = ("what", "simulated s", "measured s", "spread", "error")


def compare(script: Script, predicted: Sequence[float], runs: Sequence[Sequence[float]]) -> Frame:
    """Make one row for each phase, each stage and the whole schedule.

    Columns: ``what`` (``phase``, ``stage``, ``makespan``), ``name``, ``simulated_s``,
    ``measured_s`` (the median over runs), ``low_s``, ``high_s`` (their range), ``error``
    (simulated / measured - 1; NaN if measured is 0). A stage counts from its start on the device to
    its end; a phase is the sum of its operations: passes with prompts are ``prefill``, even if
    other queries decode in them.
    """
    phases = [phase_of(operation) for operation in script.operations]
    rows = []
    for phase in PHASES:
        here = np.array([one == phase for one in phases])
        if here.any():
            sums = [float(np.asarray(run)[here].sum()) for run in runs]
            rows.append(_row("phase", phase, float(np.asarray(predicted)[here].sum()), sums))
    expected = timeline(script, predicted)
    found = [timeline(script, run) for run in runs]
    for stage in expected.end:
        workflow, name = script.trace.stage_ids[stage]
        spans = [one.end[stage] - one.begin[stage] for one in found]
        span = expected.end[stage] - expected.begin[stage]
        rows.append(_row("stage", f"{workflow}/{name}", span, spans))
    spans = [one.makespan for one in found]
    rows.append(_row("makespan", script.trace.policy, expected.makespan, spans))
    return pd.DataFrame(rows)


def median_error(rows: Frame, what: str) -> float:
    """Return the median absolute error of the rows of kind ``what``."""
    return float(rows[rows.what == what].error.abs().median())


def summary(rows: Frame) -> list[tuple[str, ...]]:
    """Format phases, stages (median and 90th percentile of errors) and makespan as text."""
    shown = [_text(row.name, row) for row in rows[rows.what == "phase"].itertuples(index=False)]
    stages = rows[rows.what == "stage"]
    errors = stages.error.abs()
    median = f"{errors.median():.1%}"
    shown.append((f"{len(stages)} stages, median error", "", "", "", median))
    shown.append(("of these nine in ten below", "", "", "", f"{errors.quantile(0.9):.1%}"))
    (makespan,) = rows[rows.what == "makespan"].itertuples(index=False)
    return [*shown, _text("makespan", makespan)]


def _text(name: str, row: Frame) -> tuple[str, ...]:
    spread = f"{row.low_s:.4g} to {row.high_s:.4g}"
    error = f"{row.error:+.1%}"
    return name, f"{row.simulated_s:.4g}", f"{row.measured_s:.4g}", spread, error


def _row(what: str, name: str, simulated: float, measured: Sequence[float]) -> dict[str, object]:
    median = float(np.median(measured))
    return {
        "what": what,
        "name": name,
        "simulated_s": simulated,
        "measured_s": median,
        "low_s": min(measured),
        "high_s": max(measured),
        "error": simulated / median - 1.0 if median > 0 else float("nan"),
    }
