"""Plays one problem with a policy and with round robin, and computes the metrics."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from fate_gym.lab.jobs.instances import REFERENCE, Instance
from fate_gym.lab.jobs.schedules import ShardRow, shard_rows
from fate_gym.metrics.mechanism import mechanism_metrics
from fate_gym.metrics.outcome import ratio, workflow_outcomes
from fate_gym.metrics.serving import serving_by_workflow, serving_metrics
from fate_gym.metrics.sessions import session_metrics, turn_ttft
from fate_gym.sim import CompiledProblem, Policy, Recorder, Simulator, Trace

WARM_UP_DECISIONS = 64
"""Untimed decisions before a policy is timed. Playing a whole stream would double its job."""


@dataclass(frozen=True)
class Measurement:
    """The outcome of one problem: one row per workflow, and the policy's run."""

    rows: list[dict[str, Any]]
    trace: Trace
    instance: Instance
    recorder: Recorder | None = None

    @property
    def decision_ms(self) -> list[float]:
        """Wall-clock milliseconds of each of the policy's decisions."""
        return [float(value) for value in self.trace.decision_seconds * 1e3]

    def shards(self, policy: str) -> list[ShardRow]:
        """Return the rows of both runs' schedules, for a Gantt chart; seconds."""
        rows = shard_rows(self.trace, self.instance.compiled, policy)
        return rows if policy == REFERENCE else rows + self.instance.reference_shards


def measure(
    instance: Instance,
    policy: Policy,
    *,
    charge_planning: bool = False,
    recorder: Recorder | None = None,
) -> Measurement:
    """Play a problem with the policy, and compare it with round robin's run.

    The rows hold, for each workflow, its times, those under round robin, their ratios, a lower
    bound on the latency, and metrics that explain the difference. ``latency_ratio``, the headline
    of every report, is the latency (time from arrival to end) over round robin's;
    ``makespan_ratio`` is the makespan over round robin's. For a single workflow both are equal.
    In ratios, times under a nanosecond count as one nanosecond, so that 0 / 0 is 1.
    Metrics of the whole run (loads, hit rates, utilisation, percentiles over its requests, cost,
    decision times) are repeated in the row of every workflow. With ``charge_planning`` the policy's
    decision time passes in its run (round robin's, microseconds, does not). A ``recorder`` records
    the decisions of the policy's run.
    """
    trace = Simulator(instance.compiled).run(
        policy, seed=instance.drawn, charge_planning=charge_planning, recorder=recorder
    )
    return Measurement(_rows(instance, trace), trace, instance, recorder)


def warm_up(problem: CompiledProblem, policy: Policy) -> None:
    """Play a problem's first decisions and discard them, so that compilation is not timed."""
    simulator = Simulator(problem, record=False)
    view = simulator.view()
    policy.reset(view, 0)
    for _ in range(WARM_UP_DECISIONS):
        if simulator.done:
            break
        if not simulator.ready or not simulator.apply(policy.decide(view)):
            simulator.wait()


def _rows(instance: Instance, trace: Trace) -> list[dict[str, Any]]:
    compiled, problem, reference = instance.compiled, instance.problem, instance.reference
    alone = len(problem.workflows) == 1
    shared = {
        "workflows": len(problem.workflows),
        "devices": len(problem.cluster.devices),
        "state_intensity": instance.state_intensity,
    }
    shared |= mechanism_metrics(trace, compiled) | serving_metrics(trace, compiled)
    shared |= session_metrics(trace, compiled)
    served, first = serving_by_workflow(trace, compiled), turn_ttft(trace, compiled).tolist()
    turns = compiled.arrays.workflows["turn"].tolist()
    bounds = instance.bounds(trace.stage_vanished)
    rows = []
    pairs = zip(workflow_outcomes(trace), workflow_outcomes(reference), strict=True)
    for number, (ours, theirs) in enumerate(pairs):
        # A single workflow's makespan is the schedule's: idling before the first stage counts.
        makespan = trace.makespan if alone else ours["makespan"]
        rr_makespan = reference.makespan if alone else theirs["makespan"]
        bound = float(bounds.latency[number])
        if alone:
            bound = max(bound, bounds.makespan)
        rows.append(
            {
                "problem": problem.id,
                "workflow": ours["workflow"],
                "family": ours["family"],
                "instance": instance_of(ours["workflow"] if alone else problem.id, instance.seed),
                "session": problem.workflows[number].session or "",
                "turn": turns[number],
                "stages": ours["stages"],
                "arrival": ours["arrival"],
                "makespan": makespan,
                "latency": ours["latency"],
                "rr_makespan": rr_makespan,
                "rr_latency": theirs["latency"],
                "latency_ratio": ratio(ours["latency"], theirs["latency"]),
                "makespan_ratio": ratio(makespan, rr_makespan),
                "lower_bound": bound,
                "gap_to_bound": _gap(ours["latency"], bound),
                "deadline_missed": ours["deadline_missed"],
                "turn_ttft": first[number],
            }
            | served[number]
            | shared
        )
    return rows


def _gap(latency: float, bound: float) -> float:
    """Latency over its lower bound; NaN if there is none."""
    return ratio(latency, bound) if bound > 0 or latency == 0 else math.nan


def instance_of(name: str, seed: int) -> str:
    """Return the name without the seed: suites name problems ``<instance>/s<seed>``."""
    return name.removesuffix(f"/s{seed}")
