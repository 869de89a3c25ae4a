"""The environment's arrays for compiled code, besides problem and state.

Shapes: S stages, D devices, M models, W workflows of the problem; B slots of the window, P
positions per slot, K shards and O objectives, by the options; R = B P placements. F are columns of
features (`fate_gym.env.features`). The data of a stage in the window are kept in a *line* b < B as
long as it is there, while its slot changes as others come and go. The placement at a position of
line b is row ``b P + position`` of `fate_gym.kernel.placements.Placements` and of ``features``.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fate_gym.jit import Block, Row, column, scalar, table
from fate_gym.kernel.placements import Placements
from fate_gym.kernel.schema import LogArrays, ProblemArrays, StateArrays

MAKESPAN, LATENCY, SHAPED, SHAPED_LATENCY = 0, 1, 2, 3
"""Objectives that a reward can be based on."""

FeatureRow = Annotated[NDArray[np.float32], 1]
FeatureRows = Annotated[NDArray[np.float32], 2]


# --- facts ---------------------------------------------------------------------------------


class StageFacts(Row):
    """Facts of a stage."""

    best: float = column("f8", "clean seconds on the fastest device, or those of the tool", "s")
    path: float = column("f8", "best seconds of the longest way from its start to the end", "s")
    alone: float = column("f8", "the longest way through its workflow, by upward rank", "s")
    eligible: int = column("i8", "devices that can run it")


class Pair(Row):
    """A stage on a device; zeros where it cannot run."""

    speed: float = column("f4", "best seconds / seconds here")
    fit: float = column("f4", "share of the children that can run here")
    saved: float = column("f4", "prefill that the children save by running here too", "s")


class FactsArrays(Block):
    """A problem in an environment: options, and facts that observations need. Constant."""

    shards: int = scalar("i8", "K, devices of a placement, at most")
    positions: int = scalar("i8", "P, placements of a slot")
    first_team: int = scalar("i8", "max_devices: position of the first placement on several")
    discount: float = scalar("f8", "gamma of the shaped reward")
    penalty: float = scalar("f8", "price of an illegal action")
    most_invalid: int = scalar("i8", "illegal actions in a row that end the episode")
    time_scale: float = scalar("f8", "at which a time feature is 0.5", "s")
    scale: float = scalar("f8", "a simple estimate of the makespan", "s")
    unit: float = scalar("f8", "one unit of reward", "s")
    latency_unit: float = scalar("f8", "one unit of the shaped latency", "s")
    first_arrival: float = scalar("f8", "of the problem", "s")

    objectives: Any = table("i8", "O", text="MAKESPAN or another, for each reward")
    stages: Any = table(StageFacts, "S", text="stages")
    ideal: Any = table("f8", "W", unit="s", text="least latency of a workflow that is alone")
    order: Any = table("i8", "S", text="place of a stage in the problem's `by_rank`")
    pairs: Any = table(Pair, "S", "D", text="stages on devices")
    child_models: Any = table("f4", "S", "M", text="share of the children that use the model")
    stage_rows: Any = table("f4", "S", "STAGE_F", text="static features, the others 0")
    device_rows: Any = table("f4", "D", "DEVICE_F", text="static features, the others 0")


# --- the episode ---------------------------------------------------------------------------


class DeviceNow(Row):
    """A device as of the last observation."""

    turn: float = column("f8", "when all its shards are expected to have ended; inf: down", "s")
    turn_feature: float = column("f8", "the same as a feature")
    others: float = column("f8", "sum of the ends of its shards, if it batches", "s")
    admits: int = column("i8", "1: nobody waits for it, and it is up; exclusive: nothing runs")
    demand: float = column("f8", "of the stages in the window, a feature")
    hits: float = column("f8", "sum of the prefix hits of the stages in the window")
    planned: float = column("f8", "scratch: the turn behind the stages of the slots before", "s")
    taken: int = column("i8", "scratch: 1: a stage of a slot before is to go there")
    changed: int = column("i8", "1: costs on it are not what they were an observation before")
    # The load of its shards; of an exclusive device, as of the last change of its queue.
    queries: int = column("i8", "that run together")
    reserved: float = column("f8", "KV of these, as a share of the memory beside the weights")
    waiting: int = column("i8", "shards in line")
    tokens: float = column("f8", "to be computed, but for the running shard of a queue")
    running_tokens: float = column("f8", "of that shard, when it begins")
    running_since: float = column("f8", "when it began", "s")
    running_seconds: float = column("f8", "that it is expected to take", "s")
    head: int = column("i8", "slot number of that shard + 2")
    # While these stay the same, so do the costs of a stage on it.
    drains_at: float = column("f8", "of its state", "s")
    weight_bytes: float = column("f8", "of its state", "bytes")
    kv_bytes: float = column("f8", "of its state", "bytes")
    oldest: int = column("i4", "of its state")
    newest: int = column("i4", "of its state")
    # And of a batch, which moves on all the time.
    now: float = column("f8", "when that was", "s")
    instant: int = column("i8", "1 + that of the simulator")
    tail: int = column("i8", "where its queue ends: slot number + 2")
    admissions: int = column("i8", "of its state")


class StageNow(Row):
    """A stage's place in the window."""

    line: int = column("i4", "1 + the line that holds it, 0: none does")
    shown: int = column("i4", "the last observation whose window had it")


class Progress(Row):
    """The progress of a workflow."""

    left: int = column("i8", "stages without an end when last counted; 0: it has ended")
    unplaced: int = column("i8", "stages that are not placed")
    work: float = column("f8", "best seconds of these, without tools", "s")
    recounted: int = column("i8", "1 + the instant of the simulator when these were")
    ready: int = column("i8", "of these, ready")
    first: int = column("i8", "scratch: the ready stage of largest rank that is not shown, or -1")
    urgency: float = column("f8", "scratch: the part of its critical path that is left", "s")
    counted: int = column("i8", "ended stages of the run, when last counted")


class PlacementCost(Row):
    """The cost of a placement: `fate_gym.kernel.cost.Cost` of its shards, cache hits, evictions."""

    load: float = column("f8", "longest", "s")
    transfer: float = column("f8", "longest", "s")
    prefill: float = column("f8", "longest", "s")
    decode: float = column("f8", "longest", "s")
    busy: float = column("f8", "by how much later the devices are free, summed", "s")
    delay: float = column("f8", "of others on the devices, summed", "s")
    begin: float = column("f8", "latest, if the devices batch", "s")
    end: float = column("f8", "latest, if the devices batch", "s")
    admits: int = column("i8", "1: all begin at once, if the devices batch")
    moved: float = column("f8", "by all", "bytes")
    prefix_hit: float = column("f8", "cached prefix tokens; on several devices, x queries")
    context_hit: float = column("f8", "inherited tokens that need no prefill; likewise")
    evicted_kv: float = column("f8", "share of the memory, worst device")
    evicted_weights: float = column("f8", "share of the memory, worst device")


class EpisodeArrays(Block):
    """What the environment keeps of an episode besides the state."""

    shown: int = scalar("i8", "slots that hold a stage")
    free_count: int = scalar("i8", "lines that hold none")
    observations: int = scalar("i8", "so far")
    can_wait: int = scalar("i8", "1: waiting is legal")
    ended: int = scalar("i8", "1: every stage of every workflow has ended")
    truncated: int = scalar("i8", "1: too many illegal actions in a row have ended the episode")
    invalid: int = scalar("i8", "1: the last action was illegal")
    steps: int = scalar("i8", "actions so far")
    placements: int = scalar("i8", "actions that placed")
    waits: int = scalar("i8", "actions that waited")
    invalid_steps: int = scalar("i8", "actions that were illegal")
    invalid_streak: int = scalar("i8", "of these, in a row up to now")
    # The progress of the run, updated after every instant.
    instants: int = scalar("i8", "of the simulator, when it was")
    arrived: int = scalar("i8", "workflows, in the order of arrival")
    active: int = scalar("i8", "workflows with stages left")
    known_stages: int = scalar("i8", "of arrived workflows")
    ended_stages: int = scalar("i8", "of these")
    active_since: float = scalar("f8", "sum of the arrivals of active workflows", "s")
    ended_latency: float = scalar("f8", "sum of the latencies of ended workflows", "s")
    work: float = scalar("f8", "best seconds of stages that are known and not placed", "s")
    # The parts of the objectives that the rewards so far add up to.
    rewarded: float = scalar("f8", "the time up to the last step", "s")
    latency: float = scalar("f8", "the mean latency up to the last step", "s")
    estimate: float = scalar("f8", "of the last end, for the shaped reward", "s")
    to_come: float = scalar(
        "f8", "sum of the least latencies of workflows that have not arrived", "s"
    )
    latency_passed: float = scalar("f8", "of it, up to the last step of its shaped reward", "s")
    latency_estimate: float = scalar("f8", "of the mean latency, for its shaped reward", "s")

    rewards: Any = table("f8", "O", text="of the last step")
    window: Any = table("i8", "B", text="stage numbers, -1: empty")
    lines: Any = table("i8", "B", text="line of a slot")
    before: Any = table("i8", "B", text="scratch: the window of the observation before")
    free: Any = table("i8", "B", text="stack of lines that hold no stage")
    team: Any = table("i8", "K", text="scratch: device numbers")
    devices: Any = table(DeviceNow, "D", text="devices")
    stages: Any = table(StageNow, "S", text="stages")
    workflows: Any = table(Progress, "W", text="workflows")
    expected: Any = table("f8", "W", unit="s", text="scratch: ends of the workflows under way")
    models: Any = table("i8", "M", text="ready stages that use the model")
    best: Any = table("f8", "B", unit="s", text="earliest end of the stage of a line on one device")
    costs: Any = table(PlacementCost, "B", "D", text="of the stage of a line on one device")
    team_cost: Any = table(PlacementCost, 1, text="scratch: on several")
    ends: Any = table("f8", "R", "K", unit="s", text="of the shards of a row, if devices batch")
    forced: Any = table("f8", "S", unit="s", text="scratch: ends of stages under way")
    features: Any = table("f4", "R", "CANDIDATE_F", text="features of the placements")


class Run(NamedTuple):
    """A run in the environment: the first argument of compiled functions."""

    problem: ProblemArrays
    state: StateArrays
    facts: FactsArrays
    episode: EpisodeArrays
    placements: Placements
    scratch: StateArrays
    """A fork to place earlier stages in, on batching devices; else the same as ``state``."""
    unlogged: LogArrays
    """A log without rows."""


# --- observations --------------------------------------------------------------------------


class ObservationArrays(Block):
    """An observation; a group that is not shown has no rows. `fate_gym.env.output` lays it out."""

    stages: Any = table("f4", "B", "STAGE_F", text="stages of the window")
    devices: Any = table("f4", "max_devices", "DEVICE_F", text="devices")
    candidates: Any = table("f4", "R", "CANDIDATE_F", text="placements, by action number")
    globals: Any = table("f4", "GLOBAL_F", text="the run")
    dag_nodes: Any = table("f4", "max_stages", "NODE_F", text="stages of arrived workflows")
    dag_edges: Any = table("i4", "max_edges", 2, text="parent and child; -1: none")
    invalid_streak: Any = table("f4", 1, text="illegal actions in a row / most")
    action_mask: Any = table("?", "R + 1", text="the action is legal")


class Lane(Row):
    """The addresses of the arrays of one lane."""

    problem: int = column("i8", "address of ProblemArrays")
    state: int = column("i8", "address of StateArrays")
    facts: int = column("i8", "address of FactsArrays")
    episode: int = column("i8", "address of EpisodeArrays")
    placements: int = column("i8", "address of Placements")
    scratch: int = column("i8", "address of StateArrays")
    unlogged: int = column("i8", "address of LogArrays")


class LaneArrays(Block):
    """N environments that step together, and the results of their last step."""

    most_steps: int = scalar("i8", "steps that truncate an episode; 0: any number")
    lanes: Any = table(Lane, "N", text="their arrays")
    action: Any = table("i8", "N", text="to play")
    rewards: Any = table("f8", "N", "O", text="of the step")
    time: Any = table("f8", "N", unit="s", text="now")
    terminated: Any = table("?", "N", text="every stage has ended: the lane rests")
    truncated: Any = table("?", "N", text="the episode was cut off: the lane rests")
    invalid: Any = table("?", "N", text="the action was illegal")
    placements: Any = table("i8", "N", text="actions of the episode that placed")
    waits: Any = table("i8", "N", text="actions of the episode that waited")
    invalid_steps: Any = table("i8", "N", text="actions of the episode that were illegal")
