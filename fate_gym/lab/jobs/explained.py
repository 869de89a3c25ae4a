"""Explanations of placements: ``explained.json``, written by jobs with ``trace=true``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from fate_gym.errors import InputError
from fate_gym.files import write_text
from fate_gym.lab.files import read_bytes
from fate_gym.lab.jobs.directory import EXPLAINED

if TYPE_CHECKING:
    from fate_gym.problem import Problem
    from fate_gym.sim import Explanation, Recorder, Trace
    from fate_gym.sim.recorder import Held, Placed

Index = Annotated[int, Field(ge=0)]
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e18, le=1e18)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StageNode(_Part):
    """A stage of the graph; ``model`` is empty if it has none."""

    workflow: str
    stage: str
    model: str


class ComparedValue(_Part):
    """A placement that a policy compared, with the policy's value; None: rejected or not tried."""

    devices: list[Index]
    value: Number | None


class ExplainedPlacement(_Part):
    """One placement, and the expected costs on every device.

    Attributes:
        row: the placement's first row in the schedule's shards.
        time: time of the decision, seconds.
        stage: stage number.
        devices: device numbers.
        end: expected end, seconds.
        parts: for each device, `fate_gym.sim.recorder.PARTS` of the whole stage on it alone; None:
            the stage cannot run there.
        quantity: index into the schedule's ``quantities``; None: the policy compared nothing.
        compared: the policy's own values for this stage.
    """

    row: Index
    time: Number
    stage: Index
    devices: list[Index]
    end: Number | None
    parts: list[Annotated[list[Number], Field(min_length=6, max_length=6)] | None]
    quantity: Index | None
    compared: list[ComparedValue]


class DeviceMemory(_Part):
    """What a device holds from ``time`` on: bytes of weights and KV, and the models' numbers."""

    device: Index
    time: Number
    weights: Number
    cached: Number
    models: list[Index]


class ExplainedSchedule(_Part):
    """Explanation of the run of one problem.

    Attributes:
        problem: id of the problem.
        devices, memory: names of the devices, and their bytes of memory (0: unlimited).
        models: names of the models.
        stages: stages of all workflows.
        edges: stage numbers of parent and child.
        ready: when each stage became ready, seconds.
        quantities: descriptions of the values that the policy compared.
        placements: placements in order.
        held: what devices hold, by device and time.
    """

    problem: str
    devices: list[str]
    memory: list[Number]
    models: list[str]
    stages: list[StageNode]
    edges: list[tuple[Index, Index]]
    ready: list[Number]
    quantities: list[str]
    placements: list[ExplainedPlacement]
    held: list[DeviceMemory]

    @model_validator(mode="after")
    def _numbers_are_known(self) -> ExplainedSchedule:
        devices, stages, models = len(self.devices), len(self.stages), len(self.models)
        if len(self.memory) != devices or len(self.ready) != stages:
            raise ValueError("lists of different lengths")
        for numbers, most in (
            ([n for edge in self.edges for n in edge], stages),
            ([one.stage for one in self.placements], stages),
            ([n for one in self.placements for n in one.devices], devices),
            ([n for one in self.placements for c in one.compared for n in c.devices], devices),
            ([one.device for one in self.held], devices),
            ([n for one in self.held for n in one.models], models),
            ([one.quantity or 0 for one in self.placements], max(1, len(self.quantities))),
        ):
            if max(numbers, default=-1) >= most:
                raise ValueError("a number of something that is not listed")
        if any(len(one.parts) != devices or not one.devices for one in self.placements):
            raise ValueError("lists of different lengths")
        return self


_FILE = TypeAdapter(list[ExplainedSchedule])


def explained_schedule(trace: Trace, recorder: Recorder) -> ExplainedSchedule:
    """Convert a recorded run to the form in which it is stored."""
    problem = trace.problem
    quantities: dict[str, int] = {}
    placements = [_placement(one, quantities) for one in recorder.placed_stages]
    number = {name: i for i, name in enumerate(trace.stage_ids)}
    stages = [(flow.id, stage) for flow in problem.workflows for stage in flow.stages]
    return ExplainedSchedule(
        problem=problem.id,
        devices=trace.device_ids,
        memory=_memory(problem),
        models=trace.model_names,
        stages=[
            StageNode(workflow=flow, stage=stage.id, model=stage.model or "")
            for flow, stage in stages
        ],
        edges=[
            (number[flow.id, edge.parent], number[flow.id, edge.child])
            for flow in problem.workflows
            for edge in flow.edges
        ],
        ready=[_short(time) or 0.0 for time in trace.stage_ready.tolist()],
        quantities=list(quantities),
        placements=placements,
        held=_held(trace, recorder.held),
    )


def _memory(problem: Problem) -> list[float]:
    from fate_gym.sim import compile_problem

    memory = compile_problem(problem).arrays.devices["memory"].tolist()
    return [size if math.isfinite(size) else 0.0 for size in memory]


def _placement(one: Placed, quantities: dict[str, int]) -> ExplainedPlacement:
    assignment, met = one.assignment, one.estimates
    compared = _compared(one.explanation, assignment.stage)
    quantity = None
    if one.explanation is not None and compared:
        quantity = quantities.setdefault(one.explanation.quantity, len(quantities))
    return ExplainedPlacement.model_construct(
        row=met.row,
        time=_digits(met.time),
        stage=assignment.stage,
        devices=list(assignment.devices),
        end=_short(met.end),
        parts=[
            None if math.isnan(row[0]) else [_short(value) or 0.0 for value in row]
            for row in met.parts.tolist()
        ],
        quantity=quantity,
        compared=compared,
    )


def _compared(explanation: Explanation | None, stage: int) -> list[ComparedValue]:
    if explanation is None:
        return []
    return [
        ComparedValue.model_construct(devices=list(one.devices), value=_short(one.value))
        for one in explanation.candidates
        if one.stage == stage
    ]


def _held(trace: Trace, held: Sequence[Held]) -> list[DeviceMemory]:
    """List what devices hold over time; after a failure they hold nothing."""
    starts = trace.shards["start"].tolist()
    found = [
        DeviceMemory.model_construct(
            device=one.device,
            time=_digits(one.time if one.row < 0 else starts[one.row]),
            weights=one.weights,
            cached=one.cached,
            models=list(one.models),
        )
        for one in held
    ]
    found += [
        DeviceMemory.model_construct(
            device=int(outage["device"]),
            time=_digits(float(outage["down"])),
            weights=0.0,
            cached=0.0,
            models=[],
        )
        for outage in trace.outages
    ]
    return sorted(found, key=lambda one: (one.device, one.time))


def _digits(value: float) -> float:
    return float(f"{value:.7g}")


def _short(value: float) -> float | None:
    """Round to seven digits; None if not finite."""
    return _digits(value) if math.isfinite(value) else None


def write_explained(directory: Path, schedules: Sequence[ExplainedSchedule]) -> None:
    """Write ``explained.json`` of a job."""
    write_text(directory / EXPLAINED, _FILE.dump_json(list(schedules)).decode())


def read_explained(directory: Path, *, known: str | None = None) -> dict[str, ExplainedSchedule]:
    """Read a job's explanations by problem; empty if it was not traced.

    Args:
        directory: directory of the job.
        known: checksum of the file, if there is one.

    Raises:
        InputError: the file is damaged.
    """
    path = directory / EXPLAINED
    if not path.exists():
        return {}
    try:
        schedules = _FILE.validate_json(read_bytes(path, known=known))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"not what a job writes: {first['msg']}", source=path, field=place
        ) from None
    return {one.problem: one for one in schedules}
