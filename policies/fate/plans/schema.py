"""Data structures of plans, plays and searches.

Shapes: S stages, D devices, W workflows, K = ``max_shards``, N kinds of stages
(`policies.fate.kinds`), F forks with drawn futures.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fate_gym.jit import Block, Row, column, scalar, table
from fate_gym.kernel.placements import Placements, new_placements
from fate_gym.kernel.schema import NO_LOG, LogArrays, ProblemArrays, StateArrays, new_state

Integers = NDArray[np.int64]
FIRST_RANDOM = 0x9E3779B97F4A7C15
NEVER = 1 << 62
"""More stages than any play places."""


class PlannedStage(Row):
    """Order, earliest start and number of devices of a stage."""

    key: float = column("f8", "order of the ready stages: smallest first")
    not_before: float = column("f8", "does not start before this time", "s")
    width: int = column("i8", "devices planned; 0: the stage chooses when its turn comes")


class Plan(Block):
    """The devices of every stage and the order of the stages."""

    stages: Any = table(PlannedStage, "S", text="stages")
    devices: Any = table("i8", "S", "K", text="device numbers")
    counts: Any = table("i8", "S", "K", text="queries of each device")


class KindBias(Row):
    """Biases of a list schedule for one kind of stage."""

    shift: float = column("f8", "added to the keys")
    spread: int = column("i8", "devices that a stage chooses, at most")


class Biases(Block):
    """All biases of a list schedule (`policies.fate.rollout.tuning`)."""

    kinds: Any = table(KindBias, "N", text="kinds of stages")
    seconds: Any = table("f8", "N", "D", unit="s", text="added to an end when a stage chooses")
    shifts: Any = table("f8", "W", text="added to the keys of a workflow's stages")


def prefer_nothing(biases: Biases | Memory, spread: int) -> None:
    """Clear all biases; a stage of any kind may spread over ``spread`` devices."""
    biases.kinds["shift"], biases.kinds["spread"] = 0.0, spread
    biases.seconds[:], biases.shifts[:] = 0.0, 0.0


class DeviceTurn(Row):
    """A device at the instant being planned."""

    turn: float = column("f8", "when it is expected to be free, with what is planned", "s")
    brings: int = column("i8", "the model that a stage planned at this instant brings, -1")
    toll: float = column("f8", "added to an end when a stage chooses, per second of its time")
    joins: float = column("f8", "batching: when the prompts there are computed", "s")
    free: int = column("i8", "1: open, and no stage that has to wait is planned on it")
    version: int = column("i8", "of its memory: changes with every placement")


class StageFacts(Row):
    """Facts about a stage that plays look up."""

    floor: float = column("f8", "it takes at least that long, however it is placed", "s")
    tail: float = column("f8", "at least that long from its end to its workflow's", "s")
    depth: int = column("i8", "edges from the frontier")
    kind: int = column("i8", "number of its kind")


class Memory(Block):
    """A planner's data on the whole problem: kept from event to event, or looked up once.

    Plays work on an excerpt (`fate_gym.sim.Excerpt`); `policies.fate.plans.keeping` copies between
    the two.
    """

    kinds_count: int = scalar("i8", "kinds of stages in the excerpt")
    planned: Any = table(PlannedStage, "S", text="the best plan: stages")
    devices: Any = table("i8", "S", "K", text="its device numbers")
    counts: Any = table("i8", "S", "K", text="its queries of each device")
    facts: Any = table(StageFacts, "S", text="stages")
    alone: Any = table("f8", "W", unit="s", text="a workflow takes that long without any other")
    kinds: Any = table(KindBias, "N", text="biases: kinds of stages")
    seconds: Any = table("f8", "N", "D", unit="s", text="biases: added to ends")
    shifts: Any = table("f8", "W", text="biases: added to the keys of a workflow's stages")
    kind_at: Any = table("i8", "N", text="number of a kind in the excerpt, -1 without")
    kind_of: Any = table("i8", "N", text="kinds of the excerpt; the first `kinds_count` count")


class WorkflowValue(Row):
    """What the objective needs to know about a workflow."""

    known: int = column("i8", "0: has not arrived, 1: under way, 2: has ended")
    weight: float = column("f8", "in the objective; 0: does not count")
    origin: float = column("f8", "what its end is counted from", "s")
    alone: float = column("f8", "it takes that long without any other", "s")
    settled: float = column("f8", "no end before this, whatever is decided", "s")
    end: float = column("f8", "the same in the running play", "s")


class Seconds(Row):
    """Cached cost of a stage on a device, without the model load, for one version of the device."""

    transfer: float = column("f8", "of its inputs", "s")
    run: float = column("f8", "prefill + decode", "s")
    version: int = column("i8", "of the device when they were looked up")


class Mark(Row):
    """A moment of a play (`policies.fate.plans.marks`); the state is kept apart."""

    placed: int = column("i8", "stages placed so far")
    second: float = column("f8", "sum of their ends", "s")


class Workspace(Block):
    """The tables of plays and searches."""

    work: int = scalar(
        "i8", "of all plays: `stage_work` a stage placed, 1 for 8 devices compared for one"
    )
    stage_work: int = scalar("i8", "work of placing one stage")
    version: int = scalar("i8", "counts changes of any device in any play")
    plays: int = scalar("i8", "counts plays")
    placed: int = scalar("i8", "stages placed in the running play")
    ordered: int = scalar("i8", "length of `order` in the running play; -1: not in order")
    tuned_on: int = scalar("i8", "of `futures`: searches value plans in so many; 0: as expected")
    wait_until: float = scalar("f8", "nothing starts before, in a drawn future", "s")
    second: float = scalar("f8", "of the last play: sum of stage ends; decides between equals", "s")
    random: Any = scalar("u8", "state of the random numbers")
    several: int = scalar("i8", "1: the problem has more than one workflow")
    tools: int = scalar("i8", "1: some stages are tools")
    past_count: int = scalar("i8", "length of `past`")
    ended_count: int = scalar("i8", "workflows that have ended")
    movable_count: int = scalar("i8", "length of `movable`")
    path_length: int = scalar("i8", "length of `path`")
    marks_count: int = scalar("i8", "length of `marks`")
    next_mark: int = scalar("i8", "the running play is marked once so many stages are placed")

    devices: Any = table(DeviceTurn, "D", text="devices")
    stages: Any = table(StageFacts, "S", text="stages")
    workflows: Any = table(WorkflowValue, "W", text="workflows")
    cached: Any = table(Seconds, "S", "D", text="costs, looked up once for a version of a device")
    futures: Any = table("i8", "F", text="addresses of forks with drawn futures")
    order: Any = table("i8", "S", text="the ready stages by key")
    listed: Any = table("i8", "S", text="the last play in whose `order` a stage was")
    started: Any = table("i8", "S", text="what the last dispatch has placed")
    firsts: Any = table("i8", "S", text="scratch: a ready stage of each kind")
    movable: Any = table("i8", "S", text="stages whose plan a search may change")
    path: Any = table("i8", "S", text="those of them that decide the objective")
    late: Any = table("f8", "TAIL", text="scratch: by how much workflows are late, worst first")
    past: Any = table("f8", "TAIL", unit="s", text="worst latencies of ended workflows, in order")
    mark_states: Any = table("i8", "MARKS", text="addresses of the states at the marks")
    marks: Any = table(Mark, "MARKS", text="of the play of the plan that a search changes")
    mark_ends: Any = table("f8", "MARKS", "W", unit="s", text="ends of workflows known there")
    marked: Any = table("i8", "S", text="marks before a movable stage is ready")


class Style(NamedTuple):
    """How a plan is played and valued.

    Attributes:
        objective: one of `policies.fate.plans.objective`.
        shards: most devices that may share a stage that chooses for itself.
        strict: 1: such a stage does not see residency and caches.
        biased: 1: such a stage follows the `Biases`.
        horizon: edges from the frontier that are played; -1: all.
    """

    objective: int
    shards: int
    strict: int
    biased: int
    horizon: int


class Context(NamedTuple):
    """The data plays and searches work on. All but ``problem`` and ``log`` is written to.

    Attributes:
        problem: as the planner sees it.
        start: current state of the run, with expected times; plays begin with a copy of it.
        state: state of the running play.
        ended: final state of the play from which a search continues.
        log: a log without rows.
        best: the best plan so far.
        base: a list schedule in which no stage has devices yet.
        draft: the plan being tried.
        found: the best plan that a search has found, or the one from which it continues.
        played: outcome of the last play.
        biases: biases of list schedules.
        kept: biases to return to.
        choice: room for one placement.
        work: all other tables.
    """

    problem: ProblemArrays
    start: StateArrays
    state: StateArrays
    ended: StateArrays
    log: LogArrays
    best: Plan
    base: Plan
    draft: Plan
    found: Plan
    played: Plan
    biases: Biases
    kept: Biases
    choice: Placements
    work: Workspace


def new_context(
    p: ProblemArrays, start: StateArrays, kinds: int, tail: int, futures: int, marks: int
) -> Context:
    """Allocate a context for plays of an excerpt.

    Args:
        p: problem of the excerpt.
        start: state of the excerpt.
        kinds: number of kinds of stages in the whole problem.
        tail: number of workflows in the whole problem.
        futures: number of drawn futures.
        marks: number of marks.
    """
    stages, devices, workflows = p.stages.size, p.devices.size, p.workflows.size
    work = Workspace.allocate(S=stages, D=devices, W=workflows, F=futures, TAIL=tail, MARKS=marks)
    work.next_mark = NEVER
    # 0.5 us while all fits the processor's caches, 2 us with 10,000 stages; every event looks at
    # all devices.
    work.stage_work = 1 + stages // 3_000 + devices // 64
    biases = Biases.allocate(N=min(kinds, max(stages, 1)), D=devices, W=workflows)
    state, ended = new_state(p), new_state(p)
    best, base, draft, found, played = (Plan.allocate(S=stages, K=p.max_shards) for _ in range(5))
    choice = new_placements(1, p.max_shards, devices)
    return Context(
        p, start, state, ended, NO_LOG, best, base, draft, found, played, biases, biases.copy(),
        choice, work,
    )  # fmt: skip
