"""The best plan so far (the incumbent), and the list schedules that it has to beat.

The plan is kept from event to event. Without noise a plan keeps its value while it is followed, so
the value of the best plan never gets worse.

Under uncertainty (durations, lengths, choices or failures) this no longer holds, and the best of
many plans is the most over-optimistic one (winner's curse). Instead of a plan, the biases of a list
schedule are kept then; `policies.fate.rollout.uncertainty` changes them, using drawn futures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter

import numpy as np

from fate_gym.kernel.draws import is_uncertain
from fate_gym.kernel.placements import Placements, new_placements
from fate_gym.kernel.ranks import find_tails
from fate_gym.kernel.schema import PLACED, TOOL_STAGE, StateArrays, new_log, new_state
from fate_gym.problem import Objective
from fate_gym.sim import CompiledProblem, Excerpt
from policies.base import Assignment, DecisionView, assignments
from policies.fate.arrivals import Arrivals
from policies.fate.blinding import EVERYTHING, Sight, blinded
from policies.fate.device_time import DeviceTime
from policies.fate.kinds import kind_numbers
from policies.fate.lasting import LastingLoads
from policies.fate.plans.edit import RANK, plan_by_order, put_first, shift_keys, unplan
from policies.fate.plans.keeping import recall, remember
from policies.fate.plans.objective import OBJECTIVES, TAIL, set_weights
from policies.fate.plans.past import Past
from policies.fate.plans.play import start_now, value_of
from policies.fate.plans.prepare import prepare
from policies.fate.plans.schema import (
    FIRST_RANDOM,
    Memory,
    Plan,
    Style,
    new_context,
    prefer_nothing,
)
from policies.fate.rollout.bases import (
    Base,
    Offer,
    cost_of,
    most_cost_of,
    orders_of,
    plan_by_rules,
    plan_offline,
    plays_of,
    policies_of,
    rules_in,
)
from policies.fate.rollout.budget import MOST, SavedBudget
from policies.fate.rollout.search import improve
from policies.fate.rollout.tuning import tune
from policies.list_scheduling.offline import Method
from policies.list_scheduling.rules import STRICT, Rules

LARGEST = 1_000_000
"""Most work of one list schedule, for a single workflow: about a second."""
ONCE = 200_000
"""Least budget for the list schedules of a single workflow: no more work arrives."""
MARKS = 8
"""States kept of the play of the plan that a search changes."""
MOST_MARKED = 3_000
"""Stages for which marks are worth their memory: with more, a search plays only a few plans."""
FIRST_SEED = 7_000_000_000
"""First seed of the drawn futures; unlikely to be the seed of a run."""


class Incumbent:
    """The best plan of one run.

    Args:
        view: the run at its start.
        objective: objective of plans (see `policies.fate.rollout.policy.FateRollout`).
        max_shards: most devices that may share a stage.
        horizon: edges from the frontier that plays reach; None: all.
        samples: under uncertainty, number of drawn futures in which changes are tested; a quarter
            as many others are used for tuning.
        sight: how the planner sees the problem.
        seed: seed of the searches.

    Attributes:
        objective: objective of plans; the problem's own if none was given.
        excerpt: current state of the run, restricted to what plays need.
        context: data of plays and searches on the excerpt; ``best`` is the plan.
        style: how the plan is played.
        deadline: `perf_counter` time after which no list schedule proposes a plan.
        uncertain: whether anything is revealed only as the run goes on.
        orders: orders of list schedules worth trying.
    """

    def __init__(
        self,
        view: DecisionView,
        *,
        objective: Objective | None,
        max_shards: int,
        horizon: int | None = None,
        samples: int = 0,
        sight: Sight = EVERYTHING,
        seed: int = 0,
    ) -> None:
        compiled = view.compiled
        p = self._arrays = compiled.arrays
        self.objective = objective or compiled.problem.options.objective
        self.uncertain = is_uncertain(p)
        self.style = Style(
            OBJECTIVES[self.objective],
            min(max_shards, p.max_shards),
            0,
            int(self.uncertain),
            -1 if horizon is None else horizon,
        )
        self._tested, self._tuned, self._drawn = 0, 0, 0
        if self.uncertain:
            self._tested, self._tuned = samples, (samples + 3) // 4
        self._picture = blinded(p, sight.ignore)
        self._arrivals = Arrivals()
        self._loads = LastingLoads(self._picture, sight.load_share)
        self._time = DeviceTime(self._picture, sight.thrift)
        self._sees_hosts = "reachability" not in sight.ignore
        # Later stages give no bound if they may vanish or take less time.
        bounded = not self.uncertain and self.style.horizon != 0
        self._memory = _new_memory(compiled, bounded)
        self._deadlines = np.array(
            [np.nan if w.deadline is None else w.deadline for w in compiled.problem.workflows]
        )
        self.orders = orders_of(p)
        # Under uncertainty these are not used.
        self._offers = () if self.uncertain else self._list_offers()
        self._pending: list[Offer] = []
        self.excerpt = Excerpt(p, self._picture)
        self._past = Past()
        self._random = np.uint64(FIRST_RANDOM + 2 * seed)
        self._make_room()
        recall(self._memory, self.excerpt.stages, self.excerpt.workflows, self.context)
        self.clear_biases(1 if self.uncertain else self.style.shards)
        self._fresh = True
        self._base = Base(RANK, 0, 1)
        self._kept_value = np.inf
        self.deadline = np.inf
        # Whether plays predict the run exactly: nothing uncertain, and the true problem in full.
        self._foreseeing = not self.uncertain and not sight.ignore and horizon is None
        self._budget = SavedBudget()

    def _make_room(self) -> None:
        """Allocate what plays of the excerpt need."""
        p, memory = self.excerpt.problem, self._memory
        tail = self._arrays.workflows.size
        futures = self._tuned + self._tested
        marks = MARKS if p.stages.size <= MOST_MARKED else 0
        self.context = c = new_context(
            p, self.excerpt.state, memory.kinds.size, tail, futures, marks
        )
        self._marks: list[StateArrays] = [new_state(p) for _ in range(marks)]
        c.work.mark_states[:] = [state.address for state in self._marks]
        self._futures: list[StateArrays] = [new_state(p) for _ in range(futures)]
        c.work.futures[:] = [future.address for future in self._futures]
        c.work.tuned_on = self._tuned
        c.work.random = self._random
        c.work.several = self._arrays.workflows.size > 1
        c.work.tools = (self._arrays.stages["kind"] == TOOL_STAGE).any()
        self._log = new_log(p.stages.size * p.max_shards, 0)
        self._choices = new_placements(p.stages.size, p.max_shards, p.devices.size)

    @property
    def late(self) -> bool:
        """Whether the deadline of this decision has passed."""
        return self.deadline < np.inf and perf_counter() > self.deadline

    @property
    def following(self) -> int:
        """Work of a play that follows a complete plan, in units of `Workspace`."""
        return int(self.context.start.known_left * self.context.work.stage_work)

    @property
    def choosing(self) -> int:
        """Work of a play in which every stage compares all devices."""
        each = (self._arrays.devices.size + 7) // 8
        return self.following + int(self.context.start.known_left) * each

    @property
    def comparing(self) -> int:
        """Work of comparing a proposal with the best plan (`consider`)."""
        return self.following + (self.choosing if self._continues_by_base else 0)

    @property
    def _continues_by_base(self) -> bool:
        """Whether proposals are also continued by the list schedule."""
        return 2 * self.choosing <= MOST

    @property
    def tested(self) -> int:
        """Number of drawn futures in which changes are tested."""
        return self._tested

    def draw(self) -> None:
        """Draw new futures, so that nothing is tested in a future that it was tuned on."""
        for future in self._futures:
            self.excerpt.sample(future, FIRST_SEED + self._drawn)
            self._drawn += 1

    def update(self, view: DecisionView) -> bool:
        """Adopt the current state of the run; return whether work arrived since the last call."""
        excerpt, c = self.excerpt, self.context
        stages, workflows = excerpt.stages, excerpt.workflows
        self._renumbered = view.excerpt(excerpt)
        if self._renumbered:
            remember(self._memory, stages, workflows, c)
            if c.problem is not excerpt.problem:
                self._random = c.work.random
                self._make_room()
                c = self.context
            recall(self._memory, excerpt.stages, excerpt.workflows, c)
        if not self._sees_hosts:
            self._show_hosts()
        new = self._arrivals.update(view)
        if new:
            self._loads.update(new, self._arrivals.stream)
            self._time.update(new, self._arrivals.stream)
        excerpt.problem.load_seconds[...] = self._loads.seconds
        c.work.devices["toll"] = self._time.tolls
        c.work.work = 0
        prepare(c.problem, c.start, c.work)
        if self.style.objective == TAIL:
            self._past.look_up(view, c.work)
        if self.uncertain:
            self._weigh()
        return bool(new)

    def _show_hosts(self) -> None:
        """Show where ready stages can run, even to a planner that is blind to reachability."""
        p, c = self._arrays, self.context
        for place in c.start.ready[: c.start.ready_count].tolist():
            stage = self.excerpt.stages[place]
            for picture, number in ((self._picture, stage), (c.problem, place)):
                picture.clean_seconds[number] = p.clean_seconds[stage]
                picture.decode_seconds[number] = p.decode_seconds[stage]
            used = c.best.devices[place, : c.best.stages["width"][place]]
            if not np.isfinite(p.clean_seconds[stage, used]).all():
                c.best.stages["width"][place] = 0

    # --- the value of the best plan ---------------------------------------------------------

    def value(self, plan: Plan, bound: float, style: Style) -> float:
        """Compute a plan's objective, inf if above ``bound``; the outcome is in ``played``."""
        return float(value_of(self.context, plan, style, bound))

    def revalue(self, arrived: bool, budget: int) -> float:
        """Return the value of the best plan: the one kept from the last event, or a list schedule.

        A plan keeps its value as long as all goes as planned, so it is played again only if that
        costs little. List schedules propose plans when work has arrived; those that do not fit in
        ``budget`` follow at later events.

        Args:
            arrived: whether work has arrived since the last event.
            budget: work allowed in this decision.
        """
        if arrived:
            self._pending = list(self._offers or self._list_offers())
            budget = budget if self.context.work.several else max(budget, ONCE)
        kept = self._foreseeing and not self._renumbered and not self._loads.lasting
        if kept and not self._pending and self._budget.withdraw(budget, 4 * self.following) == 0:
            return self._kept_value
        self._weigh()
        value = np.inf
        if not self._fresh:
            value = self.value(self.context.best, np.inf, self.style)
            self.take(self.context.played)
        self._fresh = False
        return self._offer_some(value, budget) if self._pending else value

    def _weigh(self) -> None:
        """Set the weights of the objective to the workflows now under way."""
        set_weights(self.context, self.objective, self._deadlines[self.excerpt.workflows])

    def settle(self, value: float) -> None:
        """Record the value of the best plan."""
        self._kept_value = value

    # --- list schedules ---------------------------------------------------------------------

    def _list_offers(self) -> tuple[Offer, ...]:
        """List the sources of plans to try when work arrives."""
        return (*plays_of(self.orders, self.style.shards), *policies_of(self._picture))

    def _offer_some(self, value: float, most_work: int) -> float:
        """Try pending list schedules; return the value of the best plan.

        As many as the work allows, but at least one.
        """
        ws = self.context.work
        start = ws.work
        while self._pending:
            offer = self._pending.pop(0)
            if most_cost_of(offer) * self.choosing > (MOST if ws.several else LARGEST):
                continue
            if isinstance(offer, Base):
                value = self._offer_play(offer, value)
            elif isinstance(offer, str):
                value = self._offer_offline(offer, value)
            else:
                value = self._offer_policy(offer, value)
            if ws.work - start > most_work or self.late:
                break
        return value

    def _offer_policy(self, rules: Rules, value: float) -> float:
        """Try the plan of a list scheduler's rules; take it if it is better than ``value``."""
        c = self.context
        plan_by_rules(c, rules_in(rules, self.excerpt.stages), self._choices, self._log)
        c.work.work += cost_of(rules) * self.choosing
        return self._offer(Base(RANK, int(rules.rule == STRICT), 1), self.style, value)

    def _offer_offline(self, method: Method, value: float) -> float:
        """Try the plan of an offline method, as long as nothing is placed."""
        c = self.context
        if (c.start.stages["status"] >= PLACED).any():
            return value
        _copy(c.draft, c.best)
        plan_offline(c, method)
        return self._offer(Base(RANK, 0, 1), self.style, value)

    def _offer_play(self, base: Base, value: float) -> float:
        """Try one of our list schedules; take its plan if it is better than ``value``."""
        plan_by_order(self.context, base.order, self.context.draft)
        style = self.style._replace(strict=base.strict, shards=base.shards)
        return self._offer(base, style, value)

    def _offer(self, base: Base, style: Style, value: float) -> float:
        """Take the draft, made by list schedule ``base``, if it is better than ``value``."""
        found = self.value(self.context.draft, value, style)
        if found >= value:
            return value
        self.take(self.context.played)
        self._base = base
        self.clear_biases(base.shards)
        return found

    def clear_biases(self, shards: int) -> None:
        """Clear all biases; stages of any kind may spread over ``shards`` devices."""
        prefer_nothing(self.context.biases, shards)
        prefer_nothing(self._memory, shards)

    @property
    def order(self) -> int:
        """The order of the current list schedule."""
        return self._base.order

    def set_order(self, order: int) -> None:
        """Replace the current list schedule by the state-aware one with this order."""
        self._base = Base(order, 0, 1)

    @property
    def base_style(self) -> Style:
        """How the current list schedule is played."""
        return self.style._replace(strict=self._base.strict, biased=1)

    def write_base(self) -> Style:
        """Write the current list schedule to ``base``; return how it is played."""
        c = self.context
        plan_by_order(c, self._base.order, c.base)
        shift_keys(c, c.base)
        return self.base_style

    def take(self, plan: Plan) -> None:
        """Make this the best plan."""
        _copy(self.context.best, plan)

    # --- better plans; each returns the value of the best one ---------------------------------

    def consider(self, placements: Placements, rows: Sequence[int], value: float) -> float:
        """Take placements if continuing after them is better than ``value``; return the new value.

        They are continued by the best plan and, if its play does not cost too much, by the list
        schedule.
        """
        c = self.context
        taken = False
        plans = [(c.best, self.style)]
        if self._continues_by_base:
            plans.insert(0, (c.base, self.write_base()))
        for plan, style in plans:
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
        """Tune the list schedule's biases; under uncertainty in the futures for tuning."""
        plan_by_order(self.context, self._base.order, self.context.base)
        return float(tune(self.context, self.base_style, value, work, heat))

    def improve(self, work: int, heat: float = 0.0) -> float:
        """Improve the plan itself by local search."""
        return float(improve(self.context, self.style, work, heat))

    # --- decisions ----------------------------------------------------------------------------

    def starting(self, view: DecisionView) -> list[Assignment]:
        """Return what the best plan starts now."""
        found = self.planned()
        if not found and not view.can_wait:
            # The plan waits for an event that will not come, so stages choose their own devices.
            unplan(self.context.start, self.context.best)
            found = self.planned()
        return self.in_problem(found)

    def planned(self) -> list[Assignment]:
        """Return what the best plan starts now, with the excerpt's stage numbers."""
        c = self.context
        start_now(c, c.best, self.style, self._choices)
        self.take(c.played)
        return assignments(self._choices, slice(self._choices.count))

    def in_problem(self, found: Sequence[Assignment]) -> list[Assignment]:
        """Convert assignments from the excerpt's stage numbers to the problem's."""
        stages = self.excerpt.stages
        return [replace(one, stage=int(stages[one.stage])) for one in found]


def _copy(target: Plan, source: Plan) -> None:
    target.buffer[:] = source.buffer


def _new_memory(compiled: CompiledProblem, bounded: bool) -> Memory:
    """Create an empty memory and fill in the facts that are known from the start.

    Args:
        compiled: the problem.
        bounded: whether the stages after a stage give a bound on the end of its workflow.
    """
    p = compiled.arrays
    kinds = kind_numbers(p)
    memory = Memory.allocate(
        S=p.stages.size,
        D=p.devices.size,
        K=p.max_shards,
        W=p.workflows.size,
        N=int(kinds.max()) + 1,
    )
    floor = compiled.floor_seconds.min(axis=1)
    floor = np.where(np.isfinite(floor), floor, 0.0)
    memory.facts["floor"] = floor / p.max_shards + compiled.tool_seconds
    memory.facts["kind"] = kinds
    if bounded:
        tails = np.empty(p.stages.size)
        find_tails(p, memory.facts["floor"].copy(), tails)
        memory.facts["tail"] = tails
    memory.alone[:] = np.maximum.reduceat(p.stages["upward_rank"], p.workflows["stages_from"])
    return memory
