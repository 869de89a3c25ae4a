"""The best plan so far, and the list schedules that it has to beat.

It is kept from event to event. Without noise the value of a plan that is followed does not change,
so the value of the best plan never gets worse.

Under uncertainty (durations, lengths, choices or failures) that promise is void, and the best of
many plans is the most over-optimistic one (winner's curse). So there every event starts anew from
a list schedule of what is known now, and only a plan that is better by `MARGIN` takes its place;
stages are not shared where durations are drawn or devices fail, since the last of several shards
is late more often than one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fate_gym.kernel.placements import Placements, new_placements
from fate_gym.kernel.schema import StateArrays, new_log, new_state
from policies.base import Assignment, DecisionView, assignments
from policies.fate.blinding import Dimension, blinded
from policies.fate.kinds import kind_numbers
from policies.fate.lasting import LastingLoads
from policies.fate.plans.edit import RANK, plan_by_order, put_first, shift_keys, unplan
from policies.fate.plans.objective import OBJECTIVES, Objective, set_origins, set_weights
from policies.fate.plans.play import start_now, value_of
from policies.fate.plans.prepare import prepare
from policies.fate.plans.schema import Plan, Style, new_context
from policies.fate.rollout.bases import Base, orders_of, plan_by_rules, policies_of
from policies.fate.rollout.search import improve
from policies.fate.rollout.tuning import tune
from policies.list_scheduling.rules import STRICT, Rules

MARGIN = 0.1
"""Share of the list schedule's value that a plan has to gain under uncertainty.

Chosen on suites uncertain_train and uncertain_dag_train, seeds 0 to 2: with 0 FATE is behind
`heft_boosted` there."""
FIRST_SEED = 7_000_000_000
"""Of the drawn futures: a run is not likely to have it."""


class Incumbent:
    """The best plan of one run.

    Args:
        view: the run at its start.
        objective: what plans are compared by (see `policies.fate.rollout.policy.FateRollout`).
        max_shards: devices that may share a stage.
        horizon: edges from the frontier that plays reach; None: all.
        samples: drawn futures to value plans in, instead of the expected one; for problems that
            have something to draw.
        ignore: dimensions of state that the planner's picture is blind to.
        load_share: of a load, that work which is known is charged for in a stream.

    Attributes:
        context: what plays and searches work on; ``best`` is the plan.
        style: how the plan is played.
    """

    def __init__(
        self,
        view: DecisionView,
        *,
        objective: Objective,
        max_shards: int,
        horizon: int | None = None,
        samples: int = 0,
        ignore: Sequence[Dimension] = (),
        load_share: float = 1.0,
    ) -> None:
        self._compiled, self._objective = view.compiled, objective
        p = view.compiled.arrays
        options = view.compiled.problem.options
        drawn = options.uncertainty > 0.0 or options.length_uncertainty > 0.0
        risky = drawn or options.failures is not None
        self._choices_ahead = p.choosers > 0
        self._uncertain = risky or self._choices_ahead
        shards = 1 if risky else min(max_shards, p.max_shards)
        self.style = Style(OBJECTIVES[objective], shards, 0, 0, -1 if horizon is None else horizon)
        futures = samples if drawn or self._choices_ahead else 0
        self._futures: list[StateArrays] = [new_state(p) for _ in range(futures)]
        picture = blinded(p, ignore)
        if picture is p:
            picture = p.copy()
        self._loads = LastingLoads(picture, load_share)
        self.context = c = new_context(picture, kind_numbers(p), futures)
        self._sees_hosts = "reachability" not in ignore
        c.work.futures[:] = [future.address for future in self._futures]
        c.work.stages["floor"] = _floors(view)
        c.work.workflows["alone"] = np.maximum.reduceat(
            p.stages["upward_rank"], p.workflows["stages_from"]
        )
        self._clear_biases(shards)
        self._policies, self._orders = policies_of(c.problem), orders_of(p)
        self._log = new_log(2 * p.stages.size * p.max_shards, 0)
        self._choices = new_placements(p.stages.size, p.max_shards, p.devices.size)
        self._arrived, self._fresh = 0, True
        self._base = Base(RANK, 0, 1)
        self._fallback, self._fallback_value = c.best.copy(), np.inf

    @property
    def sampled(self) -> bool:
        """Whether plans are valued in drawn futures."""
        return bool(self._futures)

    def update(self, view: DecisionView) -> bool:
        """Fork the run as it stands. True: work has arrived since the last time."""
        c = self.context
        c.work.work = 0
        view.fork(c.start)
        for number, future in enumerate(self._futures, start=1):
            # The same draws at every event.
            view.fork(future, seed=FIRST_SEED + number)
        if not self._sees_hosts:
            self._show_hosts(view)
        self._loads.update(view)
        # What comes behind a stage is no bound where stages may vanish.
        prepare(c.problem, c.start, c.work, 0 if self._choices_ahead else self.style.horizon)
        set_origins(c.work, self._objective, self._compiled, c.start)
        set_weights(c.work, self._objective, self._compiled)
        arrived = int((c.work.workflows["known"] > 0).sum())
        grown = arrived != self._arrived
        self._arrived = arrived
        if self._uncertain:
            # Times of the plan are expected times.
            c.best.stages["not_before"] = 0.0
        return grown

    def _show_hosts(self, view: DecisionView) -> None:
        """Blind to reachability, the planner still knows where ready stages can run."""
        p, picture, best = self._compiled.arrays, self.context.problem, self.context.best
        for stage in view.ready:
            picture.clean_seconds[stage] = p.clean_seconds[stage]
            picture.decode_seconds[stage] = p.decode_seconds[stage]
            used = best.devices[stage, : best.stages["width"][stage]]
            if not np.isfinite(p.clean_seconds[stage, used]).all():
                best.stages["width"][stage] = 0

    # --- the value of the best plan ---------------------------------------------------------

    def value(self, plan: Plan, bound: float, style: Style) -> float:
        """The objective of a plan, inf if it is more than ``bound``; its play is in ``played``."""
        return float(value_of(self.context, plan, style, bound))

    def revalue(self, arrived: bool) -> float:
        """The value of the best of the plan kept from the last event and of list schedules.

        Under uncertainty of list schedules alone.
        """
        c = self.context
        if not self._uncertain:
            value = np.inf
            if not self._fresh:
                value = self.value(c.best, np.inf, self.style)
                self.take(c.played)
            self._fresh = False
            return self._offer_all(value) if arrived else value
        if self.sampled:
            # As policies: nothing is fixed, whatever is drawn.
            value = np.inf
            for order in self._orders if arrived else (self._base.order,):
                value = self._offer_order(Base(order, 0, self.style.shards), value)
        else:
            value = self._renew(arrived)
        _copy(self._fallback, c.best)
        self._fallback_value = value
        return value

    def _renew(self, arrived: bool) -> float:
        """Let list schedules of what is known now take the place of the plan."""
        base = self._base
        value = self._offer_policy(self._policies[0], np.inf)
        if len(self._orders) == 1:
            return value
        if arrived:
            return self._offer_all(value)
        self._base = base
        style = self.write_base()
        found = self.value(self.context.base, value, style)
        if found < value:
            self.take(self.context.played)
        return min(value, found)

    def enforce_margin(self, value: float) -> None:
        """Under uncertainty: back to the list schedule, unless the best plan gains `MARGIN`."""
        if self._uncertain and value > (1.0 - MARGIN) * self._fallback_value:
            self.take(self._fallback)

    # --- list schedules ---------------------------------------------------------------------

    def _offer_all(self, value: float) -> float:
        """Let list schedules offer plans; returns the value of the best plan."""
        for rules in self._policies:
            value = self._offer_policy(rules, value)
        for order in self._orders:
            value = self._offer_order(Base(order, 0, 1), value)
            if self.style.shards > 1:
                value = self._offer_order(Base(order, 0, self.style.shards), value)
            value = self._offer_order(Base(order, 1, 1), value)
        return value

    def _offer_policy(self, rules: Rules, value: float) -> float:
        """Let a policy's rules offer a plan, if it is better than ``value``."""
        c = self.context
        rows = c.start.shard_rows + c.problem.stages.size * c.problem.max_shards
        if rows > self._log.shards.size:
            self._log = new_log(2 * rows, 0)
        plan_by_rules(c, rules, self._choices, self._log)
        return self._offer(Base(RANK, int(rules.rule == STRICT), 1), self.style, value)

    def _offer_order(self, base: Base, value: float) -> float:
        plan_by_order(self.context, base.order, self.context.draft)
        style = self.style._replace(strict=base.strict, shards=base.shards)
        return self._offer(base, style, value)

    def _offer(self, base: Base, style: Style, value: float) -> float:
        """Take the draft of a list schedule if it is better than ``value``."""
        found = self.value(self.context.draft, value, style)
        if found >= value:
            return value
        self.take(self.context.played)
        self._base = base
        self._clear_biases(base.shards)
        return found

    def _clear_biases(self, shards: int) -> None:
        """Prefer nothing; ``shards`` devices for every kind."""
        biases = self.context.biases
        biases.kinds["shift"], biases.kinds["spread"] = 0.0, shards
        biases.seconds[:] = 0.0
        biases.shifts[:] = 0.0

    @property
    def base_style(self) -> Style:
        """How the present list schedule is played."""
        return self.style._replace(strict=self._base.strict, biased=1)

    def write_base(self) -> Style:
        """Let ``base`` be the present list schedule, and say how it is played."""
        c = self.context
        plan_by_order(c, self._base.order, c.base)
        shift_keys(c, c.base)
        return self.base_style

    def take(self, plan: Plan) -> None:
        """Let the best plan be this one."""
        _copy(self.context.best, plan)

    # --- better plans; each returns the value of the best one ---------------------------------

    def consider(self, placements: Placements, rows: Sequence[int], value: float) -> float:
        """Take placements if what follows them, by either plan, is better than ``value``."""
        c = self.context
        taken = False
        for plan, style in ((c.base, self.write_base()), (c.best, self.style)):
            _copy(c.draft, plan)
            for turn, row in enumerate(rows):
                put_first(c.draft, placements, row, turn)
            found = self.value(c.draft, value, style)
            if found < value:
                value, taken = found, True
                _copy(c.found, c.played)
        if taken:
            self.take(c.found)
        return value

    def tune(self, value: float, work: int, heat: float = 0.0) -> float:
        """Change what the list schedule prefers."""
        plan_by_order(self.context, self._base.order, self.context.base)
        return float(tune(self.context, self.base_style, value, work, heat))

    def improve(self, work: int, heat: float = 0.0) -> float:
        """Change the plan itself."""
        return float(improve(self.context, self.style, work, heat))

    # --- what it starts -----------------------------------------------------------------------

    def starting(self, view: DecisionView) -> list[Assignment]:
        """What starts now by the best plan."""
        found = self._start()
        if not found and not view.can_wait:
            # The plan waits for what will not come; nobody else is there to do the work.
            unplan(self.context.start, self.context.best)
            found = self._start()
        return found

    def _start(self) -> list[Assignment]:
        c = self.context
        start_now(c, c.best, self.style, self._choices)
        self.take(c.played)
        return assignments(self._choices, self._choices.count)


def _copy(target: Plan, source: Plan) -> None:
    target.buffer[:] = source.buffer


def _floors(view: DecisionView) -> NDArray[np.float64]:
    """(S,) seconds that each stage takes at least, however it is placed."""
    compiled = view.compiled
    floor = compiled.floor_seconds.min(axis=1)
    floor = np.where(np.isfinite(floor), floor, 0.0)
    return floor / compiled.arrays.max_shards + compiled.tool_seconds
