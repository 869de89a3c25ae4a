"""What a policy really reads: a view that keeps a record, and a view with parts blotted out.

`RecordingView` notes the groups of the accessors that are called. Compiled policies take the
arrays whole, so no accessor shows what they read. For them, and for all others as well, `blind`
gives a view whose arrays hold nothing true in the groups that a policy may not see: if the policy
decides the same with it in a whole run, it does not use them. Both are for tests.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

import numpy as np

from fate_gym.kernel.schema import (
    DONE,
    FIXED_STAGE,
    TOOL_STAGE,
    WAITING,
    ProblemArrays,
    StateArrays,
)
from fate_gym.sim.groups import expand
from fate_gym.sim.view import DecisionView


class RecordingView:
    """A `DecisionView` that notes the groups that are read, in ``seen``."""

    def __init__(self, view: DecisionView, seen: set[str]) -> None:
        self._view = view
        self._seen = seen

    def __getattr__(self, name: str) -> Any:
        accessor = getattr(DecisionView, name, None)
        marked = accessor.fget if isinstance(accessor, property) else accessor
        self._seen.update(getattr(marked, "reads", ()))
        return getattr(self._view, name)


def blind(view: DecisionView, sees: Collection[str]) -> DecisionView:
    """The view as it is for one who sees only the groups ``sees`` and what they imply.

    The rest is still well formed, but not true: no queue, nothing loaded, every cost a second.
    Workflows that have not arrived and failures to come are blotted out in any case.
    """
    seen = expand(sees)
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
        now = view.now
        facts.workflows = tuple(
            w if w.arrival <= now else w.model_copy(update={"deadline": None, "slo": None})
            for w in problem.workflows
        )
    compiled.problem = facts
    st = view._state.copy()
    _blot_state(p, st, seen)
    _blot_problem(p, st, seen)
    return DecisionView(compiled, st)


def _blot_problem(p: ProblemArrays, st: StateArrays, seen: frozenset[str]) -> None:
    now = st.now
    missing = p.workflows["arrival"] > now
    hidden = missing[p.stages["workflow"]]
    if "dag" not in seen:
        hidden |= st.stages["status"] == WAITING
        p.stages["upward_rank"] = p.stages["downward_rank"] = 0.0
        p.stages["children_from"] = p.stages["children_to"] = 0
    p.workflows["arrival"][missing] = np.inf
    p.outages["start"] = p.outages["end"] = np.inf
    if "progress" not in seen:
        p.workflows["arrival"][~missing] = 0.0
    keep = p.stages["workflow"].copy()
    blank = np.zeros((), p.stages.dtype)
    blank["kind"], blank["model"], blank["prefix"], blank["chooser"] = FIXED_STAGE, -1, -1, -1
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
"""Fields that are no profile of how fast something runs."""


def _blot_state(p: ProblemArrays, st: StateArrays, seen: frozenset[str]) -> None:
    devices = st.devices
    st.seed = 0  # of what is drawn later
    done = st.stages["status"] == DONE
    if "drains" not in seen:
        devices["drains_at"][devices["drains_at"] < np.inf] = 0.0  # who is down shows
        devices["backlog"] = 0.0
        placed = (st.stages["status"] > 1) & ~done
        st.slots["start"][placed] = st.slots["busy"][placed] = 0.0
        st.events["time"] = st.now
    if "links" not in seen:
        st.fetches["senders"] = 0
    if "queues" not in seen and not (st.fetches.size and "links" in seen):
        # With contention the links show who is under way, and when.
        devices["queue_head"] = devices["queue_tail"] = -1
    if "residency" not in seen:
        st.resident[:] = 0
    if "memory" not in seen:
        devices["weight_bytes"] = devices["kv_bytes"] = 0.0
    if "prefixes" not in seen:
        st.prefix_tokens[:] = 0
        st.prefix_there[:] = 0.0
    if "contexts" not in seen:
        st.slots["kept"] = 0
    _relink(p, st, "prefixes" in seen, "contexts" in seen)
    if not seen & {"places", "contexts"}:
        st.slots["device"][done & (p.stages["kind"] != TOOL_STAGE)] = 0
    if not seen & {"progress", "links"}:
        st.stages["end"] = 0.0
    if "progress" not in seen:
        # The end is when the output left: it shows through the links.
        st.slots["start"][done] = st.stages["end"][done][:, None]
        st.stages["ready_at"] = 0.0
        st.last_end = 0.0


def _relink(p: ProblemArrays, st: StateArrays, prefixes: bool, contexts: bool) -> None:
    """Take the entries that are blotted out from the devices' lists of KV entries."""
    first = p.devices.size * p.prefix_model.size
    for device in st.devices:
        entries, entry = [], int(device["oldest"])
        while entry >= 0:
            if prefixes if entry < first else contexts:
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
