"""Where the environment's own arrays lie: facts of a problem, and the frame of a running episode.

As in `fate_gym.sim.layout`: byte buffers with tables in them. *Facts* are what the observation
needs to know of a problem and never changes: static features, best seconds, what children need.
The *frame* is what the environment keeps beside the simulator's state: the window, the placements
behind the action numbers with what they are expected to cost, and how much reward has been paid.

Shapes: S stages, D devices, M models, W workflows of the problem; B slots of the window, P
positions a slot, K shards, as fixed by the options; L is max_models.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fate_gym.compiled import inlined
from fate_gym.env.features import CANDIDATE_WIDTH, DEVICE_WIDTH, STAGE_WIDTH
from fate_gym.sim.layout import Array, Buffer, ProblemView
from fate_gym.sim.tables import matrix, table

MAKESPAN, LATENCY, SHAPED = 0, 1, 2


def _record(**fields: str) -> np.dtype[Any]:
    return np.dtype(list(fields.items()))


FACTS_HEAD = _record(
    scale="f8",  # seconds: a simple estimate of the makespan
    unit="f8",  # seconds per unit of reward
    first_arrival="f8",
    models="i8",  # L
)
STAGE_FACTS = _record(
    best="f8",  # clean seconds on the fastest device, or seconds of the tool
    path="f8",  # best seconds of the longest way from its start to the end of the workflow
    context="f8",  # KV bytes of one query beyond the prefix
    position="i8",  # in the order of the window, see `facts`
    eligible="i8",  # devices that can run it
)
PAIR = _record(
    can="i4",  # the device can run the stage
    batch="i4",  # queries in one wave at most
    speed="f4",  # best seconds / seconds here
    fit="f4",  # share of the children that can run here
    saved="f4",  # prefill seconds that the children save by running here too
    pad="i4",
)

FACTS_HEAD_BYTES, STAGE_FACTS_BYTES, PAIR_BYTES = (
    FACTS_HEAD.itemsize,
    STAGE_FACTS.itemsize,
    PAIR.itemsize,
)


class FactsView(NamedTuple):
    """Named arrays over a facts buffer."""

    head: Array  # (1,) FACTS_HEAD
    stages: Array  # (S,) STAGE_FACTS
    pairs: Array  # (S, D) PAIR
    child_models: Array  # (S, M) share of the children that use the model
    stage_rows: Array  # (S, STAGE_WIDTH + 2 L) static features, the others 0
    device_rows: Array  # (D, DEVICE_WIDTH + L)


def facts_bytes(s: int, d: int, m: int, models: int) -> int:
    """Size of a facts buffer."""
    floats = s * m + s * (STAGE_WIDTH + 2 * models) + d * (DEVICE_WIDTH + models)
    return FACTS_HEAD_BYTES + s * STAGE_FACTS_BYTES + s * d * PAIR_BYTES + 4 * floats


@inlined
def facts_view(buffer: Buffer, p: ProblemView) -> FactsView:
    """Cut a facts buffer; ``p`` is the problem's view."""
    h = p.head[0]
    s, d, m = h["stages"], h["devices"], h["models"]
    head = table(buffer, 0, 1, FACTS_HEAD)
    models = head[0]["models"]
    o = FACTS_HEAD_BYTES
    stages = table(buffer, o, s, STAGE_FACTS)
    o += s * STAGE_FACTS_BYTES
    pairs = matrix(buffer, o, s, d, PAIR)
    o += s * d * PAIR_BYTES
    child_models = matrix(buffer, o, s, m, np.float32)
    o += s * m * 4
    stage_rows = matrix(buffer, o, s, STAGE_WIDTH + 2 * models, np.float32)
    o += s * (STAGE_WIDTH + 2 * models) * 4
    device_rows = matrix(buffer, o, d, DEVICE_WIDTH + models, np.float32)
    return FactsView(head, stages, pairs, child_models, stage_rows, device_rows)


FRAME_HEAD = _record(
    # Options.
    slots="i8",  # B
    positions="i8",  # P
    shards="i8",  # K
    devices="i8",  # max_devices: position of the first split placement
    models="i8",  # L
    nodes="i8",  # max_stages, 0 without the graph
    edges="i8",  # max_edges
    reward="i8",  # MAKESPAN, LATENCY, SHAPED
    discount="f8",
    penalty="f8",
    time_scale="f8",
    # Where this episode's observation lies in the output buffer, bytes; -1: not shown.
    stages_at="i8",
    devices_at="i8",
    candidates_at="i8",
    globals_at="i8",
    nodes_at="i8",
    edges_at="i8",
    mask_at="i8",
    # The window.
    shown="i8",  # slots that hold a stage
    free="i8",  # lines that hold none
    looks="i8",  # observations so far
    can_wait="i8",
    # What happened in the last step.
    gain="f8",  # the reward
    ended="i8",
    invalid="i8",
    time="f8",  # simulated seconds
    # The episode.
    steps="i8",
    placements="i8",
    waits="i8",
    invalid_steps="i8",
    # What is known of the run; brought up to date after every instant.
    instants="i8",  # of the simulator, when it was
    arrived="i8",  # workflows, in the order of arrival
    active="i8",  # workflows with stages left
    stages="i8",  # of arrived workflows
    ended_stages="i8",
    active_since="f8",  # sum of the arrivals of active workflows
    ended_latency="f8",  # sum of the latencies of ended workflows
    work="f8",  # best seconds of stages that are known and not placed
    # How much of the objective has been paid.
    paid="f8",
    estimate="f8",  # of the last end, for the shaped reward
)
STAGE_FRAME = _record(
    line="i4",  # the line that holds the stage + 1, 0: none
    seen="i4",  # the last look at which it stood in the window
)
SEEN = _record(
    # What the cost of a stage on a device depends on: as long as these stay, so do the costs.
    drains_at="f8",
    weight_bytes="f8",
    kv_bytes="f8",
    oldest="i4",
    newest="i4",
)
PART = _record(
    load="f8",  # seconds
    transfer="f8",
    prefill="f8",
    decode="f8",
    moved="f8",  # bytes
    prefix_hit="f8",  # tokens
    context_hit="f8",  # tokens of one query
    evicted_kv="f8",  # share of the memory
    evicted_weights="f8",
)
FRAME_HEAD_BYTES, STAGE_FRAME_BYTES, SEEN_BYTES, PART_BYTES = (
    FRAME_HEAD.itemsize,
    STAGE_FRAME.itemsize,
    SEEN.itemsize,
    PART.itemsize,
)


class FrameView(NamedTuple):
    """Named arrays over a frame buffer.

    What is known of a stage in the window stands in a *line*, which it keeps while it is there;
    slots change when others come and go. Line l has the actions' placements at l P + position; of
    these the T = 3 (K - 1) on several devices are *teams*, at l T + position - max_devices.
    """

    head: Array  # (1,) FRAME_HEAD
    window: Array  # (B,) stage numbers, -1: empty
    lines: Array  # (B,) line of a slot
    before: Array  # (B,) scratch: the window of the look before
    free: Array  # (B,) stack of lines that hold no stage
    widths: Array  # (B P,) devices of a placement, 0: none
    members: Array  # (B T, K) devices
    counts: Array  # (B T, K) queries
    busy: Array  # (B T, K) seconds from turn to end
    ends: Array  # (D,) scratch
    order: Array  # (D,) scratch
    tally: Array  # (D,) scratch
    holders: Array  # (K,) scratch
    team: Array  # (K,) scratch
    deal: Array  # (K,) scratch
    turn: Array  # (D,) when the queue is expected to be empty
    turn_feature: Array  # (D,)
    planned: Array  # (D,) scratch: the turn behind the stages of larger rank
    changed: Array  # (D,) whether costs have changed since the last look
    demand: Array  # (D,)
    hits: Array  # (D,) scratch
    left: Array  # (W,) stages that had not ended when last counted; 0: ended or not arrived
    counted: Array  # (W,) ended stages of the run, when last counted
    stages: Array  # (S,) STAGE_FRAME
    seen: Array  # (D,) SEEN
    parts: Array  # (B, D) PART: the stage of the line as a whole on the device
    rows: Array  # (B P, CANDIDATE_WIDTH) features
    rows_at: int  # where they begin in the buffer


def frame_bytes(slots: int, positions: int, shards: int, s: int, d: int, w: int) -> int:
    """Size of a frame buffer."""
    actions = slots * positions
    teams = slots * 3 * (shards - 1)
    words = 4 * slots + actions + 3 * teams * shards + 3 * shards + 9 * d + 2 * w
    records = s * STAGE_FRAME_BYTES + d * SEEN_BYTES + slots * d * PART_BYTES
    rows = (4 * actions * CANDIDATE_WIDTH + 7) // 8 * 8
    return FRAME_HEAD_BYTES + 8 * words + records + rows


@inlined
def frame_view(buffer: Buffer, p: ProblemView) -> FrameView:
    """Cut a frame buffer; ``p`` is the problem's view."""
    head = table(buffer, 0, 1, FRAME_HEAD)
    h = head[0]
    slots, positions, shards = h["slots"], h["positions"], h["shards"]
    actions = slots * positions
    teams = slots * 3 * (shards - 1)
    s, d, w = p.head[0]["stages"], p.head[0]["devices"], p.head[0]["workflows"]
    o = FRAME_HEAD_BYTES
    window = table(buffer, o, slots, np.int64)
    o += slots * 8
    widths = table(buffer, o, actions, np.int64)
    o += actions * 8
    lines = table(buffer, o, slots, np.int64)
    o += slots * 8
    before = table(buffer, o, slots, np.int64)
    o += slots * 8
    free = table(buffer, o, slots, np.int64)
    o += slots * 8
    members = matrix(buffer, o, teams, shards, np.int64)
    o += teams * shards * 8
    counts = matrix(buffer, o, teams, shards, np.int64)
    o += teams * shards * 8
    busy = matrix(buffer, o, teams, shards, np.float64)
    o += teams * shards * 8
    ends = table(buffer, o, d, np.float64)
    o += d * 8
    order = table(buffer, o, d, np.int64)
    o += d * 8
    tally = table(buffer, o, d, np.int64)
    o += d * 8
    holders = table(buffer, o, shards, np.int64)
    o += shards * 8
    team = table(buffer, o, shards, np.int64)
    o += shards * 8
    deal = table(buffer, o, shards, np.int64)
    o += shards * 8
    turn = table(buffer, o, d, np.float64)
    o += d * 8
    turn_feature = table(buffer, o, d, np.float64)
    o += d * 8
    planned = table(buffer, o, d, np.float64)
    o += d * 8
    changed = table(buffer, o, d, np.int64)
    o += d * 8
    demand = table(buffer, o, d, np.float64)
    o += d * 8
    hits = table(buffer, o, d, np.float64)
    o += d * 8
    left = table(buffer, o, w, np.int64)
    o += w * 8
    counted = table(buffer, o, w, np.int64)
    o += w * 8
    stages = table(buffer, o, s, STAGE_FRAME)
    o += s * STAGE_FRAME_BYTES
    seen = table(buffer, o, d, SEEN)
    o += d * SEEN_BYTES
    parts = matrix(buffer, o, slots, d, PART)
    o += slots * d * PART_BYTES
    rows = matrix(buffer, o, actions, CANDIDATE_WIDTH, np.float32)
    return FrameView(
        head,
        window,
        lines,
        before,
        free,
        widths,
        members,
        counts,
        busy,
        ends,
        order,
        tally,
        holders,
        team,
        deal,
        turn,
        turn_feature,
        planned,
        changed,
        demand,
        hits,
        left,
        counted,
        stages,
        seen,
        parts,
        rows,
        o,
    )
