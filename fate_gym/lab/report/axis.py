"""Results over an axis: a column of the workflows table, or an option of the jobs."""

from __future__ import annotations

import pandas as pd

from fate_gym.errors import InputError
from fate_gym.lab.report.summary import mean_ratio
from fate_gym.lab.report.versus import versus
from fate_gym.lab.sweep.command import SWEEP
from fate_gym.lab.sweep.results import WORKFLOW, Sweep
from fate_gym.lab.tables import Estimate

_MOST_VALUES, _GROUPS = 12, 8


def curves_over(
    sweep: Sweep, axis: str, reference: str | None = None
) -> dict[str, dict[float, Estimate]]:
    """Compute, by policy, an estimate at each value of an axis.

    Without a reference it is the mean latency ratio. With one it is the difference to the
    reference on the same workflows, in percent of its mean (negative is faster): means of similar
    policies would be indistinguishable. Round robin, the denominator of all ratios, is then left
    out.

    Args:
        sweep: the sweep.
        axis: a column of ``workflows.parquet``, or an option of the jobs. A column with more than
            twelve values is reduced to eight quantile groups at their medians.
        reference: label of a policy; of variants along the axis, the one with the parameters of
            ``conf/policy`` has the plain name.

    Raises:
        InputError: the axis is neither, or its values are not numbers.
    """
    rows = sweep.rows
    if axis in rows:
        values = pd.to_numeric(rows[axis], errors="coerce")
        names = rows["policy"]
    else:
        options = {str(job.directory): sweep.option(job, axis) for job, _ in sweep.finished}
        plain = {str(job.directory): job.policy for job, _ in sweep.finished}
        values = pd.to_numeric(rows["job"].map(options), errors="coerce")
        # Variants along the axis form one line instead of separate policies.
        names = rows["job"].map(plain) if axis.startswith("policy.") else rows["policy"]
    if values.isna().all():
        raise InputError(
            f"no numbers to draw over: {axis!r} is neither a column of workflows nor an option",
            source=sweep.root / SWEEP,
            field="report.axis",
            remedy="e.g. report.axis=devices or report.axis=policy.params.horizon",
        )
    if values.nunique() > _MOST_VALUES:
        groups = pd.qcut(values, _GROUPS, duplicates="drop", labels=False)
        values = values.groupby(groups).transform("median")
    table = rows.assign(_name=names, _x=values).dropna(subset="_x")
    other = rows[rows["policy"] == reference]
    return {
        str(name): {
            x: _at(line[line["_x"] == x], None if reference is None else other)
            for x in sorted(set(line["_x"]))
        }
        for name, line in table.groupby("_name")
        if reference is None or name != "round_robin"
    }


def _at(rows: pd.DataFrame, other: pd.DataFrame | None) -> Estimate:
    """Estimate the mean of rows, or their difference to other rows of the same workflows."""
    if other is None:
        return mean_ratio(rows)
    theirs = other.set_index(WORKFLOW)["latency_ratio"].rename("b")
    pairs = rows.assign(a=rows["latency_ratio"]).join(theirs, on=WORKFLOW, how="inner")
    if pairs["a"].equals(pairs["b"]):
        return Estimate(0.0, 0.0, 0.0)
    return versus(pairs).difference
