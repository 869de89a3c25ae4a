"""Lower bounds on makespan and latency that no schedule of the execution model can beat.

They all rest on a *rate floor* ``f(v, d)``, seconds, with one property: a shard of ``n`` of the
``N`` queries of stage ``v`` keeps device ``d`` busy for at least ``n / N · f(v, d)``, whatever is
cached. Prefill and decode of all ``N`` queries at once do not have this property: where memory
limits a wave to ``b`` queries, ``N = b + 1`` queries pay for a second, almost empty wave, which two
shards need not. With ``m = min(N, b)`` the property holds for

    f = prefill(N queries, all that can be cached is cached) + o · N · step(m) / m

because a step costs less per query the more queries share it (fixed costs, and weights that are
read once). A stage that cannot be split needs no such care: its true seconds are a floor.

**Work bound.** On unrelated machines with fractional splitting, the least ``T`` for which every
stage is fully assigned and no device is busy for longer than ``T`` (the linear relaxation of
R || Cmax; Lawler and Labetoulle 1978, Lenstra, Shmoys and Tardos 1990). Loads count too: a device
that runs any part of a stage of model ``m`` has loaded ``m`` at least once, since nothing is
resident at the start. So the fractions ``x(v, d) ≤ 1`` of the ``c(m)`` stages of ``m`` satisfy
``load(m, d) · Σ x(v, d) / c(m) ≤ seconds that d spends on loading m``, and each stage may be
charged ``load(m, d) / c(m)`` on top of its floor.

By duality every vector of device prices ``w ≥ 0`` with ``Σ w = 1`` gives the bound
``Σ_v min_d w(d) · cost(v, d)``: in any schedule, ``T = Σ_d w(d) T ≥ Σ_d w(d) busy(d) ≥`` that sum.
The solver only provides the best prices, and the bound is computed from them: a loose tolerance
of the solver, or rounded costs, can weaken the bound but never make it wrong.

**Critical path.** A stage starts to run when its parents have ended, its workflow has arrived, and
its model has been loaded where it runs. The load belongs to a shard of some stage of the same
model, which was ready by then: with ``R(m)`` a lower bound on when the first stage of ``m`` is
ready, no shard on ``d`` starts prefill before ``R(m) + load(m, d)``. Starting from the first
arrival, earliest times and ``R`` are computed alternately; each round keeps them lower bounds. A
workflow that follows another arrives no earlier than the bound on that one's end, plus the think
time. When it actually arrives, other workflows may have loaded its models: its latency is bounded
by its longest path without loads. Over ``k`` devices a stage takes at least ``1 / Σ 1/f(v, d)``
over its ``k`` fastest devices, plus ``(k - 1) · gather``: if all shards ended earlier, fewer than
``N`` queries would have run.

**Window bound.** Both at once. Take the stages that cannot be ready before ``r`` and whose ends lie
at least ``q`` before the last end, because that much has to follow on some path after them. Their
shards, loads included, run between ``r`` and ``T - q``, so ``T ≥ r + q +`` the work bound of these
stages alone. A load counts only if *all* stages of its model are among them, since otherwise
another stage may have caused it before ``r``. Any ``r`` and ``q`` give a bound; a sample of the
stages' own values is tried with the prices of the work bound, and the best pair gets new prices.

On batching devices stages share iterations, whose cost per token falls with their number: there the
rate floor bounds a stage's own time, not the device's, and only the critical path is a bound.

Transfers, waiting, evictions and failures are left out: they only add time. Stages that vanish
are left out with their edges. With noise on durations or lengths the bounds would hold for the
estimates, not for actual times; `problem_bounds` then returns NaN.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array

from fate_gym.errors import FateGymError
from fate_gym.metrics.arrays import Bools, Floats, Ints

if TYPE_CHECKING:
    from fate_gym.sim import CompiledProblem

_MOST_PATTERNS = 300
_PATTERN_STEP = 0.02
_LARGEST_RATIO = 1e9
_MOST_EDGES = 12
"""Most starts, and most ends, of the windows that are tried."""


@dataclass(frozen=True)
class LowerBounds:
    """Lower bounds, seconds. NaN: durations are noisy and no bound holds.

    Attributes:
        work: least time in which the devices can do the work, counted from the first arrival; NaN
            on batching devices.
        critical_path: least time for the longest path, counted likewise.
        window: least time that combines the two, over the stages inside a window and the paths
            before and after it; counted likewise, NaN on batching devices.
        makespan: the largest of the three.
        latency: (W,) from the arrival of each workflow to its end.
    """

    work: float
    critical_path: float
    window: float
    makespan: float
    latency: Floats


@dataclass(frozen=True)
class BoundInputs:
    """The data from which a problem's bounds follow; seconds.

    Attributes:
        floor_seconds: (S, D) rate floors; inf where not eligible, a row of inf is a tool stage.
        tool_seconds: (S,) seconds of tool stages; other entries are not read.
        load_seconds: (M, D) seconds to load each model.
        model_of: (S,) model of each stage, -1 if it has none.
        workflow_of: (S,) workflow of each stage.
        arrival: (W,) earliest arrival of each workflow.
        follows: (W,) the workflow that has to end first, -1 if there is none.
        think_seconds: (W,) from the end of that workflow to the arrival.
        edge_parent: (E,) stage that an edge leaves.
        edge_child: (E,) stage that it enters.
        most_shards: (S,) devices that may share each stage.
        gather_seconds: added to a stage for every shard beyond the first.
        batching: devices run many shards at once.
    """

    floor_seconds: Floats
    tool_seconds: Floats
    load_seconds: Floats
    model_of: Ints
    workflow_of: Ints
    arrival: Floats
    follows: Ints
    think_seconds: Floats
    edge_parent: Ints
    edge_child: Ints
    most_shards: Ints
    gather_seconds: float = 0.0
    batching: bool = False

    @property
    def first_arrival(self) -> float:
        """The first arrival of all workflows."""
        return float(self.arrival[self.follows < 0].min())

    @property
    def usable(self) -> Bools:
        """(S, D) whether a device can run a stage."""
        return np.isfinite(self.floor_seconds)

    @property
    def loads(self) -> Floats:
        """(S, D) seconds to load the model of each stage; 0 without a model."""
        none = np.zeros((1, self.load_seconds.shape[1]))
        return np.asarray(np.vstack([self.load_seconds, none])[self.model_of])


def problem_bounds(compiled: CompiledProblem, vanished: Bools | None = None) -> LowerBounds:
    """Return lower bounds on the makespan and the latencies of a compiled problem, seconds.

    All are NaN if the problem's durations or lengths are uncertain.

    Args:
        compiled: the problem.
        vanished: (S,) stages that vanish in the run to be bounded (`Trace.stage_vanished`);
            None: every stage that may vanish, which bounds every run.
    """
    problem = compiled.problem
    load_seconds = compiled.load_seconds
    if vanished is None:
        vanished = compiled.arrays.stages["chooser"] >= 0
        # One that lives after all may have loaded its model, for others too.
        load_seconds = load_seconds.copy()
        load_seconds[compiled.model_of[vanished & (compiled.model_of >= 0)]] = 0.0
    if problem.options.uncertainty > 0 or problem.options.length_uncertainty > 0:
        nan = float("nan")
        return LowerBounds(nan, nan, nan, nan, np.full(len(problem.workflows), nan))
    # Treat a vanished stage as an isolated tool that takes no time.
    lives = ~vanished
    edges = lives[compiled.edge_parent] & lives[compiled.edge_child]
    return lower_bounds(
        BoundInputs(
            floor_seconds=np.where(lives[:, None], compiled.floor_seconds, np.inf),
            tool_seconds=np.where(lives, compiled.tool_seconds, 0.0),
            load_seconds=load_seconds,
            model_of=np.where(lives, compiled.model_of, -1),
            workflow_of=compiled.workflow_of,
            arrival=compiled.arrays.workflows["arrival"],
            follows=compiled.follows,
            think_seconds=compiled.arrays.workflows["think_s"],
            edge_parent=compiled.edge_parent[edges],
            edge_child=compiled.edge_child[edges],
            most_shards=np.minimum(compiled.arrays.stages["queries"], problem.options.max_shards),
            gather_seconds=compiled.arrays.gather_s,
            batching=bool(compiled.arrays.batching),
        )
    )


def lower_bounds(inputs: BoundInputs) -> LowerBounds:
    """Return lower bounds on the makespan and the latencies, seconds."""
    ready, end = earliest_times(inputs)
    latency = _latencies(inputs, end)
    critical_path = float(end.max()) - inputs.first_arrival
    if inputs.batching:
        nan = float("nan")
        return LowerBounds(nan, critical_path, nan, critical_path, latency)
    charges, own, prices = _charges(inputs)
    shares = np.bincount(inputs.workflow_of, weights=own, minlength=latency.size)
    latency = np.maximum(latency, shares)
    work = float(charges.sum())
    window = _window_bound(inputs, ready - inputs.first_arrival, prices)
    makespan = max(work, critical_path, window)
    if len(latency) == 1:
        latency = np.maximum(latency, makespan)
    return LowerBounds(work, critical_path, window, makespan, latency)


def _latencies(inputs: BoundInputs, end: Floats) -> Floats:
    """Return (W,) bounds on each workflow's latency from the bounds on the ends of stages."""
    latency, alone = np.zeros(len(inputs.arrival)), np.zeros(len(inputs.arrival))
    np.maximum.at(latency, inputs.workflow_of, end - inputs.arrival[inputs.workflow_of])
    later = inputs.follows >= 0
    if later.any():
        unloaded = replace(
            inputs,
            load_seconds=np.zeros_like(inputs.load_seconds),
            arrival=np.zeros_like(inputs.arrival),
            follows=np.full_like(inputs.follows, -1),
        )
        np.maximum.at(alone, inputs.workflow_of, earliest_times(unloaded)[1])
    return np.where(later, alone, latency)


def _charges(inputs: BoundInputs) -> tuple[Floats, Floats, Floats]:
    """Return (S,) charges at the best prices, the same if only its workflow runs, (D,) prices."""
    floor = inputs.floor_seconds
    on_device = inputs.usable.any(axis=1)
    costs = floor + _load_shares(inputs, np.ones(len(floor), dtype=bool))
    prices = device_prices(costs[on_device])
    charges, bare = np.zeros(len(costs)), np.zeros(len(costs))
    charges[on_device] = priced_work(costs[on_device], prices)
    bare[on_device] = priced_work(floor[on_device], prices)

    # A later workflow may find models that others have loaded: it is charged only for its work.
    first = (inputs.follows < 0) & (inputs.arrival == inputs.first_arrival)
    return charges, np.where(first[inputs.workflow_of], charges, bare), prices


def _window_bound(inputs: BoundInputs, ready: Floats, prices: Floats) -> float:
    """Return the best window bound; ``ready`` (S,) counts from the first arrival."""
    on_device: Bools = np.asarray(inputs.usable.any(axis=1))
    if not on_device.any():
        return 0.0
    tail = _tails(inputs)
    floor = inputs.floor_seconds
    loaded = np.add(floor, _load_shares(inputs, on_device))
    bare, full = np.zeros(len(ready)), np.zeros(len(ready))
    bare[on_device] = priced_work(floor[on_device], prices)
    full[on_device] = priced_work(loaded[on_device], prices)
    best, chosen = 0.0, on_device
    for first in _thinned(ready[on_device]):
        for last in _thinned(tail[on_device]):
            inside = on_device & (ready >= first) & (tail >= last)
            if not inside.any():
                break
            whole = _whole_models(inputs, inside, on_device)
            bound = first + last + float(np.where(whole, full, bare)[inside].sum())
            if bound > best:
                best, chosen = bound, inside
    whole = _whole_models(inputs, chosen, on_device)
    costs = np.where(whole[:, None], loaded, floor)[chosen]
    edges = float(ready[chosen].min() + tail[chosen].min())
    return max(best, edges + work_bound(costs))


def _load_shares(inputs: BoundInputs, counted: Bools) -> Floats:
    """Return (S, D) the load of a stage's model, split over the counted stages of that model."""
    model_of = np.where(counted, inputs.model_of, -1)
    in_model = np.bincount(model_of[model_of >= 0], minlength=len(inputs.load_seconds) + 1)
    share = np.divide(1.0, in_model[model_of], where=model_of >= 0, out=np.zeros(len(model_of)))
    return np.asarray(share[:, None] * inputs.loads)


def _whole_models(inputs: BoundInputs, inside: Bools, on_device: Bools) -> Bools:
    """Return (S,) stages inside, all of whose model's stages are inside."""
    outside = np.zeros(len(inputs.load_seconds) + 1, dtype=bool)
    outside[inputs.model_of[on_device & ~inside]] = True
    return np.asarray(inside & ~outside[inputs.model_of])


def _thinned(values: Floats) -> Floats:
    """Return the distinct values, or `_MOST_EDGES` of them."""
    distinct = np.unique(values)
    if len(distinct) <= _MOST_EDGES:
        return distinct
    return distinct[np.linspace(0, len(distinct) - 1, _MOST_EDGES).round().astype(np.int64)]


def _tails(inputs: BoundInputs) -> Floats:
    """Return (S,) the least seconds on a path from the end of each stage to the last end."""
    usable, split = inputs.usable, _split_seconds(inputs)
    whole = np.where(usable, inputs.floor_seconds, np.inf).min(axis=1)
    own = np.where(usable.any(axis=1), np.minimum(whole, split), inputs.tool_seconds)
    tail = np.zeros(len(own))
    for _, into in reversed(_steps(inputs)):
        child = inputs.edge_child[into]
        np.maximum.at(tail, inputs.edge_parent[into], own[child] + tail[child])
    return tail


def work_bound(costs: Floats) -> float:
    """Return the least time in which the devices can do all rows, split arbitrarily finely.

    Args:
        costs: (R, D) seconds of row r if device d does all of it; inf where it cannot.
    """
    return float(priced_work(costs, device_prices(costs)).sum())


def priced_work(costs: Floats, prices: Floats) -> Floats:
    """Return (R,) seconds: the least price × cost of each row (see the module's proof)."""
    finite = np.isfinite(costs)
    priced = np.where(finite, np.where(finite, costs, 0.0) * prices, np.inf)
    return np.asarray(priced.min(axis=1))


def device_prices(costs: Floats) -> Floats:
    """Return (D,) prices, non-negative with sum 1, that maximise `priced_work`.

    To keep the linear program small, equal columns are merged into one machine type, and rows that
    are multiples of each other into one row. Beyond a few hundred distinct rows, rows within 2 % of
    each other count as multiples too: the prices are then nearly the best.

    Args:
        costs: (R, D) seconds; inf where a device cannot do the row. Rows have a finite entry.

    Raises:
        FateGymError: the solver failed.
    """
    devices = costs.shape[1]
    types, type_of, count = np.unique(costs, axis=1, return_inverse=True, return_counts=True)
    type_of = type_of.reshape(devices)
    best = types.min(axis=1, initial=np.inf)
    # A row that costs nothing on some device, or next to nothing, does not matter.
    kept = best > best.max(initial=0.0) / 1e12
    types, best = types[kept], best[kept]
    if not len(types):
        return np.full(devices, 1.0 / devices)
    # The solver treats 1e20 as infinite. Prices for rounded costs are still valid prices.
    with np.errstate(over="ignore"):
        ratio = types / best[:, None]
    ratio[np.isfinite(types)] = np.minimum(ratio[np.isfinite(types)], _LARGEST_RATIO)
    patterns, pattern_of = np.unique(ratio, axis=0, return_inverse=True)
    if len(patterns) > _MOST_PATTERNS:
        rounded = np.round(np.log(ratio) / _PATTERN_STEP)
        patterns, pattern_of = np.unique(rounded, axis=0, return_inverse=True)
        patterns = np.exp(patterns * _PATTERN_STEP)
    weight = np.bincount(pattern_of.reshape(-1), weights=best, minlength=len(patterns))
    prices = _type_prices(patterns * (weight / weight.sum())[:, None], count)
    return np.asarray(prices[type_of])


def _type_prices(costs: Floats, count: Ints) -> Floats:
    """Return the dual prices of the program for the least T.

    Each row is fully assigned; ``costs`` on type g sum to at most ``count[g] · T``.
    """
    rows, types = costs.shape
    row, kind = np.nonzero(np.isfinite(costs))
    n = len(row)
    one = np.arange(n)
    objective = np.zeros(n + 1)
    objective[n] = 1.0
    all_dealt = csr_array((np.ones(n), (row, one)), shape=(rows, n + 1))
    value = np.concatenate([costs[row, kind], -count.astype(np.float64)])
    at = (np.concatenate([kind, np.arange(types)]), np.concatenate([one, np.full(types, n)]))
    none_over = csr_array((value, at), shape=(types, n + 1))
    result = linprog(
        objective,
        A_ub=none_over,
        b_ub=np.zeros(types),
        A_eq=all_dealt,
        b_eq=np.ones(rows),
        method="highs-ds",
    )
    if result.status != 0:
        raise FateGymError(f"the linear program of the work bound failed: {result.message}")
    prices = np.maximum(-result.ineqlin.marginals, 0.0)
    return np.asarray(prices / (prices @ count))


def earliest_times(inputs: BoundInputs) -> tuple[Floats, Floats]:
    """Return (S,) lower bounds on when each stage is ready, and on when it ends, seconds."""
    floor, loads, model_of = inputs.floor_seconds, inputs.loads, inputs.model_of
    parent, child, usable = inputs.edge_parent, inputs.edge_child, inputs.usable
    split = _split_seconds(inputs)
    steps = _steps(inputs)
    models = int(model_of.max()) + 1
    # The last entry is for stages without a model (number -1): nothing has to be loaded.
    model_ready = np.append(np.full(models, inputs.first_arrival), -np.inf)
    for _ in range(models + 1):
        ready, end = np.zeros(len(floor)), np.zeros(len(floor))
        # The last entry is for workflows that follow no other (number -1).
        over = np.full(len(inputs.arrival) + 1, -np.inf)
        for here, into in steps:
            flow = inputs.workflow_of[here]
            thought = over[inputs.follows[flow]] + inputs.think_seconds[flow]
            ready[here] = np.maximum(inputs.arrival[flow], thought)
            np.maximum.at(ready, child[into], end[parent[into]])
            begin = np.maximum(ready[here, None], model_ready[model_of[here], None] + loads[here])
            whole = (begin + floor[here]).min(axis=1)
            shared = np.where(usable[here], begin, np.inf).min(axis=1) + split[here]
            alone = ready[here] + inputs.tool_seconds[here]
            end[here] = np.where(usable[here].any(axis=1), np.minimum(whole, shared), alone)
            np.maximum.at(over, flow, end[here])
        before, model_ready = model_ready, np.full(models + 1, np.inf)
        np.minimum.at(model_ready, model_of, ready)
        model_ready[-1] = -np.inf
        if np.array_equal(model_ready, before):
            break
    return ready, end


def _steps(inputs: BoundInputs) -> list[tuple[Ints, Ints]]:
    """Return, in order, groups of stages to process together, with the edges into them."""
    later = np.flatnonzero(inputs.follows >= 0)
    turn = _levels(len(inputs.arrival), inputs.follows[later], later)
    stages = len(inputs.workflow_of)
    level = _levels(stages, inputs.edge_parent, inputs.edge_child)
    step = np.unique(turn[inputs.workflow_of] * stages + level, return_inverse=True)[1].reshape(-1)
    count = int(step.max()) + 1
    return list(zip(_groups(step, count), _groups(step[inputs.edge_child], count), strict=True))


def _groups(key: Ints, count: int) -> list[Ints]:
    """Return the positions of the keys 0, 1, ..., ``count`` - 1."""
    ends = np.cumsum(np.bincount(key, minlength=count))
    return np.split(np.argsort(key, kind="stable"), ends[:-1])


def _split_seconds(inputs: BoundInputs) -> Floats:
    """Return (S,) the least seconds of each stage over two or more devices; inf: no split."""
    with np.errstate(divide="ignore", over="ignore"):
        speed = np.where(inputs.usable, 1.0 / inputs.floor_seconds, 0.0)
        shards = np.arange(1, speed.shape[1] + 1)
        together = np.cumsum(np.sort(speed, axis=1)[:, ::-1], axis=1)
        seconds = 1.0 / together + (shards - 1) * inputs.gather_seconds
    most = np.minimum(inputs.most_shards, inputs.usable.sum(axis=1))
    allowed = (shards >= 2) & (shards <= most[:, None])
    return np.asarray(np.where(allowed, seconds, np.inf).min(axis=1))


def _levels(stages: int, edge_parent: Ints, edge_child: Ints) -> Ints:
    """Return (S,) the number of edges on the longest path from a root to each node of a DAG."""
    level = np.zeros(stages, dtype=np.int64)
    for _ in range(stages):
        deeper = level.copy()
        np.maximum.at(deeper, edge_child, level[edge_parent] + 1)
        if np.array_equal(deeper, level):
            break
        level = deeper
    return level
