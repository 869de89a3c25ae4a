"""A proxy of Murakkab: each epoch an integer program buys the cheapest sufficient replicas."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fate_gym.jit import FloatMatrix, Floats, IntMatrix, Ints, inlined, kernel
from policies.base import DecisionView, OneAtATime
from policies.bounds import Period, PositiveWeight, Share
from policies.proxies.base import least, profile

MOST_SPLITS = 600
"""Most combinations of device counts by kind for which the program is solved by enumeration."""


class Murakkab(OneAtATime):
    """First come, first served, to the least loaded replica of the stage's model.

    Source: Chaudhry et al., "Murakkab: Resource-Efficient Agentic Workflow Orchestration in Cloud
    Platforms" (arXiv 2508.18298).

    Taken: every epoch an integer program chooses how many replicas of each model run on each kind
    of device, so that they carry the expected demand with 15 % to spare at the least cost; the
    expectation is a moving average of the incoming work (weight 0.5).

    A replica carries its profiled throughput: on batching devices that of the largest batches that
    fit in memory, on exclusive ones that of stages one by one.

    Inferred: the length of the epoch; a device runs one replica; devices of one kind have equal
    price and equal speeds; demand that is not carried costs more than any device; within a kind,
    devices that hosted the model before stay. A model that first appears within an epoch starts a
    new one. The router's load of a replica is the profiled seconds of the work it sent there,
    less the time that has passed.

    Sees neither the position in the graph, prefixes nor queues.

    Args:
        name: the policy's name in results.
        epoch: length of an epoch, seconds.
        headroom: ratio of capacity to expected demand.
        weight: weight of the last epoch in the moving average.
        boosted: keep the replicas, but choose among them by EFT*.
    """

    def __init__(
        self,
        *,
        name: str = "murakkab",
        epoch: Period = 30.0,
        headroom: PositiveWeight = 1.15,
        weight: Share = 0.5,
        boosted: bool = False,
    ) -> None:
        self.name = name
        self._epoch, self._headroom, self._weight = epoch, headroom, weight
        self._boosted = boosted

    def reset(self, view: DecisionView, seed: int) -> None:
        """Start without replicas."""
        self._until = -np.inf
        self._came: dict[int, float] = {}  # work of this epoch
        self._demand: dict[int, float] = {}  # work per second
        self._speed: dict[int, NDArray[np.float64]] = {}
        self._hosts: dict[int, NDArray[np.int64]] = {}
        self._busy = np.zeros(view.devices)  # busy until, by the router's estimate
        self._counted: set[int] = set()

    def choose(self, view: DecisionView, stage: int) -> int:
        for other in view.ready:
            if other not in self._counted:
                self._counted.add(other)
                self._count(view, other)
        model = view.request(stage).model
        if view.now >= self._until or model not in self._hosts:
            self._plan(view)
        eligible = view.eligible(stage)
        hosts = self._hosts[model]
        replicas = eligible[np.isin(eligible, hosts)]
        if replicas.size == 0:
            replicas = eligible
        if self._boosted:
            return least(view.end_estimates(stage), replicas)
        self._busy = np.maximum(self._busy, view.now)
        device = least(self._busy, replicas)
        self._busy[device] += profile(view, stage)[device]
        return device

    def _count(self, view: DecisionView, stage: int) -> None:
        seconds = profile(view, stage)
        able = seconds < np.inf
        work = float(seconds[able].mean())
        model = view.request(stage).model
        self._came[model] = self._came.get(model, 0.0) + work
        speed = np.where(able, work / np.maximum(seconds, 1e-9), 0.0)
        self._speed[model] = np.maximum(self._speed.get(model, 0.0), speed)

    def _plan(self, view: DecisionView) -> None:
        self._until = view.now + self._epoch
        for model in self._speed:
            rate = self._came.get(model, 0.0) / self._epoch
            before = self._demand.get(model, rate)
            self._demand[model] = self._weight * rate + (1.0 - self._weight) * before
        self._came = {}
        models = list(self._speed)
        speed = np.array([self._speed[model] for model in models])
        price = np.maximum(view.usd_per_hour(), 0.01)
        kinds, kind_of = np.unique(np.vstack([price, speed]).T, axis=0, return_inverse=True)
        counts = np.bincount(kind_of.ravel())
        demand = np.array([self._demand[model] for model in models]) * self._headroom
        rates, prices = (np.ascontiguousarray(a) for a in (kinds[:, 1:].T, kinds[:, 0]))
        replicas = fewest_replicas(replica_program(demand, rates, prices, counts))
        free = [np.flatnonzero(kind_of.ravel() == kind).tolist() for kind in range(counts.size)]
        hosts: dict[int, list[int]] = {}
        for stay in (True, False):
            for m, model in enumerate(models):
                mine = hosts.setdefault(model, [])
                for kind in range(counts.size):
                    have = sum(device in mine for device in np.flatnonzero(kind_of == kind))
                    for device in list(free[kind]):
                        if have >= replicas[m, kind]:
                            break
                        if not stay or device in self._hosts.get(model, ()):
                            free[kind].remove(device)
                            mine.append(device)
                            have += 1
        self._hosts = {model: np.array(mine, np.int64) for model, mine in hosts.items()}


class Program(NamedTuple):
    """The integer program that decides which replicas to buy, for M models on C kinds of device.

        minimise   price of the replicas
                   + penalties for demand not carried and, larger, for models without any
        subject to replicas of a model carry its demand, and each model has at least one
                   no more replicas on a kind than there are devices of it

    Attributes:
        demand: (M,) work per second.
        speed: (M, C) work per second of a replica; 0: the kind cannot run the model.
        price: (C,) price of a device of each kind.
        counts: (C,) number of devices of each kind.
        penalty: penalty per unit of demand that is not carried.
        without: penalty for a model without a replica.
    """

    demand: Floats
    speed: FloatMatrix
    price: Floats
    counts: Ints
    penalty: float
    without: float


def replica_program(demand: Floats, speed: FloatMatrix, price: Floats, counts: Ints) -> Program:
    """Make a program with penalties that no price outweighs."""
    penalty = 100.0 * float((price * counts).sum())
    return Program(demand, speed, price, counts, penalty, penalty * (1.0 + float(demand.sum())))


def fewest_replicas(program: Program) -> IntMatrix:
    """Solve for the replicas (M, C) of each model on each kind of device."""
    if np.prod(program.counts + 1.0) <= MOST_SPLITS:
        return enumerate_replicas(program)
    return solve_replicas(program)


def enumerate_replicas(program: Program) -> IntMatrix:
    """Find the optimum by dynamic programming over the devices left for later models.

    A state encodes how many devices of each kind are left, in mixed radix. Much faster than a
    solver while there are few states.
    """
    sizes = program.counts + 1
    states = np.arange(np.prod(sizes))
    digits = np.stack(np.unravel_index(states, tuple(sizes), order="F"), axis=1)
    choice = np.zeros((program.demand.size, states.size), np.int64)
    choose_states(program, np.ascontiguousarray(digits), choice)
    replicas, left = np.zeros(program.speed.shape, np.int64), states[-1]
    for m in range(program.demand.size):
        replicas[m] = digits[choice[m, left]]
        left -= choice[m, left]
    return replicas


@kernel
def choose_states(program: Program, digits: IntMatrix, choice: IntMatrix) -> None:
    """Fill ``choice`` (M, states): the devices, as a state, that a model gets from those left.

    ``digits`` (states, C) are the numbers of devices of each kind.
    """
    models, states = choice.shape
    cost, own = np.zeros((models + 1, states)), np.empty(states)
    for m in range(models - 1, -1, -1):
        for b in range(states):
            own[b] = _replicas_cost(program, m, digits[b])
        for a in range(states):
            cost[m, a] = np.inf
            for b in range(a + 1):
                if own[b] >= cost[m, a]:
                    continue
                within = True
                for c in range(digits.shape[1]):
                    within = within and digits[b, c] <= digits[a, c]
                # With every digit of b <= that of a, nothing borrows: a - b encodes what is left.
                if within and own[b] + cost[m + 1, a - b] < cost[m, a]:
                    cost[m, a] = own[b] + cost[m + 1, a - b]
                    choice[m, a] = b


@inlined
def _replicas_cost(program: Program, m: int, replicas: Ints) -> float:
    """Price and penalties of one model's replicas; inf: some are on a kind that cannot run it."""
    cost, carried, able = 0.0, 0.0, False
    for c in range(replicas.size):
        carried += program.speed[m, c] * replicas[c]
        cost += program.price[c] * replicas[c]
        able = able or (program.speed[m, c] > 0.0 and replicas[c] > 0)
        if program.speed[m, c] == 0.0 and replicas[c] > 0:
            cost = np.inf
    cost += program.penalty * max(0.0, program.demand[m] - carried)
    return cost if able else cost + program.without


def solve_replicas(program: Program) -> IntMatrix:
    """Solve by HiGHS, to within 1 % of the optimum."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    demand, speed, price, counts, penalty, without = program
    models, kinds = speed.shape
    number = models * kinds
    # Variables: replicas, then demand not carried (M), then models without a replica (M).
    objective = np.r_[np.tile(price, models), np.full(models, penalty), np.full(models, without)]
    rows = np.zeros((2 * models + kinds, number + 2 * models))
    for m in range(models):
        mine = slice(m * kinds, (m + 1) * kinds)
        rows[m, mine] = speed[m]
        rows[m, number + m] = 1.0
        rows[models + m, mine] = speed[m] > 0.0
        rows[models + m, number + models + m] = 1.0
    for c in range(kinds):
        rows[2 * models + c, c:number:kinds] = 1.0
    low = np.r_[demand, np.ones(models), np.full(kinds, -np.inf)]
    high = np.r_[np.full(2 * models, np.inf), counts]
    most = np.where(speed > 0.0, counts, 0).ravel()
    result = milp(
        objective,
        constraints=LinearConstraint(rows, low, high),
        integrality=np.r_[np.ones(number), np.zeros(2 * models)],
        bounds=Bounds(0.0, np.r_[most, np.full(2 * models, np.inf)]),
        options={"mip_rel_gap": 0.01, "node_limit": 200},
    )
    if result.x is None:  # no solution found in time: allow every model on every kind
        return np.where(speed > 0.0, counts, 0)
    return np.rint(result.x[:number]).astype(np.int64).reshape(models, kinds)
