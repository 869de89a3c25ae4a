"""What both planners work with: forks of the state, plans, their values, list schedules.

A workbench keeps the *incumbent*, the best plan so far, from event to event. Without noise the
value of a plan that is followed does not change, so the incumbent's value never gets worse.

Under uncertainty (durations, lengths, choices or failures) that promise is void, and the best of
many plans is the one that expectations flatter most. So there every event starts anew from a list
schedule of what is known now, and only a plan that is better by `MARGIN` takes its place; stages
are not shared where durations are drawn or devices fail, since the last of several shards is late
more often than one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fate_gym.compiled import plain
from fate_gym.errors import InputError, near_matches
from fate_gym.sim.layout import NO_LOG, STATE_HEAD, Buffer, ProblemView, make_log, problem_view
from policies.base import Assignment, DecisionView
from policies.fate.model import Dimension, neutralised
from policies.fate.plans import DeskView, desk_bytes, desk_view, plan_bytes, plan_view
from policies.fate.player import (
    MAKESPAN,
    MEAN,
    TAIL,
    TARDINESS,
    Style,
    dispatch,
    plan_of_log,
    prepare,
    release,
    unplan,
)
from policies.fate.search import (
    FCFS,
    RANK,
    REMAINING,
    SLACK,
    STRETCH,
    clear_biases,
    order_stages,
    settled_workflows,
    shift_keys,
    value_of,
)
from policies.list_core import (
    DYNAMIC_LEVEL,
    MAX_MIN,
    STATE,
    STRICT,
    SUFFERAGE,
    UPWARD_RANK,
    Rules,
    make_choices,
    play,
)
from policies.list_tables import dynamic_levels

EXACT: tuple[Rules, ...] = (
    Rules(UPWARD_RANK, STATE, 1, 1),
    Rules(UPWARD_RANK, STRICT, 1, 1),
    Rules(UPWARD_RANK, STATE, 1, 1, ahead=1),
)
"""The policies ``heft_boosted``, ``heft`` and ``lookahead_heft_boosted``, to the last bit."""
RENEWED: tuple[Rules, ...] = (
    Rules(DYNAMIC_LEVEL, STATE, 1, 1),
    Rules(MAX_MIN, STATE, 1, 1),
    Rules(SUFFERAGE, STATE, 1, 1),
)
"""For a workflow alone also ``dls_boosted``, ``max_min_boosted`` and a lazy ``sufferage_boosted``.

They see which stages read the same prefix, as ranks do not: chosen on suite prefix_reuse, seed 100
(its results are of other seeds)."""
Floats = NDArray[np.float64]
Objective = Literal["makespan", "latency", "slowdown", "p95", "deadlines"]
OBJECTIVES: dict[str, int] = {
    "makespan": MAKESPAN,
    "latency": MEAN,
    "slowdown": MEAN,
    "p95": TAIL,
    "deadlines": TARDINESS,
}
TAIL_SHARE = 0.05
SHORTEST = 1e-6
"""Seconds: no workflow alone takes less, as far as slowdown goes."""
MARGIN = 0.1
"""Share of the list schedule's value that a plan has to gain under uncertainty.

Chosen on suites uncertain_train and uncertain_dag_train, seeds 0 to 2: with 0 FATE is behind
`heft_boosted` there."""
FIRST_DRAW = 7_000_000_000
FIRST_RANDOM = 0x9E3779B97F4A7C15


class Base(NamedTuple):
    """A list schedule: an order, a rule, and whether stages are shared among devices."""

    order: int
    strict: int
    shared: bool


class Workbench:
    """Plans for one run.

    Args:
        view: the run at its start.
        objective: what plans are compared by (see `policies.fate.rollout.FateRollout`).
        max_shards: devices that may share a stage.
        horizon: edges from the frontier that plays reach; None: all.
        samples: forks with drawn durations and choices to value plans on, instead of on the
            expected one; for problems that have something to draw.
        ignore: dimensions of state that the planner's model is blind to.
        owner: the policy's name, for messages.
    """

    def __init__(
        self,
        view: DecisionView,
        *,
        objective: str,
        max_shards: int,
        horizon: int | None = None,
        samples: int = 0,
        ignore: Sequence[Dimension] = (),
        owner: str = "fate",
    ) -> None:
        compiled = view.compiled
        stages, devices, _, _, _, shards = compiled.shape
        p = compiled.view
        self.problem: Buffer = neutralised(compiled, ignore)
        model = plain(problem_view)(self.problem)
        self._reach = model if "reachability" in ignore else None
        self.stages, self.seconds = p.stages, model.clean_seconds
        options = compiled.problem.options
        drawn = options.uncertainty > 0.0 or options.length_uncertainty > 0.0
        risky = drawn or options.failures is not None
        self.shards = 1 if risky else min(max_shards, shards)
        self.objective = objective
        self.style = Style(
            OBJECTIVES[objective],
            self.shards,
            0,
            0,
            -1 if horizon is None else horizon,
            TAIL_SHARE,
        )
        size, room = compiled.state_bytes, plan_bytes(stages, shards)
        self._choices_ahead = bool(p.head[0]["choosers"])
        self._uncertain = risky or self._choices_ahead
        extra = samples if drawn or self._choices_ahead else 0
        self.forks = np.zeros((1 + extra, size), np.uint8)
        self.state, self.ended = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
        self.best, self.base, self.trial, self.other = (np.zeros(room, np.uint8) for _ in range(4))
        self._anew, self._anew_value = np.zeros(room, np.uint8), np.inf
        self.desk = np.zeros(desk_bytes(stages, devices, p.workflows.size, shards), np.uint8)
        self.notes = desk_view_of(self.desk, p)
        self._plan = plain(plan_view)(self.best, p)
        self._log = make_log(stages, shards)
        self._choices = make_choices(stages, shards)
        self._lists, self._levels = EXACT, np.zeros(stages)
        if p.workflows.size == 1:
            self._lists += RENEWED
            dynamic_levels(self.problem, 0, self._levels)
        self._arrivals = p.workflows["arrival"].copy()
        self._deadlines, self._priorities = due_dates(view)
        self._floors = floor_seconds(view)
        self._known = np.zeros(p.workflows.size, np.int64)
        self._arrived = 0
        self._fresh = True
        self.base_of = Base(RANK, 0, False)
        self.notes.head["random"] = FIRST_RANDOM
        self.notes.workflows["ideal"] = np.maximum.reduceat(
            p.stages["upward_rank"], p.workflows["stages_from"]
        )
        pairs = np.stack([p.stages["model"], p.stages["prefix"]])
        kinds, of_stage = np.unique(pairs, axis=1, return_inverse=True)
        self.notes.stages["kind"] = of_stage.reshape(-1)
        self.notes.head["kinds"] = kinds.shape[1]
        clear_biases(self.problem, self.desk, self.shards)

    @property
    def sampled(self) -> bool:
        """Whether plans are valued on drawn futures."""
        return len(self.forks) > 1

    @property
    def work(self) -> int:
        """Work done in plays since the last look."""
        return int(self.notes.head["work"][0])

    def look(self, view: DecisionView) -> bool:
        """Fork the run as it stands. True: there is news (an arrival)."""
        self.notes.head["work"] = 0
        view.fork(self.forks[0])
        for number in range(1, len(self.forks)):
            # The same draws at every event, and none that a run is likely to have.
            view.fork(self.forks[number], seed=FIRST_DRAW + number)
        if self._reach is not None:
            self._face_the_ready(view)
        # What comes behind a stage is no bound where stages may vanish.
        horizon = 0 if self._choices_ahead else self.style.horizon
        prepare(self.problem, self.forks[0], self.desk, self._floors, horizon)
        settled_workflows(self.problem, self.forks[0], self._known)
        self._weigh()
        arrived = int((self._known > 0).sum())
        news = arrived != self._arrived
        self._arrived = arrived
        if self._uncertain:
            # Times of the plan are expected times.
            release(self.problem, self.best)
        return news

    def _face_the_ready(self, view: DecisionView) -> None:
        """Blind to reachability, the model still knows where ready stages can run."""
        assert self._reach is not None
        p = view.compiled.view
        for stage in view.ready:
            self._reach.clean_seconds[stage] = p.clean_seconds[stage]
            self._reach.decode_seconds[stage] = p.decode_seconds[stage]
            row = self._plan.stages[stage]
            used = self._plan.devices[stage, : int(row["width"])]
            if not np.isfinite(p.clean_seconds[stage, used]).all():
                row["width"] = 0

    def _weigh(self) -> None:
        workflows = self.notes.workflows
        # The tail is one of all workflows; means are changed by those under way only.
        counted = self._known > 0 if self.objective == "p95" else self._known == 1
        weight = np.where(counted, 1.0 / max(1, counted.sum()), 0.0)
        workflows["origin"] = self._arrivals
        if self.objective == "slowdown":
            weight = weight / np.maximum(workflows["ideal"], SHORTEST)
        if self.objective == "deadlines":
            workflows["origin"] = self._deadlines
            weight = weight * self._priorities
        workflows["weight"] = weight

    def value(self, plan: Buffer, bound: float = np.inf, style: Style | None = None) -> float:
        """The objective of a plan; inf if it is more than ``bound``. Completes the plan."""
        return float(
            value_of(
                self.problem,
                self.forks,
                self.state,
                NO_LOG,
                plan,
                self.desk,
                style or self.style,
                bound,
            )
        )

    def renew(self, news: bool) -> float:
        """The value of the best of the plan kept from the last event and of list schedules.

        Under uncertainty of list schedules alone.
        """
        if self.sampled:
            return self._begin_sampled(news)
        if self._uncertain:
            return self._begin_anew(news)
        value = np.inf if self._fresh else self.value(self.best)
        self._fresh = False
        return self.offer_bases(value) if news else value

    def _begin_sampled(self, news: bool) -> float:
        """The best of the list schedules as policies: nothing is fixed, whatever is drawn."""
        value = np.inf
        for order in self._orders if news else (self.base_of.order,):
            base = Base(order, 0, False)
            self._begin(self.trial, base)
            found = self.value(self.trial, value)
            if found < value:
                value, self.base_of = found, base
                self.best[:] = self.trial
        self._anew[:], self._anew_value = self.best, value
        return value

    @property
    def _orders(self) -> tuple[int, ...]:
        """Orders of list schedules worth a try; of one workflow alone only ranks are."""
        return (RANK,) if self._known.size == 1 else (RANK, FCFS, REMAINING, SLACK, STRETCH)

    def _begin_anew(self, news: bool) -> float:
        base = self.base_of
        value = self._offer(EXACT[0], np.inf)
        if self._known.size > 1 and news:
            value = self.offer_bases(value)
        elif self._known.size > 1:
            self.base_of = base
            style = self.begin_base()
            found = self.value(self.base, value, style)
            if found < value:
                value = found
                self.best[:] = self.base
        self._anew[:], self._anew_value = self.best, value
        return value

    def settle(self, value: float) -> None:
        """Under uncertainty: back to the list schedule, unless the best plan gains `MARGIN`."""
        if self._uncertain and value > (1.0 - MARGIN) * self._anew_value:
            self.best[:] = self._anew

    def _offer(self, rules: Rules, value: float) -> float:
        """Let a policy's rules offer a plan."""
        found = self._played(rules, value)
        if found >= value:
            return value
        self.best[:] = self.trial
        self.base_of = Base(RANK, int(rules.rule == STRICT), False)
        clear_biases(self.problem, self.desk, 1)
        return found

    def offer_bases(self, value: float) -> float:
        """Let list schedules offer plans; returns the value of the best plan."""
        for rules in self._lists:
            value = self._offer(rules, value)
        for order in self._orders:
            for strict, shared in ((0, False), (0, True), (1, False)):
                if shared and self.shards == 1:
                    continue
                base = Base(order, strict, shared)
                self._begin(self.trial, base)
                shards = self.shards if shared else 1
                style = self.style._replace(strict=strict, shards=shards)
                found = self.value(self.trial, value, style)
                if found < value:
                    value = found
                    self.best[:] = self.trial
                    self.base_of = base
                    clear_biases(self.problem, self.desk, shards)
        return value

    def _played(self, rules: Rules, bound: float) -> float:
        """The value of the plan that a policy's rules give, written to ``trial``."""
        self.state[:] = self.forks[0]
        head = self.state[: STATE_HEAD.itemsize].view(STATE_HEAD)[0]
        # A log of its own, from its first row on.
        head["shard_rows"] = 0
        if rules.order == DYNAMIC_LEVEL:
            rules = rules._replace(priority=self._levels)
        play(self.problem, self.state, self._log, rules, self._choices, self.ended)
        rows = min(int(head["shard_rows"]), self._log.shards.size)
        self.trial[:] = self.best
        unplan(self.problem, self.forks[0], self.trial)
        plan_of_log(self.problem, self._log, 0, rows, self.trial)
        return self.value(self.trial, bound)

    def begin_base(self) -> Style:
        """Fill ``base`` with the present list schedule, unplayed, and say how to play it."""
        self._begin(self.base, self.base_of)
        shift_keys(self.problem, self.forks[0], self.base, self.desk)
        return self.base_style

    @property
    def base_style(self) -> Style:
        """How the present list schedule is played."""
        return self.style._replace(strict=self.base_of.strict, biased=1)

    def begin_unshifted(self) -> None:
        """Fill ``base`` with the present list schedule, without the shifts of its keys."""
        self._begin(self.base, self.base_of)

    def _begin(self, plan: Buffer, base: Base) -> None:
        plan[:] = self.best
        unplan(self.problem, self.forks[0], plan)
        order_stages(self.problem, self.forks[0], plan, self.desk, base.order)

    def starting(self, view: DecisionView) -> list[Assignment]:
        """What starts now by the best plan."""
        found = self._dispatch()
        if not found and not view.can_wait:
            # The plan waits for what will not come; nobody else is there to do the work.
            unplan(self.problem, self.forks[0], self.best)
            found = self._dispatch()
        return found

    def _dispatch(self) -> list[Assignment]:
        self.state[:] = self.forks[0]
        count = dispatch(self.problem, self.state, NO_LOG, self.best, self.desk, self.style)
        assignments = []
        for stage in self.notes.started[:count].tolist():
            width = int(self._plan.stages["width"][stage])
            devices = tuple(self._plan.devices[stage, :width].tolist())
            counts = tuple(self._plan.counts[stage, :width].tolist()) if width > 1 else None
            assignments.append(Assignment(stage, devices, counts))
        return assignments


def check_objective(objective: str, owner: str) -> None:
    """Raises `InputError` for an objective that there is not."""
    if objective not in OBJECTIVES:
        raise InputError(
            f"unknown objective {objective!r}",
            item=f"policy {owner!r}",
            field="params.objective",
            remedy=near_matches(objective, OBJECTIVES),
        )


def desk_view_of(desk: Buffer, p: ProblemView) -> DeskView:
    """The desk's named arrays, for plain Python."""
    return plain(desk_view)(desk, p)


def due_dates(view: DecisionView) -> tuple[Floats, Floats]:
    """(W,) time by which each workflow is due, inf as a large number; (W,) 1 with a deadline."""
    workflows = view.compiled.problem.workflows
    due = np.array([w.arrival + (w.deadline or 0.0) for w in workflows])
    weight = np.array([1.0 if w.deadline is not None else 0.0 for w in workflows])
    return due, weight


def floor_seconds(view: DecisionView) -> Floats:
    """(S,) seconds that each stage takes at least, however it is placed."""
    compiled = view.compiled
    floor = compiled.exec_floor_seconds.min(axis=1)
    floor = np.where(np.isfinite(floor), floor, 0.0)
    return floor / compiled.shape[5] + compiled.tool_seconds
