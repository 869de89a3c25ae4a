"""What a run was worth: outcomes, mechanism, lower bounds, state intensity, statistics."""

from fate_gym.metrics.bounds import (
    BoundInputs,
    LowerBounds,
    lower_bounds,
    problem_bounds,
    work_bound,
)
from fate_gym.metrics.intensity import problem_state_intensity
from fate_gym.metrics.mechanism import (
    busy_seconds,
    mechanism_metrics,
    regretted_evictions,
    scarce_occupancy,
)
from fate_gym.metrics.outcome import (
    WorkflowOutcome,
    latency_summary,
    outcome_summary,
    workflow_outcomes,
)
from fate_gym.metrics.statistics import (
    Interval,
    bootstrap_ci,
    ecdf,
    holm,
    paired_difference_ci,
    performance_profile,
    wilcoxon_signed_rank,
    win_rate,
)

__all__ = [
    "BoundInputs",
    "Interval",
    "LowerBounds",
    "WorkflowOutcome",
    "bootstrap_ci",
    "busy_seconds",
    "ecdf",
    "holm",
    "latency_summary",
    "lower_bounds",
    "mechanism_metrics",
    "outcome_summary",
    "paired_difference_ci",
    "performance_profile",
    "problem_bounds",
    "problem_state_intensity",
    "regretted_evictions",
    "scarce_occupancy",
    "wilcoxon_signed_rank",
    "win_rate",
    "work_bound",
    "workflow_outcomes",
]
