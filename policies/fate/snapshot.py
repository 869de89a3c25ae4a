"""The planner as a library call: what to start now on a real cluster, from a JSON snapshot.

A snapshot is a problem (docs/examples, `fate_gym.problem`) with an extra field, ``state``: which
stages have finished or are running, and what each device holds. All its workflows have arrived.
The answer is what the policy starts now; ask again at the next event.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, ValidationError

from fate_gym.errors import InputError, near_matches
from fate_gym.kernel import snapshot as build
from fate_gym.kernel.cost import split_queries
from fate_gym.kernel.estimate import placement_end
from fate_gym.kernel.placements import new_placements
from fate_gym.kernel.schema import (
    FIXED_STAGE,
    NO_LOG,
    TOOL_STAGE,
    WAITING,
    StateArrays,
    new_state,
)
from fate_gym.problem import (
    Frozen,
    Problem,
    Queries,
    Seconds,
    Tokens,
    parse_problem,
    read_json,
)
from fate_gym.sim import Assignment, CompiledProblem, DecisionView, compile_problem

if TYPE_CHECKING:
    from policies.base import Policy

_EXAMPLE = "docs/examples/snapshot.json"


class CachedPrefix(Frozen):
    """A prefix in a device's KV cache."""

    model: str
    group: str
    tokens: Annotated[Tokens, Field(ge=1)]


class DeviceState(Frozen):
    """What a device holds, least recently used first."""

    resident: tuple[str, ...] = Field((), description="models whose weights are loaded")
    prefixes: tuple[CachedPrefix, ...] = ()


class PlacedStage(Frozen):
    """A stage that has been placed, with the number of queries on each device."""

    workflow: str
    stage: str
    devices: dict[str, Queries] = Field({}, description="queries by device; none for a tool")


class FinishedStage(PlacedStage):
    """A stage that has ended; its output is on ``devices``."""

    cached: bool = Field(False, description="its contexts are still cached there")


class RunningStage(PlacedStage):
    """A running stage; its progress is given in terms that depend on the kind of its devices."""

    ends_in_s: Seconds | None = Field(
        None, description="seconds until it is expected to end; of tools and on exclusive devices"
    )
    tokens_made: Tokens | None = Field(
        None,
        description="output tokens that each query has made, on batching devices; 0: its prompt "
        "is still to be computed",
    )


class ClusterState(Frozen):
    """The field ``state`` of a snapshot."""

    waited_s: dict[str, Seconds] = Field(
        {}, description="seconds since the arrival, by workflow; 0 when left out"
    )
    devices: dict[str, DeviceState] = Field({})
    finished: tuple[FinishedStage, ...] = ()
    running: tuple[RunningStage, ...] = ()
    waiting: tuple[PlacedStage, ...] = Field(
        (), description="on batching devices: stages in line, the first to be admitted first"
    )


class PlannedStage(PlacedStage):
    """A stage to start now."""

    expected_end_s: float = Field(description="seconds until it is expected to end")


def plan(
    snapshot: Mapping[str, Any] | str | Path, *, policy: str = "fate_rollout", **params: Any
) -> list[PlannedStage]:
    """Plan what to start now.

    Args:
        snapshot: the contents of a snapshot, or the path of a JSON file.
        policy: name of a registered policy.
        params: override the parameters in the policy's file, e.g. ``objective="deadlines"``.

    Returns:
        Stages to start, in order; empty: wait for the next event.

    Raises:
        InputError: naming the device, stage and field at fault.
    """
    from policies.registry import make_policy

    problem, state, source = read_snapshot(snapshot)
    planner = make_policy(policy, **params)
    try:
        return decide(problem, state, planner)
    except InputError as error:
        raise error.at(source) from None


def read_snapshot(
    snapshot: Mapping[str, Any] | str | Path,
) -> tuple[Problem, ClusterState, str]:
    """Read a snapshot's problem and state, and its name for messages. Raises `InputError`."""
    source = "<snapshot>"
    if not isinstance(snapshot, Mapping):
        source = str(snapshot)
        snapshot = read_json(source)
    if not isinstance(snapshot, Mapping):
        raise InputError("not an object", source=source, remedy=f"see {_EXAMPLE}")
    data = dict(snapshot)
    state = _state(data.pop("state", {}), source)
    waited = state.waited_s
    longest = max(waited.values(), default=0.0)
    flows = data.get("workflows")
    if isinstance(flows, Sequence):
        data["workflows"] = [
            _arrived(flow, longest, waited) if isinstance(flow, Mapping) else flow for flow in flows
        ]
    try:
        text = json.dumps(data)
    except (TypeError, ValueError, RecursionError) as error:
        fault = f"holds what JSON cannot say ({error})"
        raise InputError(fault, source=source, remedy="give plain values") from None
    problem = parse_problem(text, source=source)
    known = [workflow.id for workflow in problem.workflows]
    for name in waited:
        if name not in known:
            raise _unknown("workflow", name, known, source=source, field="state.waited_s")
    return problem, state, source


def _state(given: Any, source: str) -> ClusterState:
    try:
        return ClusterState.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        value = first["input"]
        got = f" (got {ascii(value)[:80]})" if isinstance(value, str | int | float) else ""
        raise InputError(
            first["msg"].removeprefix("Value error, ") + got,
            source=source,
            field=".".join(["state", *(str(part)[:80] for part in first["loc"])]),
            remedy=f"see {_EXAMPLE}",
        ) from None


def _arrived(
    flow: Mapping[str, Any], longest: float, waited: Mapping[str, float]
) -> dict[str, Any]:
    """Set a workflow's arrival time; time 0 is the arrival of the one that waited ``longest``.

    The turn that it follows has ended and need not be in the snapshot, so the link is removed.
    """
    after = ("follows", "think_seconds")
    kept = {name: value for name, value in flow.items() if name not in after}
    return kept | {"arrival": longest - float(waited.get(str(flow.get("id")), 0.0))}


def decide(problem: Problem, state: ClusterState, policy: Policy) -> list[PlannedStage]:
    """Return what a policy starts now in a given state of a problem. Raises `InputError`."""
    compiled = compile_problem(problem)
    arrays = compiled.arrays
    live = build_state(compiled, state)
    view = DecisionView(compiled, live)
    policy.reset(view, 0)
    planned: list[PlannedStage] = []
    if not view.ready:
        return planned
    for assignment in policy.decide(view):
        if not isinstance(assignment, Assignment):
            continue
        number, k = assignment.stage, len(assignment.devices)
        devices = np.array(assignment.devices, np.int64)
        counts = np.array(assignment.counts or [0] * k, np.int64)
        if assignment.counts is None:
            split_queries(arrays, number, devices, k, counts)
        end = placement_end(arrays, live, number, devices, counts, k)
        workflow, stage = compiled.stage_ids[number]
        names = [compiled.device_ids[d] for d in assignment.devices]
        planned.append(
            PlannedStage(
                workflow=workflow,
                stage=stage,
                devices=dict(zip(names, counts.tolist(), strict=True)),
                expected_end_s=float(end) - view.now,
            )
        )
    return planned


def build_state(compiled: CompiledProblem, given: ClusterState) -> StateArrays:
    """Build the simulator state of a snapshot. Raises `InputError`."""
    return _Builder(compiled, given).state


class _Builder:
    """Builds the state of a snapshot; raises `InputError` for anything wrong with it."""

    def __init__(self, compiled: CompiledProblem, given: ClusterState) -> None:
        self._compiled, self._given = compiled, given
        self._arrays = compiled.arrays
        self._stages = {name: i for i, name in enumerate(compiled.stage_ids)}
        self._devices = {name: i for i, name in enumerate(compiled.device_ids)}
        self._done = {(finished.workflow, finished.stage) for finished in given.finished}
        self._placed = new_placements(1, compiled.arrays.max_shards)
        self.state: StateArrays = new_state(compiled.arrays)
        build.begin_at(self._arrays, self.state, float(self._arrays.workflows["arrival"].max()))
        self._hold()
        for finished in given.finished:
            self._place(finished, "state.finished")
            build.finish(self._arrays, self.state, self._placed, 0, finished.cached)
        self._batching = bool(compiled.arrays.batching)
        # Stages that decode were admitted before those whose prompts are still to be computed.
        for running in sorted(given.running, key=lambda one: not one.tokens_made):
            self._run(running)
        for waiting in given.waiting:
            self._wait(waiting)
        build.release(self._arrays, self.state)
        self._check_memory()

    def _hold(self) -> None:
        """Add the weights and prefixes that devices hold, in order of use."""
        models = {name: i for i, name in enumerate(self._compiled.model_names)}
        keys = {key: i for i, key in enumerate(self._compiled.prefix_keys)}
        facts = self._compiled.problem.model_facts
        for name, held in self._given.devices.items():
            d = self._device(name, "state.devices")
            for model in held.resident:
                if model not in facts:
                    where = {"item": f"device {name!r}", "field": "state.devices.resident"}
                    raise _unknown("model", model, facts, **where)
                # A model that no stage uses only takes memory.
                size = float(facts[model].weight_bytes)
                build.hold_weights(self.state, d, models.get(model, -1), size)
            for prefix in held.prefixes:
                q = keys.get((prefix.model, prefix.group))
                if q is not None:
                    build.hold_prefix(self._arrays, self.state, d, q, prefix.tokens)

    def _run(self, running: RunningStage) -> None:
        field = "state.running"
        s = self._place(running, field)
        kind = self._arrays.stages["kind"][s]
        in_batch = self._batching and kind != TOOL_STAGE
        if in_batch and kind == FIXED_STAGE:
            fault = "a stage of given seconds runs on a batching device"
            remedy = "leave it out, or set cluster.execution to 'exclusive'"
            raise _fault(running, fault, field, remedy)
        name, other = ("tokens_made", "ends_in_s") if in_batch else ("ends_in_s", "tokens_made")
        where = "a tool" if kind == TOOL_STAGE else "batching" if in_batch else "exclusive"
        where = where if kind == TOOL_STAGE else f"a stage on {where} devices"
        if getattr(running, other) is not None:
            fault = f"{other} says nothing of {where}"
            raise _fault(running, fault, f"{field}.{other}", f"give {name} instead")
        if getattr(running, name) is None:
            fault = f"{name} is missing: how far is {where}?"
            raise _fault(running, fault, f"{field}.{name}", f"add {name}")
        if not in_batch:
            assert running.ends_in_s is not None
            self._check_idle(running)
            build.run(self._arrays, self.state, self._placed, 0, running.ends_in_s)
            return
        made = running.tokens_made or 0
        misfit = build.run_in_batch(self._arrays, self.state, self._placed, 0, made, NO_LOG)
        if misfit >= 0:
            device = list(running.devices)[misfit]
            fault = f"device {device!r} cannot run it beside the others: another model, too many "
            fault += "sequences, or too little memory"
            remedy = "move it to state.waiting, or correct what runs there"
            raise _fault(running, fault, field, remedy)

    def _wait(self, waiting: PlacedStage) -> None:
        field = "state.waiting"
        s = self._place(waiting, field)
        if not self._batching or self._arrays.stages["kind"][s] == TOOL_STAGE:
            fault = "only stages on batching devices wait in line"
            raise _fault(waiting, fault, field, "leave it out: it is decided when it can start")
        build.wait_in_line(self._arrays, self.state, self._placed, 0, NO_LOG)

    def _place(self, placed: PlacedStage, field: str) -> int:
        """Write a stage whose parents have finished to ``_placed``; return its number."""
        s = self._stage(placed, field)
        stage = self._arrays.stages[s]
        self._check_devices(placed, stage, f"{field}.devices")
        width = len(placed.devices)
        devices = [self._device(name, f"{field}.devices") for name in placed.devices]
        for name, d in zip(placed.devices, devices, strict=True):
            if not np.isfinite(self._arrays.clean_seconds[s, d]):
                fault = f"device {name!r} cannot host it"
                remedy = "correct the device, or the stage's model"
                raise _fault(placed, fault, f"{field}.devices", remedy)
        for edge in self._arrays.edges[stage["parents_from"] : stage["parents_to"]]:
            parent = self._compiled.stage_ids[edge["parent"]]
            if parent not in self._done:
                fault = f"its parent {parent[1]!r} has not finished"
                raise _fault(placed, fault, field, f"add {parent[1]!r} to state.finished")
        self._placed.rows[0]["stage"], self._placed.rows[0]["width"] = s, width
        self._placed.devices[0, :width] = devices
        self._placed.counts[0, :width] = list(placed.devices.values())
        return s

    def _device(self, name: str, field: str) -> int:
        if name not in self._devices:
            raise _unknown("device", name, self._devices, field=field)
        return self._devices[name]

    def _stage(self, placed: PlacedStage, field: str) -> int:
        name = (placed.workflow, placed.stage)
        if name not in self._stages:
            known = ["/".join(one) for one in self._stages]
            raise _unknown("stage", "/".join(name), known, field=field)
        if self.state.stages["status"][self._stages[name]] != WAITING:
            raise _fault(placed, "stands twice in the state", field, "give it once")
        return self._stages[name]

    def _check_devices(self, placed: PlacedStage, stage: np.void, field: str) -> None:
        number, queries = len(placed.devices), sum(placed.devices.values())
        most = self._arrays.max_shards
        if stage["kind"] == TOOL_STAGE:
            if number:
                field = field.removesuffix(".devices")
                raise _fault(placed, "a tool runs on no device", field, "leave devices out")
        elif not 1 <= number <= most:
            fault = f"{number} devices; 1 to {most} are legal"
            remedy = "name the devices, or raise options.max_shards"
            raise _fault(placed, fault, field, remedy)
        elif queries != stage["queries"]:
            fault = f"{queries} queries on devices, the stage has {stage['queries']}"
            raise _fault(placed, fault, field, "correct the queries of each device")

    def _check_idle(self, running: RunningStage) -> None:
        for name in running.devices:
            if self.state.devices["queue_head"][self._devices[name]] >= 0:
                fault = f"device {name!r} runs two stages"
                remedy = "a device runs one stage at a time; leave the one that waits out"
                raise _fault(running, fault, "state.running", remedy)

    def _check_memory(self) -> None:
        used = self.state.devices["weight_bytes"] + self.state.devices["kv_bytes"]
        limits = self._arrays.devices["memory"]
        for name, d in self._devices.items():
            if used[d] > limits[d] > 0:
                raise InputError(
                    f"weights and caches take {used[d] / 1e9:.1f} GB of {limits[d] / 1e9:.1f} GB",
                    item=f"device {name!r}",
                    field="state.devices",
                    remedy="correct what is resident or cached there",
                )


def _fault(placed: PlacedStage, fault: str, field: str, remedy: str) -> InputError:
    item = f"workflow {placed.workflow!r}, stage {placed.stage!r}"
    return InputError(fault, item=item, field=field, remedy=remedy)


def _unknown(what: str, name: str, known: Iterable[str], **where: str) -> InputError:
    return InputError(f"unknown {what} {name!r}", remedy=near_matches(name, known), **where)
