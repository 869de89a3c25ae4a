"""The planner as a library call: what to start now on a real cluster, from a JSON snapshot.

A snapshot is a problem (docs/examples, `fate_gym.problem`) with one more field, ``state``: what is
finished, what runs, and what each device holds. All its workflows have arrived. The answer is what
the policy starts now; ask again at the next event.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt, ValidationError

from fate_gym.compiled import compiled, plain
from fate_gym.errors import InputError, near_matches
from fate_gym.problem import Problem, parse_problem
from fate_gym.sim import Assignment, CompiledProblem, DecisionView, compile_problem, engine
from fate_gym.sim.cost import placement_end, split_queries
from fate_gym.sim.layout import (
    DONE,
    PLACED,
    READY,
    TOOL_STAGE,
    Array,
    Buffer,
    problem_view,
    state_view,
)

if TYPE_CHECKING:
    from policies.base import Policy


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CachedPrefix(_Part):
    """A prefix in a device's KV cache."""

    model: str
    group: str
    tokens: PositiveInt


class DeviceState(_Part):
    """What a device holds. The least recently used stands first."""

    resident: tuple[str, ...] = Field((), description="models whose weights are loaded")
    prefixes: tuple[CachedPrefix, ...] = ()


class PlacedStage(_Part):
    """A stage that has been placed: on ``devices``, with the queries of each."""

    workflow: str
    stage: str
    devices: dict[str, PositiveInt] = Field({}, description="queries by device; none for a tool")


class FinishedStage(PlacedStage):
    """A stage that has ended; its output lies on ``devices``."""

    cached: bool = Field(False, description="its contexts are still cached there")


class RunningStage(PlacedStage):
    """A stage under way."""

    ends_in_s: NonNegativeFloat = Field(description="seconds until it is expected to end")


class ClusterState(_Part):
    """The field ``state`` of a snapshot."""

    waited_s: dict[str, NonNegativeFloat] = Field(
        {}, description="seconds since the arrival, by workflow; 0 when left out"
    )
    devices: dict[str, DeviceState] = {}
    finished: tuple[FinishedStage, ...] = ()
    running: tuple[RunningStage, ...] = ()


class Placement(_Part):
    """What to start now: a stage on devices, with the queries of each."""

    workflow: str
    stage: str
    devices: dict[str, int]
    expected_end_s: float


def plan(
    snapshot: Mapping[str, Any] | str | Path, *, policy: str = "fate_rollout", **params: Any
) -> list[Placement]:
    """What a planner starts now.

    Args:
        snapshot: the content of a snapshot, or a file.
        policy: a registered policy.
        params: replace those of the policy's file, e.g. ``objective="deadlines"``.

    Returns:
        Placements in order; none: wait for the next event.

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
    """The problem and the state of a snapshot, and its name for messages. Raises `InputError`."""
    source = "<snapshot>"
    if not isinstance(snapshot, Mapping):
        source = str(snapshot)
        snapshot = _load(Path(snapshot))
    data = dict(snapshot)
    given = data.pop("state", {})
    try:
        state = ClusterState.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            first["msg"].removeprefix("Value error, "),
            source=source,
            field=".".join(["state", *(str(part) for part in first["loc"])]),
            remedy="see docs/examples/snapshot.json",
        ) from None
    waited = state.waited_s
    longest = max(waited.values(), default=0.0)
    flows = data.get("workflows")
    if isinstance(flows, Sequence):
        # Time 0 is the arrival of the workflow that has waited longest.
        data["workflows"] = [
            dict(flow) | {"arrival": longest - float(waited.get(str(flow.get("id")), 0.0))}
            if isinstance(flow, Mapping)
            else flow
            for flow in flows
        ]
    problem = parse_problem(json.dumps(data), source=source)
    for name in waited:
        if name not in [workflow.id for workflow in problem.workflows]:
            known = [workflow.id for workflow in problem.workflows]
            raise InputError(
                f"unknown workflow {name!r}",
                source=source,
                field="state.waited_s",
                remedy=near_matches(name, known),
            )
    return problem, state, source


def _load(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"cannot read the file ({error.strerror})", source=path, remedy="check the path"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"not valid JSON ({error})", source=path, remedy="check that the file is complete"
        ) from None
    if not isinstance(data, dict):
        raise InputError("not an object", source=path, remedy="see docs/examples/snapshot.json")
    return data


def decide(problem: Problem, state: ClusterState, policy: Policy) -> list[Placement]:
    """What a policy starts now in a state of a problem. Raises `InputError`."""
    arrays = compile_problem(problem)
    buffer = _State(arrays, state).buffer
    view = DecisionView(arrays, plain(state_view)(buffer, arrays.view), buffer)
    policy.reset(view, 0)
    now = view.now
    placements: list[Placement] = []
    if not view.ready:
        return placements
    for assignment in policy.decide(view):
        if not isinstance(assignment, Assignment):
            continue
        workflow, stage = arrays.stage_ids[assignment.stage]
        devices = np.array(assignment.devices, np.int64)
        counts = np.array(assignment.counts or [0] * devices.size, np.int64)
        end = expected_end(arrays.buffer, buffer, assignment.stage, devices, counts)
        named = {
            arrays.device_ids[d]: int(n)
            for d, n in zip(devices.tolist(), counts.tolist(), strict=True)
        }
        placements.append(
            Placement(
                workflow=workflow, stage=stage, devices=named, expected_end_s=float(end) - now
            )
        )
    return placements


@compiled
def blank(problem: Buffer, state: Buffer) -> None:
    """Make zeroed bytes the state before time 0."""
    p = problem_view(problem)
    engine.reset(p, state_view(state, p), 0)


@compiled
def expected_end(
    problem: Buffer, state: Buffer, stage: int, devices: Array, counts: Array
) -> float:
    """When a stage would end on devices; without queries in ``counts`` they are dealt first."""
    p = problem_view(problem)
    st = state_view(state, p)
    if counts[0] == 0:
        split_queries(p, stage, devices, devices.size, counts)
    return placement_end(p, st, stage, devices, counts, devices.size)


class _State:
    """A state buffer as if the run had come to this point."""

    def __init__(self, compiled: CompiledProblem, state: ClusterState) -> None:
        self._compiled, self._given = compiled, state
        self._problem = compiled.problem
        self._p: Any = compiled.view
        self.buffer: Buffer = np.zeros(compiled.state_bytes, np.uint8)
        self._st: Any = plain(state_view)(self.buffer, compiled.view)
        self._stage_number = {name: i for i, name in enumerate(compiled.stage_ids)}
        self._device_number = {name: i for i, name in enumerate(compiled.device_ids)}
        self._clock = 0
        self._events: list[tuple[float, int]] = []
        blank(compiled.buffer, self.buffer)
        head = self._st.head[0]
        self._now = float(self._p.workflows["arrival"].max())
        head["now"] = self._now
        head["instants"] = 1
        head["noisy"] = 0
        head["next_arrival"] = self._p.workflows.size
        head["known_left"] = self._p.stages.size
        self._st.stages["missing"] -= 1
        self._st.devices["drains_at"] = self._now
        self._hold()
        self._finish()
        self._run()
        self._become_ready()
        self._check_memory()
        head["clock"] = self._clock
        head["events"] = len(self._events)
        for i, (time, event) in enumerate(sorted(self._events)):
            self._st.events[i] = (time, event)

    def _device(self, name: str, field: str) -> int:
        if name not in self._device_number:
            raise InputError(
                f"unknown device {name!r}",
                field=field,
                remedy=near_matches(name, self._device_number),
            )
        return self._device_number[name]

    def _stage(self, placed: PlacedStage, field: str) -> int:
        key = (placed.workflow, placed.stage)
        if key not in self._stage_number:
            names = [f"{w}/{s}" for w, s in self._stage_number]
            raise InputError(
                f"unknown stage {placed.workflow + '/' + placed.stage!r}",
                field=field,
                remedy=near_matches(f"{placed.workflow}/{placed.stage}", names),
            )
        number = self._stage_number[key]
        if self._st.stages[number]["status"] != 0:
            raise self._fault(placed, "stands twice in the state", field, "give it once")
        return number

    def _fault(self, placed: PlacedStage, fault: str, field: str, remedy: str) -> InputError:
        item = f"workflow {placed.workflow!r}, stage {placed.stage!r}"
        return InputError(fault, item=item, field=field, remedy=remedy)

    def _hold(self) -> None:
        """Weights and prefixes, in the order of use."""
        models = {name: i for i, name in enumerate(self._compiled.model_names)}
        keys = {key: i for i, key in enumerate(self._compiled.prefix_keys)}
        facts = self._problem.model_facts
        for name, held in self._given.devices.items():
            d = self._device(name, "state.devices")
            for model in held.resident:
                if model not in facts:
                    raise InputError(
                        f"unknown model {model!r}",
                        item=f"device {name!r}",
                        field="state.devices.resident",
                        remedy=near_matches(model, facts),
                    )
                self._st.devices[d]["weight_bytes"] += facts[model].weight_bytes
                # A model that no stage uses takes memory; nothing more is to be known of it.
                if model in models:
                    self._clock += 1
                    self._st.resident[d, models[model]] = self._clock
            for prefix in held.prefixes:
                key = (prefix.model, prefix.group)
                if key not in keys:
                    continue
                q = keys[key]
                kv = float(self._p.models[self._p.prefix_model[q]]["kv"])
                if kv > 0:
                    self._st.prefix_tokens[d, q] = prefix.tokens
                    self._st.devices[d]["kv_bytes"] += prefix.tokens * kv
                    self._link(d, d * self._p.prefix_model.size + q)

    def _link(self, d: int, entry: int) -> None:
        """Append a KV entry to the device's list by use."""
        newest = int(self._st.devices[d]["newest"])
        self._st.older[entry], self._st.newer[entry] = newest, -1
        if newest >= 0:
            self._st.newer[newest] = entry
        else:
            self._st.devices[d]["oldest"] = entry
        self._st.devices[d]["newest"] = entry

    def _place(self, placed: PlacedStage, s: int, field: str) -> None:
        """The slots of a stage."""
        stage = self._p.stages[s]
        if stage["kind"] == TOOL_STAGE:
            if placed.devices:
                raise self._fault(placed, "a tool runs on no device", field, "leave devices out")
            self._st.stages[s]["shards"] = 0
            return
        shards = self._compiled.shape[5]
        if not 1 <= len(placed.devices) <= shards:
            raise self._fault(
                placed,
                f"{len(placed.devices)} devices; 1 to {shards} are legal",
                f"{field}.devices",
                "name the devices, or raise options.max_shards",
            )
        if sum(placed.devices.values()) != stage["queries"]:
            raise self._fault(
                placed,
                f"{sum(placed.devices.values())} queries on devices, the stage has "
                f"{int(stage['queries'])}",
                f"{field}.devices",
                "correct the queries of each device",
            )
        self._st.stages[s]["shards"] = len(placed.devices)
        for k, (name, queries) in enumerate(placed.devices.items()):
            d = self._device(name, f"{field}.devices")
            if not np.isfinite(self._p.clean_seconds[s, d]):
                raise self._fault(
                    placed,
                    f"device {name!r} cannot host it",
                    f"{field}.devices",
                    "correct the device, or the stage's model",
                )
            slot = self._st.slots[s, k]
            slot["device"], slot["queries"], slot["next"] = d, queries, -1

    def _finish(self) -> None:
        done = {(f.workflow, f.stage) for f in self._given.finished}
        for finished in self._given.finished:
            s = self._stage(finished, "state.finished")
            self._place(finished, s, "state.finished")
            self._parents_done(finished, s, done, "state.finished")
            record = self._st.stages[s]
            record["status"], record["end"], record["ready_at"] = DONE, self._now, self._now
            self._st.head[0]["known_left"] -= 1
            if finished.cached:
                self._keep(s)
        for finished in self._given.finished:
            s = self._stage_number[finished.workflow, finished.stage]
            stage = self._p.stages[s]
            for j in range(int(stage["children_from"]), int(stage["children_to"])):
                child = int(self._p.edges[self._p.out_edges[j]]["child"])
                self._st.stages[child]["missing"] -= 1

    def _keep(self, s: int) -> None:
        """The contexts of a finished stage are cached where it ran."""
        stage = self._p.stages[s]
        if stage["kind"] == TOOL_STAGE or not stage["keeps_context"]:
            return
        kv = float(self._p.models[stage["model"]]["kv"])
        tokens = int(stage["prompt_tokens"] + stage["inherited_tokens"] + stage["output_tokens"])
        first = self._p.devices.size * self._p.prefix_model.size
        for k in range(int(self._st.stages[s]["shards"])):
            slot = self._st.slots[s, k]
            if kv > 0:
                slot["kept"] = slot["queries"]
                self._st.devices[slot["device"]]["kv_bytes"] += slot["queries"] * tokens * kv
                self._link(int(slot["device"]), first + s * self._compiled.shape[5] + k)

    def _parents_done(
        self, placed: PlacedStage, s: int, done: set[tuple[str, str]], field: str
    ) -> None:
        stage = self._p.stages[s]
        for e in range(int(stage["parents_from"]), int(stage["parents_to"])):
            parent = self._compiled.stage_ids[int(self._p.edges[e]["parent"])]
            if parent not in done:
                raise self._fault(
                    placed,
                    f"its parent {parent[1]!r} has not finished",
                    field,
                    f"add {parent[1]!r} to state.finished",
                )

    def _run(self) -> None:
        done = {(f.workflow, f.stage) for f in self._given.finished}
        shards = self._compiled.shape[5]
        for running in self._given.running:
            s = self._stage(running, "state.running")
            self._place(running, s, "state.running")
            self._parents_done(running, s, done, "state.running")
            record = self._st.stages[s]
            record["status"], record["ready_at"] = PLACED, self._now
            end = self._now + running.ends_in_s
            count = int(record["shards"])
            for k in range(count):
                slot = self._st.slots[s, k]
                slot["start"], slot["busy"] = self._now, running.ends_in_s
                d = int(slot["device"])
                device = self._st.devices[d]
                if device["queue_head"] >= 0:
                    raise self._fault(
                        running,
                        f"device {self._compiled.device_ids[d]!r} runs two stages",
                        "state.running",
                        "a device runs one stage at a time; leave the one that waits out",
                    )
                device["queue_head"] = device["queue_tail"] = s * shards + k
                device["drains_at"], device["backlog"] = end, running.ends_in_s
                self._events.append((end, s * (shards + 1) + k))
                model = int(self._p.stages[s]["model"])
                if model >= 0 and self._st.resident[d, model] == 0:
                    self._clock += 1
                    self._st.resident[d, model] = self._clock
                    device["weight_bytes"] += self._p.models[model]["weight_bytes"]
            if count != 1:
                self._events.append((end, s * (shards + 1) + shards))

    def _become_ready(self) -> None:
        shards = self._compiled.shape[5]
        head = self._st.head[0]
        for s in range(self._p.stages.size):
            record = self._st.stages[s]
            if record["status"] != 0 or record["missing"] > 0:
                continue
            record["ready_at"] = self._now
            if self._p.stages[s]["kind"] == TOOL_STAGE:
                # Tools start by themselves.
                record["status"] = PLACED
                end = self._now + float(self._p.stages[s]["tool_seconds"])
                self._events.append((end, s * (shards + 1) + shards))
            else:
                record["status"] = READY
                self._st.ready[head["ready"]] = s
                head["ready"] += 1

    def _check_memory(self) -> None:
        for d, name in enumerate(self._compiled.device_ids):
            device = self._st.devices[d]
            used = float(device["weight_bytes"] + device["kv_bytes"])
            limit = float(self._p.devices[d]["memory"])
            if used > limit > 0:
                raise InputError(
                    f"weights and caches take {used / 1e9:.1f} GB of {limit / 1e9:.1f} GB",
                    item=f"device {name!r}",
                    field="state.devices",
                    remedy="correct what is resident or cached there",
                )
