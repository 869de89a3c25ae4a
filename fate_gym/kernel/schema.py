"""The arrays of the compiled simulator: every field of problem, state and log.

Shapes: S stages, D devices, M models, Q prefix keys, W workflows, A of them that follow no other
and T that do, E edges, O outages, K = ``max_shards``, F = S with contention (else 0), B = D and
L = S on batching devices (else 0).
Units: seconds, bytes, bytes/s, tokens.
`fate_gym.jit.block` derives sizes, numpy views and compiled access from these classes.
"""

from __future__ import annotations

from typing import Any

from fate_gym.jit import Block, Row, column, scalar, table

MODEL_STAGE, FIXED_STAGE, TOOL_STAGE = 0, 1, 2
WAITING, READY, PLACED, DONE = 0, 1, 2, 3
LOSING, VANISHED = 1, 2
"""`StageState.note`: a shard of its placement was lost; its branch was not taken."""
LIVE, EXPECTED, SAMPLED = 0, 1, 2
"""The origin of a state: the run itself, or one of the two kinds of fork."""
EVICT_PREFIX, EVICT_CONTEXT, EVICT_WEIGHTS = 0, 1, 2
QUEUED, ADMITTED, JOINED, DECODING, ENDED = 0, 1, 2, 3, 4
"""States of a shard's present wave on a batching device; ENDED: the shard has ended."""
GRAZE = 1e-9
"""Seconds that count as the same moment, so that rounding does not decide the order."""
HOST = -1
"""Takes the place of a device number for the host, where tools run."""


# --- the problem ---------------------------------------------------------------------------


class Stage(Row):
    """A stage of a workflow."""

    workflow: int = column("i4", "its workflow")
    kind: int = column("i4", "MODEL_STAGE, FIXED_STAGE or TOOL_STAGE")
    model: int = column("i4", "-1 without a model")
    queries: int = column("i4", "in the batch")
    prefix: int = column("i4", "prefix key, -1 without")
    prefix_tokens: int = column("i4", "shared by all queries, from the root of the tree")
    written: int = column("i4", "prefix key of what it leaves cached, -1: no prefix")
    written_tokens: int = column("i4", "its tokens; more than `prefix_tokens`: it extends them")
    prompt_tokens: int = column("i4", "of each query, beyond prefix and inherited context")
    output_tokens: int = column("i4", "of each query, estimated")
    inherited_tokens: int = column("i4", "of each query, summed over the edges in")
    keeps_context: int = column("i4", "1 if a child with the same model inherits")
    parents_from: int = column("i4", "edges[parents_from:parents_to] lead here")
    parents_to: int = column("i4", "see parents_from")
    children_from: int = column("i4", "out_edges[children_from:children_to] lead away")
    children_to: int = column("i4", "see children_from")
    chooser: int = column("i4", "the stage at whose end it is drawn whether this one lives, or -1")
    chooses: int = column("i4", "1 if this is the chooser of others")
    lives_from: float = column("f8", "it lives if the chooser's draw is in [lives_from, lives_to)")
    lives_to: float = column("f8", "see lives_from")
    likely: float = column("f8", "of a chooser: a draw with the most likely outcome")
    tool_seconds: float = column("f8", "of a tool, estimated", "s")
    mean_seconds: float = column("f8", "clean seconds, mean over eligible devices", "s")
    upward_rank: float = column("f8", "Topcuoglu et al. 2002, eq. 8", "s")
    downward_rank: float = column("f8", "eq. 9", "s")


class Edge(Row):
    """An edge between two stages."""

    parent: int = column("i4", "stage")
    child: int = column("i4", "stage")
    inherited_tokens: int = column("i4", "context that each query of the child takes over")
    same_model: int = column("i4", "1 if parent and child have one model")
    bytes: float = column("f8", "output that moves", "bytes")
    mean_seconds: float = column("f8", "transfer between two devices, mean over pairs", "s")


class Device(Row):
    """A GPU, or a machine of a classical instance."""

    node: int = column("i4", "its node")
    outages_from: int = column("i4", "outages[outages_from:outages_to] are this device's")
    outages_to: int = column("i4", "see outages_from")
    memory: float = column("f8", "limit of weights + KV", "bytes")
    flops: float = column("f8", "mfu x peak", "FLOP/s")
    bandwidth: float = column("f8", "mbu x memory bandwidth", "bytes/s")
    attention_flops: float = column("f8", "attention's mfu x peak", "FLOP/s")
    attention_bandwidth: float = column("f8", "attention's mbu x memory bandwidth", "bytes/s")
    memory_rate: float = column("f8", "memory bandwidth", "bytes/s")
    ramp_tokens: float = column("f8", "MFU(T) = mfu x T / (T + ramp)", "tokens")
    linear_passes: float = column("f8", "passes over memory of a layer's linear part")
    attention_passes: float = column("f8", "the same of its attention")
    layer_s: float = column("f8", "fixed time of a layer", "s")
    launch_s: float = column("f8", "of a prefill", "s")
    reduce_bandwidth: float = column("f8", "of an all-reduce; 0: a single GPU", "bytes/s")
    reduce_s: float = column("f8", "fixed time of an all-reduce", "s")
    host_bandwidth: float = column("f8", "to and from its host", "bytes/s")


class Model(Row):
    """A language model."""

    active: float = column("f8", "parameters that every token is multiplied with")
    head: float = column("f8", "parameters of the output projection")
    weight_bytes: float = column("f8", "of all weights", "bytes")
    read_bytes: float = column("f8", "weights that a step reads", "bytes")
    kv: float = column("f8", "KV cache of a token", "bytes")
    attention: float = column("f8", "4 x layers x heads x dim", "FLOP per token and token")
    layers: float = column("f8", "number of layers")
    hidden: float = column("f8", "hidden size")
    attended: float = column("f8", "numbers of a token that attention reads and writes in a layer")
    reduces: float = column("f8", "all-reduces of a step where it is spread over GPUs")
    reduce_bytes: float = column("f8", "of a token in all of them", "bytes")
    expert_bytes: float = column("f8", "weights that lie in experts", "bytes")
    expert_miss: float = column("f8", "1 - k/E")


class Outage(Row):
    """A given failure of a device."""

    start: float = column("f8", "down from", "s")
    end: float = column("f8", "up again", "s")


class PrefixKey(Row):
    """A prefix of a model: a node of a tree. Its ancestors have smaller numbers."""

    model: int = column("i4", "its model")
    parent: int = column("i4", "the key that it branches off, -1: it is a root")
    start: int = column("i4", "tokens of the parent that it begins with, 0 of a root")


class Workflow(Row):
    """A workflow: stages[stages_from:stages_to]."""

    arrival: float = column("f8", "not before this: when it is known if it follows no other", "s")
    think_s: float = column("f8", "from the end of the one it follows to its arrival", "s")
    stages_from: int = column("i4", "its first stage")
    stages_to: int = column("i4", "behind its last stage")
    followers_from: int = column("i4", "followers[followers_from:followers_to] follow it")
    followers_to: int = column("i4", "see followers_from")
    session: int = column("i4", "sessions count from 1 by first use; 0: none")
    turn: int = column("i4", "how many it follows, directly or not")


class ProblemArrays(Block):
    """A compiled problem. Constant during a run."""

    nodes: int = scalar("i8", "nodes of the cluster")
    max_shards: int = scalar("i8", "devices that may share a stage")
    eager: int = scalar("i4", "1: transfers start when the parent ends")
    contention: int = scalar("i4", "1: transfers between nodes share the network interfaces")
    max_batch: int = scalar("i8", "queries in one wave, and sequences on a device, at most")
    batching: int = scalar("i4", "1: devices batch continuously; 0: one shard at a time")
    prefill_first: int = scalar("i4", "1: whole prompts before anybody decodes; 0: chunks")
    token_budget: int = scalar("i8", "tokens of an iteration, at most")
    choosers: int = scalar("i8", "stages at whose end it is drawn which others live")
    failing: int = scalar("i8", "1 if devices fail: as in `outages`, or drawn if there are none")
    most_failures: int = scalar("i8", "of a device, where they are drawn")
    uncertainty: float = scalar("f8", "sigma of the lognormal noise")
    length_uncertainty: float = scalar("f8", "sigma of actual / estimated output tokens")
    mtbf_s: float = scalar("f8", "mean time between a repair and the next failure", "s")
    mttr_s: float = scalar("f8", "mean time of a repair", "s")
    gather_s: float = scalar("f8", "for each shard beyond the first", "s")

    stages: Any = table(Stage, "S", text="stages, workflow by workflow")
    edges: Any = table(Edge, "E", text="edges, by child")
    out_edges: Any = table("i8", "E", text="edge numbers, by parent")
    devices: Any = table(Device, "D", text="devices")
    models: Any = table(Model, "M", text="models that occur")
    workflows: Any = table(Workflow, "W", text="workflows")
    outages: Any = table(Outage, "O", text="given failures, by device and start")
    arrivals: Any = table("i8", "A", text="workflows that follow no other, by arrival")
    followers: Any = table("i8", "T", text="workflows that follow others, by the one they follow")
    topological: Any = table("i8", "S", text="stage numbers, parents first")
    by_rank: Any = table("i8", "S", text="stage numbers, largest upward rank first")
    prefixes: Any = table(PrefixKey, "Q", text="prefix keys")
    batch: Any = table("i8", "S", "D", text="queries in one wave when all else is evicted")
    clean_seconds: Any = table(
        "f8", "S", "D", unit="s", text="prefill + decode, nothing cached; inf: not eligible"
    )
    decode_seconds: Any = table("f8", "S", "D", unit="s", text="decode of all queries")
    load_seconds: Any = table("f8", "M", "D", unit="s", text="load of the weights")
    link_bandwidth: Any = table("f8", "D", "D", unit="bytes/s", text="from row to column")
    link_latency: Any = table("f8", "D", "D", unit="s", text="from row to column")
    link: Any = table("i8", "D", "D", text="number of the link into the column's device")


# --- the state -----------------------------------------------------------------------------


class DeviceState(Row):
    """A device. Residency and caches are as they will be when its queue has drained."""

    drains_at: float = column("f8", "when the queue is empty; inf: the device is down", "s")
    backlog: float = column("f8", "estimated busy time of the queue, the running shard's too", "s")
    weight_bytes: float = column("f8", "resident", "bytes")
    kv_bytes: float = column("f8", "cached", "bytes")
    oldest: int = column("i4", "least recently used KV entry, -1 without")
    newest: int = column("i4", "most recently used KV entry")
    queue_head: int = column("i4", "the running shard's slot number, -1: idle")
    queue_tail: int = column("i4", "the last slot number of the queue")
    changes: int = column("i4", "failures and repairs so far; odd: down")
    changes_at: float = column("f8", "when the next one is", "s")


class StageState(Row):
    """The state of a stage."""

    status: int = column("i4", "WAITING, READY, PLACED or DONE")
    missing: int = column("i4", "parents (and arrival) still to come")
    shards: int = column("i4", "devices of its placement")
    note: int = column("i4", "0, LOSING or VANISHED")
    ready_at: float = column("f8", "since when it is ready", "s")
    end: float = column("f8", "once it is done", "s")


class WorkflowState(Row):
    """The state of a workflow."""

    arrived_at: float = column("f8", "since when it is known; inf: it is not", "s")
    left: int = column("i8", "stages that have not ended")


class Slot(Row):
    """A shard: part k of stage s lies in slots[s, k]."""

    device: int = column("i4", "its device; -1: lost")
    queries: int = column("i4", "its share of the batch")
    kept: int = column("i4", "queries whose context is cached on the device")
    on_host: int = column("i4", "1: the device has failed since, the output is on its host")
    next: int = column("i4", "the slot number behind this one in the device's queue")
    start: float = column("f8", "its turn", "s")
    busy: float = column("f8", "from its turn to its end, estimated; batching: when it ended", "s")


class Fetch(Row):
    """A queued shard's booking of the network."""

    start: float = column("f8", "when the network interfaces are booked", "s")
    end: float = column("f8", "until when", "s")
    senders: int = column("i8", "bits: the nodes that send; 0: nothing comes over the network")


class Batch(Row):
    """The work of a batching device: waves in lists, decoding ones ordered by their ends."""

    time: float = column("f8", "the border from which iterations are counted", "s")
    changes_at: float = column("f8", "the border at which something changes next, or inf", "s")
    loaded_at: float = column("f8", "when the weights of the served model are there", "s")
    ahead: int = column("i8", "iterations from `time` to `changes_at`")
    steps: int = column("i8", "iterations so far in which sequences decoded")
    decoding: int = column("i8", "sequences that decode")
    context: int = column("i8", "tokens that they attend to in the next step")
    noise: float = column("f8", "sum over decoding sequences of their noise")
    sequences: int = column("i8", "of all admitted waves")
    reserved: float = column("f8", "KV of admitted waves", "bytes")
    pinned: float = column("f8", "KV of prefixes that admitted waves use", "bytes")
    admissions: int = column("i8", "waves admitted so far")
    begun: int = column("i8", "times so far that a wave began to decode")
    serving: int = column("i4", "model of the admitted waves, -1: none is admitted or it has none")
    admitted: int = column(
        "i4", "slot number of the first admitted wave that has not joined, or -1"
    )
    prompt: int = column("i4", "of the first whose prompt is computed, or -1")
    decoder: int = column("i4", "of the first that decodes, or -1")
    unfinished: int = column("i4", "1: a shard that has waves left runs")


class Lane(Row):
    """A shard's progress on a batching device; its wave is in one of the device's lists."""

    state: int = column("i4", "QUEUED, ADMITTED, JOINED, DECODING or ENDED")
    wave: int = column("i4", "queries of the present wave")
    waiting: int = column("i4", "queries whose wave is still to come")
    prompt: int = column("i4", "prompt tokens of the wave that are not computed yet")
    made: int = column("i4", "output tokens of each query by `since`")
    output: int = column("i4", "output tokens in the end")
    granted: int = column("i4", "output tokens that KV is reserved for")
    grows: int = column("i4", "1: it brings more of its prefix than the device has computed")
    known: int = column("i4", "prefix tokens that the device had computed at the admission")
    prefix_hit: int = column(
        "i4", "prefix tokens that need no prefill: copied, or found at the join"
    )
    source: int = column("i4", "the device asked to send its prefix, -1: none")
    row: int = column("i4", "its row in the log")
    blind: int = column("i4", "1: a planner counts it as if nothing were loaded or cached for it")
    number: int = column("i8", "of its admission")
    since: int = column("i8", "the device's steps when it began to decode")
    began: int = column("i8", "how many had begun to decode before")
    admitted_at: float = column("f8", "when its wave was admitted", "s")
    there: float = column("f8", "when its inputs and weights are there", "s")
    pair_s: float = column("f8", "attention of one of its prompt tokens", "s")
    context_hit: float = column("f8", "inherited tokens of a query that are cached", "tokens")
    noise: float = column("f8", "factor on the duration")


class Event(Row):
    """The end of a shard or a stage, or an arrival; see `fate_gym.kernel.numbers`."""

    time: float = column("f8", "when", "s")
    id: int = column("i8", "which")


class StateArrays(Block):
    """A moment of a run or of a fork. Only the kernel writes to it."""

    now: float = scalar("f8", "simulated time", "s")
    last_end: float = scalar("f8", "latest end of a stage so far", "s")
    ready_count: int = scalar("i8", "length of the ready list")
    event_count: int = scalar("i8", "length of the event heap")
    next_arrival: int = scalar("i8", "position in problem.arrivals")
    arrived_count: int = scalar("i8", "workflows that have arrived")
    known_left: int = scalar("i8", "unfinished stages of arrived workflows")
    clock: int = scalar("i8", "counts uses of models; the order of use")
    instants: int = scalar("i8", "counts the instants with events")
    shard_rows: int = scalar("i8", "rows written to the log")
    eviction_rows: int = scalar("i8", "rows written to the log")
    seed: int = scalar("i8", "of the noise, of choices and of failures")
    origin: int = scalar("i8", "LIVE, EXPECTED or SAMPLED")
    noisy: int = scalar("i8", "0: durations are the estimates")
    retentions: int = scalar("i8", "times that a policy has ranked what is cached; 0: LRU")
    next_change: float = scalar("f8", "when the next device fails or is repaired, or inf", "s")
    next_border: float = scalar("f8", "earliest change of a batch, or inf", "s")

    devices: Any = table(DeviceState, "D", text="devices")
    stages: Any = table(StageState, "S", text="stages")
    workflows: Any = table(WorkflowState, "W", text="workflows")
    arrived: Any = table("i4", "W", text="in order of arrival; the first `arrived_count` count")
    slots: Any = table(Slot, "S", "K", text="shards")
    resident: Any = table("i8", "D", "M", text="0: absent, else the time of last use on `clock`")
    prefix_tokens: Any = table("i4", "D", "Q", text="cached up to, from the root; 0: no entry")
    branches: Any = table("i4", "D", "Q", text="entries of the keys that branch off a prefix")
    prefix_there: Any = table("f8", "D", "Q", unit="s", text="when the last of them is there")
    keep: Any = table(
        "f8", "KEEP", text="values: D x Q prefixes, S stages' contexts, D x M models; lowest goes"
    )
    keep_until: Any = table(
        "f8", "D", "Q", unit="s", text="when the value of a prefix ends; 0 after"
    )
    ready: Any = table("i4", "S", text="stage numbers; the first `ready_count` count")
    older: Any = table("i4", "KV", text="neighbour in the device's list of KV entries by use")
    newer: Any = table("i4", "KV", text="the other neighbour")
    events: Any = table(Event, "EVENTS", text="binary heap of `event_count` events")
    link_seconds: Any = table("f8", "LINKS", unit="s", text="scratch: zero between calls")
    fetches: Any = table(Fetch, "F", "K", text="of the shards; counts while one is in a queue")
    batches: Any = table(Batch, "B", text="batching devices")
    lanes: Any = table(Lane, "L", "K", text="shards on batching devices")
    pins: Any = table("i4", "B", "Q", text="admitted waves that use a prefix")
    computed: Any = table(
        "i4", "B", "Q", text="tokens of a prefix that are computed or about to be"
    )


def new_state(p: ProblemArrays) -> StateArrays:
    """Allocate a state of zeros for a problem."""
    s, d, m, q, k = p.stages.size, p.devices.size, p.models.size, p.prefixes.size, p.max_shards
    entries = d * q + s * k
    return StateArrays.allocate(
        S=s,
        W=p.workflows.size,
        D=d,
        M=m,
        Q=q,
        K=k,
        F=s * p.contention,
        B=d * p.batching,
        L=s * p.batching,
        KV=entries,
        KEEP=d * q + s + d * m,
        EVENTS=s * (k + 1) + p.followers.size,
        LINKS=d + p.nodes + 1,
    )


# --- the log -------------------------------------------------------------------------------


class ShardRow(Row):
    """A committed shard. The parts of its cost are estimates; ``end`` is the actual end."""

    stage: int = column("i4", "stage number")
    slot: int = column("i4", "its number within the placement")
    device: int = column("i4", "HOST for tools")
    queries: int = column("i4", "its share of the batch")
    waves: int = column("i4", "batches that its memory needs")
    lost: int = column("i4", "1: the device failed before it ended")
    preempted: int = column("i4", "times that memory was taken from it")
    source: int = column("i4", "device that a prefix was copied from, -1: none was")
    committed: float = column("f8", "when it was placed", "s")
    start: float = column("f8", "its turn", "s")
    load_s: float = column("f8", "of the weights", "s")
    transfer_s: float = column("f8", "of the inputs, beside the load", "s")
    prefill_s: float = column("f8", "after both", "s")
    decode_s: float = column("f8", "after the prefill", "s")
    noise: float = column("f8", "factor on the duration")
    length: float = column("f8", "actual / estimated output tokens")
    first: float = column("f8", "its first tokens are there: the prompts of its first wave", "s")
    end: float = column("f8", "its actual end", "s")
    prefix_hit: float = column("f8", "prefix tokens that were cached", "tokens")
    prefix_new: float = column("f8", "prefix tokens that were computed", "tokens")
    context_hit: float = column("f8", "inherited tokens of all queries that were cached", "tokens")
    context_new: float = column("f8", "inherited tokens of all queries, computed", "tokens")
    copied: float = column("f8", "prefix tokens copied from `source`; part of prefix_hit", "tokens")
    bytes_moved: float = column("f8", "from other devices and hosts", "bytes")


class EvictionRow(Row):
    """Something that was evicted to make room for a shard."""

    shard: int = column("i4", "row of the shard")
    device: int = column("i4", "where")
    kind: int = column("i4", "EVICT_PREFIX, EVICT_CONTEXT or EVICT_WEIGHTS")
    key: int = column("i4", "prefix key, stage or model")
    bytes: float = column("f8", "what it took", "bytes")


class LogArrays(Block):
    """What happened, row by row; the state counts the rows. Without rows nothing is recorded."""

    shards: Any = table(ShardRow, "R", text="in the order of commits")
    evictions: Any = table(EvictionRow, "X", text="in order")


def new_log(shards: int, evictions: int) -> LogArrays:
    """Allocate a log with room for so many rows."""
    return LogArrays.allocate(R=shards, X=evictions)


NO_LOG = new_log(0, 0)
