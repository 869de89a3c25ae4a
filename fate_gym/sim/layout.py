"""Where everything lies: one byte buffer for the problem, one for the state.

A buffer holds tables of records (one record an entity) and plain matrices, one after the other.
Copying a state is one memory copy; a call from Python into compiled code passes two arrays; a
batch of environments is a matrix of buffers. `problem_view` and `state_view` cut a buffer into
named arrays; the same functions serve compiled code and Python (through ``py_func``).

Shapes: S stages, D devices, M models, Q prefix keys, W workflows, E edges, N nodes,
K = ``max_shards``, F = S with contention, else 0. Units: seconds, bytes, bytes/s, tokens.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fate_gym.compiled import inlined
from fate_gym.sim.tables import matrix, table

Buffer = NDArray[np.uint8]
Array = NDArray[Any]
Record = Any
"""One row of a table."""

MODEL_STAGE, FIXED_STAGE, TOOL_STAGE = 0, 1, 2
WAITING, READY, PLACED, DONE = 0, 1, 2, 3
LOSING, VANISHED = 1, 2
"""What a stage may be besides: a shard of its placement was lost; it was drawn not to live."""
LIVE, EXPECTED, SAMPLED = 0, 1, 2
"""Where a state comes from: the run itself, or a fork of it."""
ON_HOST = -1
"""In place of kept queries: the device has failed since, the output is on its host."""
EVICT_PREFIX, EVICT_CONTEXT, EVICT_WEIGHTS = 0, 1, 2
HOST = -1


def _record(**fields: str) -> np.dtype[Any]:
    dtype: Any = np.dtype(list(fields.items()), align=True)
    # Every section starts on 8 bytes, so every record must be a multiple of 8.
    return np.dtype(
        {
            "names": list(dtype.names or ()),
            "formats": [dtype.fields[name][0] for name in dtype.names or ()],
            "offsets": [dtype.fields[name][1] for name in dtype.names or ()],
            "itemsize": -(-dtype.itemsize // 8) * 8,
        },
        align=True,
    )


# --- the problem ---------------------------------------------------------------------------

PROBLEM_HEAD = _record(
    stages="i8",
    devices="i8",
    models="i8",
    prefixes="i8",
    workflows="i8",
    edges="i8",
    nodes="i8",
    max_shards="i8",
    eager="i4",  # transfers start when the parent ends
    contention="i4",  # transfers between nodes share the nodes' network interfaces
    max_batch="i8",  # queries in one wave, at most
    choosers="i8",  # stages at whose end it is drawn which others live
    failing="i8",  # 1 if devices fail
    outages="i8",  # given failures; 0 with failing: they are drawn
    uncertainty="f8",  # sigma of the lognormal noise
    length_uncertainty="f8",  # sigma of actual / estimated output tokens
    mtbf_s="f8",  # mean seconds between a repair and the next failure
    mttr_s="f8",  # mean seconds of a repair
    most_failures="i8",  # of a device, where they are drawn
    gather_s="f8",  # per shard beyond the first
    ramp_tokens="f8",  # MFU(T) = mfu * T / (T + ramp)
    launch_s="f8",
)
STAGE = _record(
    workflow="i4",
    kind="i4",  # MODEL_STAGE, FIXED_STAGE, TOOL_STAGE
    model="i4",  # -1 without a model
    queries="i4",
    prefix="i4",  # prefix key, -1 without
    prefix_tokens="i4",
    prompt_tokens="i4",
    output_tokens="i4",
    inherited_tokens="i4",  # sum over the edges in
    keeps_context="i4",  # 1 if a child with the same model inherits
    parents_from="i4",  # edges[parents_from:parents_to] lead here
    parents_to="i4",
    children_from="i4",  # out_edges[children_from:children_to] lead away
    children_to="i4",
    chooser="i4",  # the stage at whose end it is drawn whether this one lives, -1 without
    chooses="i4",  # 1 if this is the chooser of others
    lives_from="f8",  # it lives if the chooser's draw is in [lives_from, lives_to)
    lives_to="f8",
    likely="f8",  # of a chooser: a draw with the most likely outcome
    tool_seconds="f8",
    mean_seconds="f8",  # clean seconds, mean over eligible devices
    upward_rank="f8",  # Topcuoglu et al. 2002, eq. 8
    downward_rank="f8",  # eq. 9
)
EDGE = _record(
    parent="i4",
    child="i4",
    inherited_tokens="i4",
    same_model="i4",
    bytes="f8",
    mean_seconds="f8",  # transfer between two devices, mean over pairs
)
DEVICE = _record(
    node="i4",
    outages_from="i4",  # outages[outages_from:outages_to] are this device's
    outages_to="i4",
    memory="f8",  # limit of weights + KV
    flops="f8",  # mfu x peak
    bandwidth="f8",  # mbu x memory bandwidth
    attention_flops="f8",  # attention's mfu x peak
    attention_bandwidth="f8",  # attention's mbu x memory bandwidth
    memory_rate="f8",  # memory bandwidth
    host_bandwidth="f8",
)
MODEL = _record(
    active="f8",  # parameters that every token is multiplied with
    head="f8",  # parameters of the output projection
    weight_bytes="f8",
    read_bytes="f8",  # weights that a step reads
    kv="f8",  # bytes a token
    attention="f8",  # 4 x layers x heads x dim: FLOPs per (new token x token attended to)
    traffic="f8",  # bytes a token between the GEMMs
    layers_s="f8",  # fixed seconds of a step
    expert_bytes="f8",  # weights that lie in experts
    expert_miss="f8",  # 1 - k/E
)
OUTAGE = _record(start="f8", end="f8")
WORKFLOW = _record(arrival="f8", stages_from="i4", stages_to="i4")


class ProblemView(NamedTuple):
    """Named arrays over a problem buffer."""

    head: Array  # (1,) PROBLEM_HEAD
    stages: Array  # (S,) STAGE
    edges: Array  # (E,) EDGE, sorted by child
    out_edges: Array  # (E,) edge numbers, sorted by parent
    devices: Array  # (D,) DEVICE
    models: Array  # (M,) MODEL
    workflows: Array  # (W,) WORKFLOW
    outages: Array  # (O,) OUTAGE by device and start
    arrivals: Array  # (W,) workflow numbers by arrival
    topological: Array  # (S,) stage numbers, parents first
    by_rank: Array  # (S,) stage numbers, largest upward rank first
    prefix_model: Array  # (Q,) model of a prefix key
    clean_seconds: (
        Array  # (S, D) prefill + decode of all queries, nothing cached; inf: not eligible
    )
    decode_seconds: Array  # (S, D) decode of all queries
    load_seconds: Array  # (M, D)
    link_bandwidth: Array  # (D, D) from row to column
    link_latency: Array  # (D, D)
    link: Array  # (D, D) number of the link into the column's device
    buffer: Array  # all of the above


def problem_bytes(s: int, d: int, m: int, q: int, w: int, e: int, o: int) -> int:
    """Size of a problem buffer."""
    records = (
        PROBLEM_HEAD.itemsize
        + s * STAGE.itemsize
        + e * EDGE.itemsize
        + d * DEVICE.itemsize
        + m * MODEL.itemsize
        + w * WORKFLOW.itemsize
        + o * OUTAGE.itemsize
    )
    integers = 8 * (e + w + 2 * s + q + d * d)
    floats = 8 * (2 * s * d + m * d + 2 * d * d)
    return int(records + integers + floats)


@inlined
def problem_view(buffer: Buffer) -> ProblemView:
    """Cut a problem buffer into a `ProblemView`."""
    o = PROBLEM_HEAD_BYTES
    head = table(buffer, 0, 1, PROBLEM_HEAD)
    h = head[0]
    s, d, m = h["stages"], h["devices"], h["models"]
    q, w, e = h["prefixes"], h["workflows"], h["edges"]
    stages = table(buffer, o, s, STAGE)
    o += s * STAGE_BYTES
    edges = table(buffer, o, e, EDGE)
    o += e * EDGE_BYTES
    out_edges = table(buffer, o, e, np.int64)
    o += e * 8
    devices = table(buffer, o, d, DEVICE)
    o += d * DEVICE_BYTES
    models = table(buffer, o, m, MODEL)
    o += m * MODEL_BYTES
    workflows = table(buffer, o, w, WORKFLOW)
    o += w * WORKFLOW_BYTES
    outages = table(buffer, o, h["outages"], OUTAGE)
    o += h["outages"] * OUTAGE_BYTES
    arrivals = table(buffer, o, w, np.int64)
    o += w * 8
    topological = table(buffer, o, s, np.int64)
    o += s * 8
    by_rank = table(buffer, o, s, np.int64)
    o += s * 8
    prefix_model = table(buffer, o, q, np.int64)
    o += q * 8
    clean_seconds = matrix(buffer, o, s, d, np.float64)
    o += s * d * 8
    decode_seconds = matrix(buffer, o, s, d, np.float64)
    o += s * d * 8
    load_seconds = matrix(buffer, o, m, d, np.float64)
    o += m * d * 8
    link_bandwidth = matrix(buffer, o, d, d, np.float64)
    o += d * d * 8
    link_latency = matrix(buffer, o, d, d, np.float64)
    o += d * d * 8
    link = matrix(buffer, o, d, d, np.int64)
    return ProblemView(
        head,
        stages,
        edges,
        out_edges,
        devices,
        models,
        workflows,
        outages,
        arrivals,
        topological,
        by_rank,
        prefix_model,
        clean_seconds,
        decode_seconds,
        load_seconds,
        link_bandwidth,
        link_latency,
        link,
        table(buffer, 0, buffer.size, np.uint8),
    )


# --- the state -----------------------------------------------------------------------------

STATE_HEAD = _record(
    now="f8",
    last_end="f8",  # latest stage end so far
    ready="i8",  # length of the ready list
    events="i8",  # length of the event heap
    next_arrival="i8",  # position in problem.arrivals
    known_left="i8",  # unfinished stages of arrived workflows
    clock="i8",  # counts touches; the order of use
    instants="i8",  # counts the instants with events
    shard_rows="i8",  # rows written to the log
    eviction_rows="i8",
    seed="i8",  # of the noise, of choices and of failures
    origin="i8",  # LIVE, EXPECTED, SAMPLED
    next_change="f8",  # when the next device fails or is repaired; inf: none does
    noisy="i8",  # 0: durations are the estimates
    sender="i8",  # 1 + device that sends a prefix, within `commit_from`; 0 between calls
    retentions="i8",  # times that a policy has ranked what is cached; 0: evict by LRU
)
DEVICE_STATE = _record(
    drains_at="f8",  # when the queue of committed shards is empty; inf: the device is down
    backlog="f8",  # estimated busy seconds of the queue, the running shard included
    weight_bytes="f8",  # resident when the queue has drained
    kv_bytes="f8",  # cached when the queue has drained
    oldest="i4",  # least recently touched KV entry, -1 without
    newest="i4",
    queue_head="i4",  # the running shard's slot (stage x K + slot), -1: idle
    queue_tail="i4",
    changes="i4",  # failures and repairs so far; odd: down
    changes_at="f8",  # when the next one is
)
STAGE_STATE = _record(
    status="i4",  # WAITING, READY, PLACED, DONE
    missing="i4",  # parents (and arrival) still to come
    shards="i4",
    note="i4",  # 0, LOSING, VANISHED
    ready_at="f8",
    end="f8",  # once done
)
SLOT = _record(
    device="i4",
    queries="i4",
    kept="i4",  # queries whose context is still cached on the device, or ON_HOST
    next="i4",  # the slot behind this one in the device's queue
    start="f8",  # its turn
    busy="f8",  # estimated seconds from its turn to its end
)
FETCH = _record(
    start="f8",  # when the network interfaces are booked
    end="f8",
    senders="i8",  # bits: the nodes that send; 0: nothing comes over the network
)
EVENT = _record(time="f8", id="i8")  # id = stage x (K + 1) + slot; slot K: the stage's end


class StateView(NamedTuple):
    """Named arrays over a state buffer. KV entries: d x Q + q, then D x Q + stage x K + slot."""

    head: Array  # (1,) STATE_HEAD
    devices: Array  # (D,) DEVICE_STATE
    stages: Array  # (S,) STAGE_STATE
    slots: Array  # (S, K) SLOT
    resident: Array  # (D, M) 0: absent, else the time of last use on `clock`
    prefix_tokens: Array  # (D, Q) cached tokens
    prefix_there: Array  # (D, Q) when the last of these tokens is computed, or has arrived
    keep: Array  # (D x Q + S x K + D x M,) KV entries, then models: the lowest is evicted first
    ready: Array  # (S,) stage numbers; the first head.ready count
    older: Array  # (D x Q + S x K,) neighbours in the device's list of KV entries by use
    newer: Array
    events: Array  # (S x (K + 1),) binary heap
    link_seconds: Array  # (D + N + 1,) scratch: always zero between calls
    fetches: Array  # (F, K) FETCH of the shards; counts while the shard is in a queue
    buffer: Array  # all of the above


def state_bytes(s: int, d: int, m: int, q: int, n: int, k: int, *, contention: bool) -> int:
    """Size of a state buffer."""
    return int(
        STATE_HEAD.itemsize
        + d * DEVICE_STATE.itemsize
        + s * STAGE_STATE.itemsize
        + s * k * SLOT.itemsize
        + 8 * d * m
        + 4 * (-(-d * q // 2) * 2)
        + 8 * d * q
        + 8 * (d * q + s * k + d * m)
        + 4 * (-(-s // 2) * 2)
        + 2 * 4 * (-(-(d * q + s * k) // 2) * 2)
        + s * (k + 1) * EVENT.itemsize
        + 8 * (d + n + 1)
        + (s * k * FETCH.itemsize if contention else 0)
    )


@inlined
def _padded(size: int) -> int:
    """The next multiple of 8 bytes."""
    return (size + 7) // 8 * 8


@inlined
def state_view(buffer: Buffer, p: ProblemView) -> StateView:
    """Cut a state buffer into a `StateView`; ``p`` is the problem's view."""
    h = p.head[0]
    s, d, m, q, k = h["stages"], h["devices"], h["models"], h["prefixes"], h["max_shards"]
    o = STATE_HEAD_BYTES
    head = table(buffer, 0, 1, STATE_HEAD)
    devices = table(buffer, o, d, DEVICE_STATE)
    o += d * DEVICE_STATE_BYTES
    stages = table(buffer, o, s, STAGE_STATE)
    o += s * STAGE_STATE_BYTES
    slots = matrix(buffer, o, s, k, SLOT)
    o += s * k * SLOT_BYTES
    resident = matrix(buffer, o, d, m, np.int64)
    o += d * m * 8
    prefix_tokens = matrix(buffer, o, d, q, np.int32)
    o += _padded(d * q * 4)
    prefix_there = matrix(buffer, o, d, q, np.float64)
    o += d * q * 8
    keep = table(buffer, o, d * q + s * k + d * m, np.float64)
    o += (d * q + s * k + d * m) * 8
    ready = table(buffer, o, s, np.int32)
    o += _padded(s * 4)
    older = table(buffer, o, d * q + s * k, np.int32)
    o += _padded((d * q + s * k) * 4)
    newer = table(buffer, o, d * q + s * k, np.int32)
    o += _padded((d * q + s * k) * 4)
    events = table(buffer, o, s * (k + 1), EVENT)
    o += s * (k + 1) * EVENT_BYTES
    link_seconds = table(buffer, o, d + h["nodes"] + 1, np.float64)
    o += (d + h["nodes"] + 1) * 8
    fetches = matrix(buffer, o, s * h["contention"], k, FETCH)
    return StateView(
        head,
        devices,
        stages,
        slots,
        resident,
        prefix_tokens,
        prefix_there,
        keep,
        ready,
        older,
        newer,
        events,
        link_seconds,
        fetches,
        table(buffer, 0, buffer.size, np.uint8),
    )


# --- the log -------------------------------------------------------------------------------

SHARD_ROW = _record(
    stage="i4",
    slot="i4",
    device="i4",  # HOST for tools
    queries="i4",
    waves="i4",
    lost="i4",  # 1: the device failed before the shard ended
    source="i4",  # device that a prefix was copied from, -1: none was
    committed="f8",
    start="f8",
    load_s="f8",
    transfer_s="f8",
    prefill_s="f8",
    decode_s="f8",
    noise="f8",
    length="f8",  # actual / estimated output tokens
    end="f8",
    prefix_hit="f8",
    prefix_new="f8",
    context_hit="f8",
    context_new="f8",
    copied="f8",  # prefix tokens copied from `source`; part of prefix_hit
    bytes_moved="f8",
)
EVICTION_ROW = _record(shard="i4", device="i4", kind="i4", key="i4", bytes="f8")


class Log(NamedTuple):
    """What happened, row by row. Empty arrays: nothing is recorded (rollouts)."""

    shards: Array  # (R,) SHARD_ROW in commit order
    evictions: Array  # (X,) EVICTION_ROW


def make_log(stages: int, max_shards: int, attempts: int = 1) -> Log:
    """A log with room for one run: a shard adds at most three entries that can be evicted.

    ``attempts`` is how often a stage is placed on average, at most.
    """
    rows = stages * max_shards * attempts
    return Log(np.zeros(rows, SHARD_ROW), np.zeros(3 * rows, EVICTION_ROW))


NO_LOG = Log(np.zeros(0, SHARD_ROW), np.zeros(0, EVICTION_ROW))

PROBLEM_HEAD_BYTES = PROBLEM_HEAD.itemsize
STAGE_BYTES = STAGE.itemsize
EDGE_BYTES = EDGE.itemsize
DEVICE_BYTES = DEVICE.itemsize
MODEL_BYTES = MODEL.itemsize
WORKFLOW_BYTES = WORKFLOW.itemsize
OUTAGE_BYTES = OUTAGE.itemsize
STATE_HEAD_BYTES = STATE_HEAD.itemsize
DEVICE_STATE_BYTES = DEVICE_STATE.itemsize
STAGE_STATE_BYTES = STAGE_STATE.itemsize
SLOT_BYTES = SLOT.itemsize
EVENT_BYTES = EVENT.itemsize
