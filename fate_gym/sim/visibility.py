"""Tests of what a policy reads: a view that records it, and a view with parts hidden.

`RecordingView` records the groups of the accessors that are called. Compiled policies take whole
arrays, so accessors do not show what they read. For these, and for all others as well, `blind`
gives a view whose arrays hold no true values in the groups that a policy may not see: if the
policy makes the same decisions with it in a whole run, it does not use them.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fate_gym.kernel.schema import (
    DONE,
    ENDED,
    FIXED_STAGE,
    PLACED,
    QUEUED,
    TOOL_STAGE,
    WAITING,
    ProblemArrays,
    StateArrays,
)
from fate_gym.sim.groups import expand
from fate_gym.sim.view import DecisionView

if TYPE_CHECKING:
    from fate_gym.sim.compile import CompiledProblem


class RecordingView:
    """A `DecisionView` that adds the groups that are read to ``seen``."""

    def __init__(self, view: DecisionView, seen: set[str]) -> None:
        self._view = view
        self._seen = seen

    def __getattr__(self, name: str) -> Any:
        accessor = getattr(DecisionView, name, None)
        marked = accessor.fget if isinstance(accessor, property) else accessor
        self._seen.update(getattr(marked, "reads", ()))
        return getattr(self._view, name)


def blind(view: DecisionView, sees: Collection[str]) -> DecisionView:
    """Return the view for a policy that sees only the groups ``sees`` and what they imply.

    The rest is well formed but not true: no queue, nothing loaded, every cost one second. Workflows
    that have not arrived and future failures are hidden in any case.
    """
    seen = expand(sees, batching=bool(view._problem.batching))
    compiled = copy.copy(view._compiled)
    for name in ("floor_seconds", "prefix_seconds"):
        compiled.__dict__.pop(name, None)
    compiled.arrays = p = view._compiled.arrays.copy()
    problem = view._compiled.problem
    facts: Any = None
    if "costs" in seen:
        facts = SimpleNamespace(
            cluster=problem.cluster, device_facts=problem.device_facts, options=problem.options
        )
    if "dag" in seen and facts is not None:
        arrived = view._state.workflows["arrived_at"] <= view.now
        facts.workflows = tuple(
            w if known else w.model_copy(update={"deadline": None, "slo": None})
            for w, known in zip(problem.workflows, arrived, strict=True)
        )
    compiled.problem = facts
    st = view._state.copy()
    _blot_state(p, st, seen)
    _blot_problem(p, st, seen)
    return _BlindView(compiled, st, view if "queues" in seen else None)


class _BlindView(DecisionView):
    """A view with parts hidden. Where a stage would start now is visible, but not the reasons.

    These are the model that a batch serves, and the memory that it has left.
    """

    def __init__(self, compiled: CompiledProblem, st: StateArrays, true: DecisionView | None):
        super().__init__(compiled, st)
        self._true = true

    def open_devices(self) -> NDArray[np.bool_]:
        return super().open_devices() if self._true is None else self._true.open_devices()

    def starts_now(self, stage: int) -> NDArray[np.bool_]:
        return super().starts_now(stage) if self._true is None else self._true.starts_now(stage)


def _blot_problem(p: ProblemArrays, st: StateArrays, seen: frozenset[str]) -> None:
    missing = st.workflows["arrived_at"] > st.now
    hidden = missing[p.stages["workflow"]]
    if "dag" not in seen:
        hidden |= st.stages["status"] == WAITING
        p.stages["upward_rank"] = p.stages["downward_rank"] = 0.0
        p.stages["children_from"] = p.stages["children_to"] = 0
    p.workflows["arrival"][missing] = np.inf
    for name in ("think_s", "session", "turn"):
        p.workflows[name][missing] = 0
    # Nor may a workflow that has arrived reveal its followers.
    p.workflows["followers_from"] = p.workflows["followers_to"] = 0
    p.followers[:] = 0
    p.outages["start"] = p.outages["end"] = np.inf
    if "progress" not in seen:
        p.workflows["arrival"][~missing] = st.workflows["arrived_at"][~missing] = 0.0
    keep = p.stages["workflow"].copy()
    blank = np.zeros((), p.stages.dtype)
    blank["kind"], blank["model"], blank["prefix"], blank["chooser"] = FIXED_STAGE, -1, -1, -1
    blank["written"] = -1
    blank["queries"], blank["mean_seconds"], blank["chooser"] = 1, 1.0, -1
    p.stages[hidden] = blank
    p.stages["workflow"] = keep
    p.clean_seconds[hidden] = p.decode_seconds[hidden] = 1.0
    gone = hidden[p.edges["child"]]
    p.edges["bytes"][gone] = p.edges["mean_seconds"][gone] = 0.0
    if "costs" not in seen:
        p.clean_seconds[np.isfinite(p.clean_seconds)] = 1.0
        p.decode_seconds[:] = p.load_seconds[:] = 1.0
        p.stages["mean_seconds"] = 1.0
        p.stages["upward_rank"] = p.stages["downward_rank"] = 0.0
        p.stages["output_tokens"] = 0
        # What a stage adds to its prefix reveals its output length.
        p.stages["written"] = p.stages["prefix"]
        p.stages["written_tokens"] = p.stages["prefix_tokens"]
        p.stages["tool_seconds"] = 0.0
        for name in set(p.devices.dtype.names or ()) - _NO_DEVICE_COST:
            p.devices[name] = 1.0
        for name in set(p.models.dtype.names or ()) - _NO_MODEL_COST:
            p.models[name] = 0.0
    if "links" not in seen:
        p.link_bandwidth[:] = 1.0
        p.link_latency[:] = 0.0
        p.devices["host_bandwidth"] = 1.0
        p.edges["mean_seconds"] = 0.0
    if "places" not in seen:
        p.edges["bytes"] = 0.0
    if not {"dag", "costs"} <= seen:
        p.by_rank[:] = np.arange(p.by_rank.size)
    if not seen & {"memory", "costs"}:
        p.devices["memory"] = p.models["weight_bytes"] = p.models["kv"] = 0.0


_NO_DEVICE_COST = {"node", "outages_from", "outages_to", "memory", "host_bandwidth"}
_NO_MODEL_COST = {"weight_bytes", "kv"}
"""Fields that do not describe how fast something runs."""


def _blot_state(p: ProblemArrays, st: StateArrays, seen: frozenset[str]) -> None:
    devices = st.devices
    st.seed = 0  # the seed reveals what is drawn later
    done = st.stages["status"] == DONE
    if "drains" not in seen:
        devices["drains_at"][devices["drains_at"] < np.inf] = 0.0  # down devices stay visible
        devices["backlog"] = 0.0
        placed = st.stages["status"] == PLACED
        st.slots["start"][placed] = st.slots["busy"][placed] = 0.0
        st.events["time"] = st.now
    _blot_arrivals(p, st)
    if "links" not in seen:
        st.fetches["senders"] = 0
    # With contention the links show what is under way, and when.
    queues = "queues" in seen or (st.fetches.size > 0 and "links" in seen)
    if not queues:
        devices["queue_head"] = devices["queue_tail"] = -1
    if p.batching:
        _blot_batches(p, st, seen, queues=queues)
    if "memory" not in seen:
        devices["weight_bytes"] = devices["kv_bytes"] = 0.0
    _blot_caches(p, st, seen)
    if not seen & {"places", "contexts"}:
        st.slots["device"][done & (p.stages["kind"] != TOOL_STAGE)] = 0
    if not seen & {"progress", "links"}:
        st.stages["end"] = 0.0
    if "progress" not in seen:
        # The end is when the output left, which the links reveal.
        st.slots["start"][done] = st.stages["end"][done][:, None]
        st.stages["ready_at"] = 0.0
        st.last_end = 0.0


def _blot_arrivals(p: ProblemArrays, st: StateArrays) -> None:
    """Hide when followers arrive, and which; that something will arrive stays visible."""
    first = p.stages.size * (p.max_shards + 1)
    events = st.events[: st.event_count]
    events["time"][events["id"] >= first] = np.inf
    events["id"] = np.minimum(events["id"], first)
    events.sort(order=("time", "id"))  # a sorted list is a heap


def _blot_batches(p: ProblemArrays, st: StateArrays, seen: frozenset[str], *, queues: bool) -> None:
    """Hide what batching devices run, how far it is, and in which memory."""
    batches, lanes = st.batches, st.lanes
    admitted = (lanes["state"] > QUEUED) & (lanes["state"] < ENDED)
    if not queues:
        for name in ("admitted", "prompt", "decoder"):
            batches[name] = -1
        batches["sequences"] = batches["decoding"] = batches["unfinished"] = 0
        lanes["state"] = ENDED
        lanes["wave"] = lanes["waiting"] = 0
    if "drains" not in seen:
        # Every wave lacks one token, so that the state can be played forward.
        for name in ("ahead", "steps", "context", "admissions", "begun"):
            batches[name] = 0
        batches["noise"] = batches["decoding"]
        batches["time"] = batches["loaded_at"] = st.now
        batches["changes_at"][batches["changes_at"] < np.inf] = st.now
        for name in ("made", "since", "began"):
            lanes[name] = 0
        lanes["number"][admitted] = 0
        lanes["output"] = lanes["granted"] = lanes["prompt"] = 1
        lanes["admitted_at"] = lanes["there"] = st.now
        lanes["pair_s"], lanes["noise"] = 0.0, 1.0
        # That something lies ahead stays visible, but not when.
        st.next_border = st.now if st.next_border < np.inf else np.inf
        lanes["grows"] = lanes["prefix_hit"] = 0
        lanes["source"] = -1
        lanes["context_hit"] = 0.0
        if "residency" not in seen:
            batches["serving"] = np.where(batches["sequences"] > 0, min(0, p.models.size - 1), -1)
        if "memory" not in seen:
            batches["reserved"] = batches["pinned"] = 0.0


def _blot_caches(p: ProblemArrays, st: StateArrays, seen: frozenset[str]) -> None:
    """Hide what is loaded and cached, except what a batching device's drain time reveals."""
    resident = np.full(st.resident.shape, "residency" in seen)
    prefixes = np.full(st.prefix_tokens.shape, "prefixes" in seen)
    contexts = np.full(st.slots.shape, "contexts" in seen)
    if p.batching and "drains" in seen:
        placed = (st.stages["status"] == PLACED)[:, None] & (st.lanes["state"] < ENDED)
        placed &= np.arange(st.slots.shape[1]) < st.stages["shards"][:, None]
        for s, k in zip(*np.nonzero(placed & (st.slots["device"] >= 0)), strict=True):
            d, stage = st.slots[s, k]["device"], p.stages[s]
            if stage["model"] >= 0:
                resident[d, stage["model"]] = True
            key = stage["written"]
            while key >= 0:
                prefixes[d, key] = True
                key = p.prefixes["parent"][key]
            parents = p.edges["parent"][stage["parents_from"] : stage["parents_to"]]
            contexts[parents] |= st.slots["device"][parents] == d
    st.resident[~resident] = 0
    st.prefix_tokens[~prefixes] = 0
    st.prefix_there[~prefixes] = 0.0
    st.branches[:] = 0
    held, parents = st.prefix_tokens > 0, p.prefixes["parent"]
    for q in np.flatnonzero(parents >= 0):
        st.branches[:, parents[q]] += held[:, q]
    if p.batching:
        st.pins[~prefixes] = st.computed[~prefixes] = 0
    st.slots["kept"][~contexts] = 0
    _relink(st, np.concatenate([prefixes.ravel(), contexts.ravel()]))


def _relink(st: StateArrays, kept: NDArray[np.bool_]) -> None:
    """Remove the hidden entries from the devices' lists of KV entries."""
    for device in st.devices:
        entries, entry = [], int(device["oldest"])
        while entry >= 0:
            if kept[entry]:
                entries.append(entry)
            entry = int(st.newer[entry])
        device["oldest"] = entries[0] if entries else -1
        device["newest"] = entries[-1] if entries else -1
        for older, newer in zip([-1, *entries], [*entries, -1], strict=True):
            if older >= 0:
                st.newer[older] = newer
            if newer >= 0:
                st.older[newer] = older


__all__ = ["RecordingView", "blind"]
