"""List schedulers as policies: EFT, Min-Min, HEFT, PEFT and kin are instances of one class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from fate_gym.errors import InputError, near_matches
from fate_gym.sim import Simulator
from fate_gym.sim.layout import NO_LOG, Buffer, ProblemView
from policies.base import Assignment, DecisionView
from policies.list_core import (
    DYNAMIC_LEVEL,
    FCFS,
    FDWS,
    MAX_MIN,
    MIN_MIN,
    NO_PENALTY,
    NO_PRIORITY,
    PRIORITY,
    RANK_HYBD,
    STATE,
    STRICT,
    SUFFERAGE,
    UPWARD_RANK,
    Choices,
    Rules,
    decide_instant,
    make_choices,
    play,
)
from policies.list_tables import (
    critical_path_device,
    dynamic_levels,
    optimistic_costs,
    paths_through,
)

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
    "fcfs": FCFS,
    "upward_rank": UPWARD_RANK,
    "path_through": PRIORITY,
    "optimistic_cost": PRIORITY,
    "min_min": MIN_MIN,
    "max_min": MAX_MIN,
    "sufferage": SUFFERAGE,
    "dynamic_level": DYNAMIC_LEVEL,
    "fdws": FDWS,
    "rank_hybd": RANK_HYBD,
}
_DEVICES = ("earliest_finish", "critical_path", "optimistic_cost", "look_ahead")
_RENEWED = ("min_min", "max_min", "sufferage", "dynamic_level")


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
        boosted: the finish is estimated in the state (residency, prefixes, contexts). Otherwise
            the classical way: queue + transfer + clean cost.
        lazy: one plan an event, of which only what starts at once is committed.
        max_shards: devices that may share a stage; 1 is classical list scheduling.
    """

    def __init__(
        self,
        *,
        name: str,
        order: Order,
        device: Device = "earliest_finish",
        boosted: bool = True,
        lazy: bool = False,
        max_shards: int = 1,
    ) -> None:
        for field, value, known in (("order", order, _ORDERS), ("device", device, _DEVICES)):
            if value not in known:
                raise InputError(
                    f"unknown {field} {value!r}",
                    item=f"policy '{name}'",
                    field=f"params.{field}",
                    remedy=near_matches(value, known),
                )
        if device != "earliest_finish" and (max_shards > 1 or order in _RENEWED):
            raise InputError(
                f"device {device!r} goes with neither shards nor order {order!r}",
                item=f"policy '{name}'",
                field="params.device",
                remedy="use device earliest_finish, or max_shards 1 and an order that is a list",
            )
        self.name = name
        self._order, self._device = order, device
        self._rules = (
            _ORDERS[order],
            STATE if boosted else STRICT,
            int(lazy),
            max_shards,
            int(device == "look_ahead"),
        )
        self._scratch: Buffer | None = None
        self._planned_at = -1

    def reset(self, view: DecisionView, seed: int) -> None:
        """Make room for plans."""
        self._prepare(view.compiled.view)
        self._scratch = None
        self._planned_at = -1

    def decide(self, view: DecisionView) -> Sequence[Assignment]:
        """Place all ready stages, or those that start at once."""
        if self._planned_at == view.instant:
            return []
        if self._bounded.lazy:
            self._planned_at = view.instant
        problem = view.compiled.buffer
        self._look_up(problem, view.arrived)
        self._scratch = view.fork(self._scratch)
        noted = decide_instant(problem, self._scratch, NO_LOG, self._bounded, self._choices)
        return read_choices(self._choices, noted)

    def play(self, simulator: Simulator) -> float:
        """Play the simulator's whole run in compiled code; returns the last end.

        The schedule is the one that `Simulator.run` gives, without the round trips to Python.
        """
        p = simulator.compiled.view
        self._prepare(p)
        self._look_up(simulator.compiled.buffer, p.arrivals.tolist())
        scratch = np.zeros(simulator.compiled.state_bytes, np.uint8)
        return simulator.play(
            lambda problem, state, log: play(
                problem, state, log, self._bounded, self._choices, scratch
            )
        )

    def _prepare(self, p: ProblemView) -> None:
        stages, devices = p.clean_seconds.shape
        shards = int(p.head[0]["max_shards"])
        order, rule, lazy, most, ahead = self._rules
        ordered = order in (PRIORITY, DYNAMIC_LEVEL)
        penalised = self._device in ("critical_path", "optimistic_cost")
        self._bounded = Rules(
            order,
            rule,
            lazy,
            min(most, shards),
            ahead,
            np.zeros(stages) if ordered else NO_PRIORITY,
            np.zeros((stages, devices)) if penalised else NO_PENALTY,
        )
        self._room = np.zeros(stages), np.zeros((stages, devices))
        self._choices = make_choices(stages, shards)
        self._known = 0

    def _look_up(self, problem: Buffer, arrived: Sequence[int]) -> None:
        """Fill the tables for the workflows that are new."""
        for workflow in arrived[self._known :]:
            priority = self._bounded.priority if self._bounded.priority.size else self._room[0]
            penalty = self._bounded.penalty if self._bounded.penalty.size else self._room[1]
            if "optimistic_cost" in (self._order, self._device):
                optimistic_costs(problem, workflow, priority, penalty)
            if self._order == "path_through":
                paths_through(problem, workflow, priority)
            if self._order == "dynamic_level":
                dynamic_levels(problem, workflow, priority)
            if self._device == "critical_path":
                critical_path_device(problem, workflow, penalty)
        self._known = len(arrived)


def read_choices(choices: Choices, noted: int) -> list[Assignment]:
    """The first ``noted`` choices as assignments."""
    assignments = []
    for i in range(noted):
        width = int(choices.width[i])
        devices = tuple(choices.devices[i, :width].tolist())
        counts = tuple(choices.counts[i, :width].tolist()) if width > 1 else None
        assignments.append(Assignment(int(choices.stage[i]), devices, counts))
    return assignments
