"""Plans: for every stage where it runs and in what order, as one byte buffer.

A plan is *played* (`policies.fate.player`): whenever a device is idle, the ready stage that comes
first in the order and is planned there starts. A stage without devices in the plan chooses its own,
as a list scheduler does, and the play writes the choice down; so a list schedule is a plan in which
nothing is planned yet, a candidate is one in which a single stage is, and what comes out of a play
is a complete plan that can be played again, changed, and compared.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fate_gym.compiled import inlined
from fate_gym.sim.layout import Array, Buffer, ProblemView
from fate_gym.sim.tables import matrix, table

PLAN_STAGE = np.dtype(
    [
        ("key", "f8"),  # order: smallest first
        ("not_before", "f8"),  # does not start before this time
        ("width", "i8"),  # devices planned; 0: chooses when its turn comes
    ]
)
PLAN_STAGE_BYTES = PLAN_STAGE.itemsize


class PlanView(NamedTuple):
    """Named arrays over a plan buffer. S stages, K shards."""

    stages: Array  # (S,) PLAN_STAGE
    devices: Array  # (S, K)
    counts: Array  # (S, K) queries


def plan_bytes(stages: int, shards: int) -> int:
    """Size of a plan buffer."""
    return int(stages * (PLAN_STAGE.itemsize + 16 * shards))


@inlined
def plan_view(buffer: Buffer, p: ProblemView) -> PlanView:
    """Cut a plan buffer into a `PlanView`; ``p`` is the problem's view."""
    s, k = p.head[0]["stages"], p.head[0]["max_shards"]
    o = s * PLAN_STAGE_BYTES
    return PlanView(
        table(buffer, 0, s, PLAN_STAGE),
        matrix(buffer, o, s, k, np.int64),
        matrix(buffer, o + s * k * 8, s, k, np.int64),
    )


# --- the planner's own room ------------------------------------------------------------------

DESK_HEAD = np.dtype(
    [
        ("kinds", "i8"),
        ("version", "i8"),  # counts changes of any device in any play
        # Work done in all plays: 1 for a stage placed, 1 for each 8 devices compared for one.
        ("work", "i8"),
        ("plays", "i8"),
        ("placed", "i8"),  # stages placed in the running play
        ("random", "u8"),  # state of the random numbers
        ("value", "f8"),  # objective of the last play
        ("second", "f8"),  # of the last play: sum of stage ends, which decides between equals
    ]
)
DESK_DEVICE = np.dtype(
    [
        ("turn", "f8"),  # when it is free, with what is planned at this instant
        ("version", "i8"),  # of its memory
        ("planned", "i8"),  # model that a stage planned at this instant brings, -1
        ("free", "i8"),  # 1: idle and not spoken for
    ]
)
DESK_STAGE = np.dtype(
    [
        ("tail", "f8"),  # seconds that must pass between its end and its workflow's
        ("depth", "i8"),  # edges from the frontier
        ("kind", "i8"),  # number of its (model, prefix) pair
        # By kind, not by stage:
        ("shift", "f8"),  # of the keys of the kind
        ("spread", "i8"),  # devices that a stage of the kind chooses, at most
    ]
)
DESK_WORKFLOW = np.dtype(
    [
        ("weight", "f8"),  # in the objective; 0: unknown as yet
        ("origin", "f8"),  # what its end is counted from
        ("settled", "f8"),  # no end before this, whatever is decided
        ("end", "f8"),  # the same in the running play
        ("ideal", "f8"),  # seconds that it takes alone
        ("shift", "f8"),  # of the keys of its stages
    ]
)
DESK_HEAD_BYTES = DESK_HEAD.itemsize
DESK_DEVICE_BYTES = DESK_DEVICE.itemsize
DESK_STAGE_BYTES = DESK_STAGE.itemsize
DESK_WORKFLOW_BYTES = DESK_WORKFLOW.itemsize


class DeskView(NamedTuple):
    """What the planner keeps beside plans and states. S, D, W as in `fate_gym.sim.layout`."""

    head: Array  # (1,) DESK_HEAD
    devices: Array  # (D,) DESK_DEVICE
    stages: Array  # (S,) DESK_STAGE
    workflows: Array  # (W,) DESK_WORKFLOW
    order: Array  # (S,) the ready stages by key
    started: Array  # (S,) what the last dispatch placed
    ends: Array  # (D,) scratch
    chosen: Array  # (K,) devices of the placement at hand
    dealt: Array  # (K,) its queries
    trial: Array  # (K,) scratch
    tried: Array  # (K,) scratch
    movable: Array  # (S,) stages whose plan may change, see `policies.fate.search`
    path: Array  # (S,) those that decide the objective
    tails: Array  # (W,) scratch
    transfer: Array  # (S, D) cached seconds
    run: Array  # (S, D) cached prefill + decode
    tag: Array  # (S, D) version of the device that the two belong to
    bias: Array  # (S, D) by kind: seconds added to an end when a stage chooses


def desk_bytes(s: int, d: int, w: int, k: int) -> int:
    """Size of a desk buffer."""
    return int(
        DESK_HEAD.itemsize
        + d * DESK_DEVICE.itemsize
        + s * DESK_STAGE.itemsize
        + w * DESK_WORKFLOW.itemsize
        + 8 * (4 * s + d + 4 * k + w)
        + 32 * s * d
    )


@inlined
def desk_view(buffer: Buffer, p: ProblemView) -> DeskView:
    """Cut a desk buffer into a `DeskView`; ``p`` is the problem's view."""
    h = p.head[0]
    s, d, w, k = h["stages"], h["devices"], h["workflows"], h["max_shards"]
    o = DESK_HEAD_BYTES
    head = table(buffer, 0, 1, DESK_HEAD)
    devices = table(buffer, o, d, DESK_DEVICE)
    o += d * DESK_DEVICE_BYTES
    stages = table(buffer, o, s, DESK_STAGE)
    o += s * DESK_STAGE_BYTES
    workflows = table(buffer, o, w, DESK_WORKFLOW)
    o += w * DESK_WORKFLOW_BYTES
    order = table(buffer, o, s, np.int64)
    o += s * 8
    started = table(buffer, o, s, np.int64)
    o += s * 8
    ends = table(buffer, o, d, np.float64)
    o += d * 8
    chosen = table(buffer, o, k, np.int64)
    o += k * 8
    dealt = table(buffer, o, k, np.int64)
    o += k * 8
    trial = table(buffer, o, k, np.int64)
    o += k * 8
    tried = table(buffer, o, k, np.int64)
    o += k * 8
    movable = table(buffer, o, s, np.int64)
    o += s * 8
    path = table(buffer, o, s, np.int64)
    o += s * 8
    tails = table(buffer, o, w, np.float64)
    o += w * 8
    transfer = matrix(buffer, o, s, d, np.float64)
    o += s * d * 8
    run = matrix(buffer, o, s, d, np.float64)
    o += s * d * 8
    tag = matrix(buffer, o, s, d, np.int64)
    o += s * d * 8
    bias = matrix(buffer, o, s, d, np.float64)
    return DeskView(
        head,
        devices,
        stages,
        workflows,
        order,
        started,
        ends,
        chosen,
        dealt,
        trial,
        tried,
        movable,
        path,
        tails,
        transfer,
        run,
        tag,
        bias,
    )
