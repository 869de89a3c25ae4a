"""List schedulers as policies: EFT, Min-Min, HEFT, PEFT and others are instances of one class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from fate_gym.errors import InputError, near_matches
from fate_gym.kernel.placements import new_placements
from fate_gym.kernel.schema import NO_LOG, LogArrays, ProblemArrays, StateArrays, new_state
from fate_gym.sim import Simulator
from policies.base import Assignment, Candidate, DecisionView, Explanation, assignments
from policies.bounds import MaxShards
from policies.list_scheduling import rules
from policies.list_scheduling.play import decide_instant, play
from policies.list_scheduling.rules import Rules
from policies.list_scheduling.tables import PENALTIES, PRIORITIES

Order = Literal[
    "fcfs",
    "upward_rank",
    "path_through",
    "optimistic_cost",
    "min_min",
    "max_min",
    "sufferage",
    "dynamic_level",
    "fdws",
    "rank_hybd",
]
Device = Literal["earliest_finish", "critical_path", "optimistic_cost", "look_ahead"]
_ORDERS: dict[str, int] = {
    "fcfs": rules.FCFS,
    "upward_rank": rules.UPWARD_RANK,
    "path_through": rules.PRIORITY,
    "optimistic_cost": rules.PRIORITY,
    "min_min": rules.MIN_MIN,
    "max_min": rules.MAX_MIN,
    "sufferage": rules.SUFFERAGE,
    "dynamic_level": rules.DYNAMIC_LEVEL,
    "fdws": rules.FDWS,
    "rank_hybd": rules.RANK_HYBD,
}
_DEVICES = ("earliest_finish", "look_ahead", *PENALTIES)


class InstantPlanner:
    """Decides an instant of a run by `Rules`, in a fork of its state.

    Args:
        p: the problem.
        given: the rules, tables included.

    Attributes:
        rules: as given, with ``shards`` capped at the problem's ``max_shards``.
    """

    def __init__(self, p: ProblemArrays, given: Rules) -> None:
        self.rules = given._replace(shards=min(given.shards, p.max_shards))
        self._choices = new_placements(p.stages.size, p.max_shards, p.devices.size)
        self._scratch = new_state(p)
        self._planned_at = -1

    def done(self, view: DecisionView) -> bool:
        """Whether this instant is already decided: a lazy scheduler decides once per event."""
        return bool(self.rules.lazy) and self._planned_at == view.instant

    def decide(self, view: DecisionView) -> list[Assignment]:
        """Return the placements that the rules commit now."""
        self._planned_at = view.instant
        p, scratch = view.compiled.arrays, view.fork(self._scratch)
        count = decide_instant(p, scratch, NO_LOG, self.rules, self._choices)
        return assignments(self._choices, slice(count))

    def explain(self, view: DecisionView) -> list[Candidate]:
        """Return the values compared now: every device for each stage that is committed.

        The decision is repeated with a table that records them.
        """
        p = view.compiled.arrays
        noted = new_placements(p.stages.size, p.max_shards, p.devices.size, noting=True)
        count = decide_instant(p, view.fork(self._scratch), NO_LOG, self.rules, noted)
        return [
            Candidate(stage, (device,), float(noted.compared[row, device]))
            for row, stage in enumerate(noted.rows["stage"][:count].tolist())
            for device in np.flatnonzero(noted.compared[row] < np.inf).tolist()
        ]

    def play(
        self, p: ProblemArrays, st: StateArrays, log: LogArrays, until: float = np.inf
    ) -> float:
        """Play a state to the end, or until a time; return the last end, seconds."""
        return play(p, st, log, self.rules, self._choices, self._scratch, NO_LOG, until)


class ListScheduler:
    """Orders the ready stages; each takes the device where it ends first, or a variant of that.

    Args:
        name: the policy's name in results.
        order: of the ready stages, renewed at each event: ``fcfs`` (time ready), ``upward_rank``
            (HEFT; Topcuoglu, Hariri & Wu 2002), ``path_through`` (CPOP; the same), ``fdws``
            (Arabnejad, Barbosa & Suter 2014), ``rank_hybd`` (Yu & Shi 2008), ``optimistic_cost``
            (PEFT; Arabnejad & Barbosa 2014); or renewed after each choice: ``min_min`` (Ibarra &
            Kim 1977), ``max_min``, ``sufferage`` (Maheswaran et al. 1999), ``dynamic_level`` (DLS;
            Sih & Lee 1993).
        device: ``earliest_finish``; ``critical_path`` (CPOP: the critical path on one device);
            ``optimistic_cost`` (PEFT: finish + optimistic cost of what comes after);
            ``look_ahead`` (Bittencourt, Sakellariou & Madeira 2010: the children's finish).
        boosted: True: estimate the finish in the current state (residency, prefixes, contexts);
            False: the classical estimate, queue + transfer + clean cost.
        lazy: plan once per event and commit only what starts at once.
        max_shards: most devices that may share a stage; 1 is classical list scheduling.

    Raises:
        InputError: ``order`` or ``device`` is unknown, or the options cannot be combined.
    """

    def __init__(
        self,
        *,
        name: str,
        order: Order,
        device: Device = "earliest_finish",
        boosted: bool = True,
        lazy: bool = False,
        max_shards: MaxShards = 1,
    ) -> None:
        known: tuple[tuple[str, str, Any], ...] = (
            ("order", order, _ORDERS),
            ("device", device, _DEVICES),
        )
        for field, value, names in known:
            if value not in names:
                raise InputError(
                    f"unknown {field} {value!r}",
                    item=f"policy '{name}'",
                    field=f"params.{field}",
                    remedy=near_matches(value, names),
                )
        if device != "earliest_finish" and (max_shards > 1 or _ORDERS[order] >= rules.MIN_MIN):
            raise InputError(
                f"device {device!r} goes with neither shards nor order {order!r}",
                item=f"policy '{name}'",
                field="params.device",
                remedy="use device earliest_finish, or max_shards 1 and an order that is a list",
            )
        self.name = name
        self._priority, self._penalty = None, PENALTIES.get(device)
        if _ORDERS[order] in (rules.PRIORITY, rules.DYNAMIC_LEVEL):
            self._priority = PRIORITIES[order]
        self._quantity = _quantity(device, boosted)
        self._rules = Rules(
            order=_ORDERS[order],
            rule=rules.STATE if boosted else rules.STRICT,
            lazy=int(lazy),
            shards=max_shards,
            ahead=int(device == "look_ahead"),
        )

    def reset(self, view: DecisionView, seed: int) -> None:
        """Make room for plans."""
        self._begin(view.compiled.arrays)

    def decide(self, view: DecisionView) -> Sequence[Assignment]:
        """Place all ready stages, or those that start at once."""
        if self._planner.done(view):
            return []
        self._look_up(view.compiled.arrays, view.arrived)
        return self._planner.decide(view)

    def explain(self, view: DecisionView) -> Explanation:
        """Return the values by which each stage's devices were compared."""
        return Explanation(self._quantity, self._planner.explain(view))

    def play(self, simulator: Simulator) -> float:
        """Play the simulator's whole run in compiled code; return the last end, seconds.

        The schedule is the one that `Simulator.run` gives, without the round trips to Python.
        """
        p = simulator.compiled.arrays
        self._begin(p)
        self._look_up(p, range(p.workflows.size))
        return self._planner.play(p, simulator.state, simulator.log)

    def _begin(self, p: ProblemArrays) -> None:
        shape = p.clean_seconds.shape
        priority = np.zeros(shape[0]) if self._priority else rules.NO_PRIORITY
        penalty = np.zeros(shape) if self._penalty else rules.NO_PENALTY
        self._planner = InstantPlanner(p, self._rules._replace(priority=priority, penalty=penalty))
        self._known = 0

    def _look_up(self, p: ProblemArrays, arrived: Sequence[int]) -> None:
        """Fill the tables for newly arrived workflows."""
        made = self._planner.rules
        for workflow in arrived[self._known :]:
            if self._priority:
                self._priority(p, workflow, made.priority)
            if self._penalty:
                self._penalty(p, workflow, made.penalty)
        self._known = len(arrived)


def _quantity(device: Device, boosted: bool) -> str:
    """Describe the value by which devices are compared."""
    what = {
        "earliest_finish": "expected finish",
        "critical_path": "expected finish, where the critical path allows",
        "optimistic_cost": "expected finish + optimistic cost of what comes after",
        "look_ahead": "latest expected finish of the stage's children",
    }
    return f"{what[device]}, {'in the state' if boosted else 'queue + transfer + clean cost'}, s"
