"""A policy's view of a run: read-only, estimates only, nothing of the future."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fate_gym.kernel import lookups
from fate_gym.kernel.cost import Cost
from fate_gym.kernel.estimate import end_estimates
from fate_gym.kernel.fork import fork, fork_sampled
from fate_gym.kernel.schema import DONE, TOOL_STAGE, VANISHED, StateArrays
from fate_gym.sim.groups import ARRAYS, reads

if TYPE_CHECKING:
    from fate_gym.sim.compile import CompiledProblem
    from fate_gym.sim.excerpt import Excerpt

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Request(NamedTuple):
    """A ready stage's request as it came in, which every policy sees.

    Attributes:
        workflow: number of its workflow.
        model: number of its model, -1 if it has none.
        queries: queries in the batch.
        prefix: key of the shared prefix, -1 if it has none.
        prefix_tokens: tokens of the shared prefix.
        own_tokens: further prompt tokens of each query, inherited ones included.
    """

    workflow: int
    model: int
    queries: int
    prefix: int
    prefix_tokens: int
    own_tokens: int


class DecisionView:
    """A window on a running simulation. Arrays are fresh copies: writing to them changes nothing.

    Stage and device numbers are those of ``compiled``. Residency and caches of a device are as
    they will be when its queue has drained: what the next shard placed on it will meet.
    """

    def __init__(self, compiled: CompiledProblem, state: StateArrays) -> None:
        self._compiled = compiled
        self._problem = compiled.arrays
        self._state = state
        self._numbers = np.empty(self._problem.devices.size)
        self._counts = np.empty(self._problem.devices.size, np.int64)

    @property
    @reads(ARRAYS)
    def state(self) -> StateArrays:
        """The live state, for compiled code: policies may read it but never write to it."""
        return self._state

    @property
    @reads(ARRAYS)
    def compiled(self) -> CompiledProblem:
        """The problem. Policies may read only the parts that have arrived."""
        return self._compiled

    @property
    def devices(self) -> int:
        """The number of devices."""
        return int(self._problem.devices.size)

    @property
    def batching(self) -> bool:
        """Whether devices batch continuously; if not, each runs one shard at a time."""
        return bool(self._problem.batching)

    @property
    def now(self) -> float:
        """Simulated seconds."""
        return self._state.now

    @property
    def instant(self) -> int:
        """The number of instants with events so far; two of them may have the same time."""
        return self._state.instants

    @property
    @reads("queues")
    def any_open(self) -> bool:
        """Whether some device is open (`open_devices`)."""
        return bool(self.open_devices().any())

    @property
    def ready(self) -> list[int]:
        """Ready stages by (time they became ready, number)."""
        return self._state.ready[: self._state.ready_count].tolist()

    @property
    def arrived(self) -> list[int]:
        """Workflows that have arrived, in order of arrival."""
        return self._state.arrived[: self._state.arrived_count].tolist()

    @property
    def can_wait(self) -> bool:
        """Whether an event lies ahead, not counting failures, which nobody foresees."""
        return lookups.event_ahead(self._problem, self._state)

    @reads(ARRAYS)
    def stage(self, stage: int) -> dict[str, Any]:
        """Return the static record of a stage (fields: `fate_gym.kernel.schema.Stage`)."""
        record = self._problem.stages[stage]
        return {name: record[name].item() for name in record.dtype.names}

    def eligible(self, stage: int) -> Integers:
        """(n,) devices that can host the stage now; those that are down cannot."""
        up = self._state.devices["drains_at"] < np.inf
        return np.flatnonzero((self._problem.clean_seconds[stage] < np.inf) & up)

    @property
    def up(self) -> NDArray[np.bool_]:
        """(D,) devices that are up."""
        return self._state.devices["drains_at"] < np.inf

    @reads("costs")
    def clean_seconds(self, stage: int) -> Floats:
        """(D,) prefill + decode with nothing cached; inf where the stage cannot run."""
        return self._problem.clean_seconds[stage].copy()

    @reads("drains")
    def drain_estimates(self) -> Floats:
        """(D,) when each device's queue is expected to be empty, not before now.

        For a device that is down: when its repair is expected.
        """
        lookups.drain_estimates(self._problem, self._state, self._numbers)
        repaired = self.now + self._problem.mttr_s
        return np.where(self._numbers < np.inf, self._numbers, repaired)

    @reads("drains")
    def turn_estimates(self, stage: int) -> Floats:
        """(D,) when the whole stage would begin behind all that runs and waits.

        That is when the queue of an exclusive device is empty, or when a batching device would
        admit the stage. inf where it cannot run; for a device that is down, when its repair is
        expected.
        """
        return self._turns(stage, prompts=False)

    @reads("drains")
    def prompt_estimates(self, stage: int) -> Floats:
        """(D,) when the stage's prompt would be the next one to compute.

        Like `turn_estimates`, but on a batching device the prompts ahead of it are computed as
        well. Loads and inputs of the stage itself are left out.
        """
        return self._turns(stage, prompts=True)

    def _turns(self, stage: int, *, prompts: bool) -> Floats:
        lookups.turns(self._problem, self._state, stage, int(prompts), self._numbers)
        repaired = np.where(self.up, np.inf, self.now + self._problem.mttr_s)
        able = self._problem.clean_seconds[stage] < np.inf
        return np.where(able, np.minimum(self._numbers, repaired), np.inf)

    @reads("estimates")
    def end_estimates(self, stage: int) -> Floats:
        """(D,) EFT*: expected end of the whole stage on each device; inf where it cannot run."""
        end_estimates(self._problem, self._state, stage, self._numbers)
        return self._numbers.copy()

    @reads("estimates")
    def estimate(self, stage: int, device: int, migrate_from: int | None = None) -> Cost:
        """Return the parts of the cost of the whole stage on one device.

        With ``migrate_from``, that device first sends what it caches of the stage's prefix.
        """
        source = -1 if migrate_from is None else migrate_from
        return lookups.whole_estimate(self._problem, self._state, stage, device, source)

    @reads("residency")
    def resident(self, stage: int) -> NDArray[np.bool_]:
        """(D,) where the stage's model is loaded. All False for a stage without a model."""
        model = int(self._problem.stages[stage]["model"])
        if model < 0:
            return np.zeros(self._problem.devices.size, np.bool_)
        return self._state.resident[:, model] > 0

    @reads("prefixes")
    def cached_prefix_tokens(self, stage: int) -> Integers:
        """(D,) tokens of the stage's prefix that each device caches, without a gap."""
        cached = np.zeros(self._problem.devices.size, np.int64)
        if self._problem.stages[stage]["prefix"] >= 0:
            lookups.prefix_hits(self._problem, self._state, stage, cached)
        return cached

    def request(self, stage: int) -> Request:
        """Return a ready stage's request, which every policy sees."""
        s = self._problem.stages[stage]
        return Request(
            int(s["workflow"]),
            int(s["model"]),
            int(s["queries"]),
            int(s["prefix"]),
            int(s["prefix_tokens"]),
            int(s["prompt_tokens"]) + int(s["inherited_tokens"]),
        )

    def prefix_path(self, stage: int, *, prompt: bool = False) -> list[tuple[int, int]]:
        """Return the path of the stage's prefix: prefix keys, last first, each with a token count.

        Tokens count from the root: a key's own tokens begin where the next key of the list ends.
        With ``prompt``, the own prompt of a stage that extends its prefix counts as part of it.
        """
        s = self._problem.stages[stage]
        key, tokens = int(s["prefix"]), int(s["prefix_tokens"])
        if prompt and s["written_tokens"] > tokens:
            key, tokens = int(s["written"]), tokens + int(s["prompt_tokens"])
        return [(part, last) for part, _, last in self._compiled.prefix_paths.to(key, tokens)]

    @reads("prefixes")
    def prefix_loading(self, stage: int) -> NDArray[np.bool_]:
        """(D,) where the stage's prefix is still being computed or copied."""
        loading = np.zeros(self._problem.devices.size, np.int64)
        if self._problem.stages[stage]["prefix"] >= 0:
            lookups.loading_prefixes(self._problem, self._state, stage, loading)
        return loading > 0

    @reads("queues")
    def open_devices(self) -> NDArray[np.bool_]:
        """(D,) devices on which some stage may start now: they are up, and nothing has to wait.

        An exclusive device is open if it runs nothing.
        """
        lookups.open_devices(self._problem, self._state, self._counts)
        return self._counts > 0

    @reads("queues")
    def starts_now(self, stage: int) -> NDArray[np.bool_]:
        """(D,) devices on which the whole stage would start now.

        These are exclusive devices that run nothing, and batching ones whose next border would
        admit it.
        """
        lookups.starting(self._problem, self._state, stage, self._counts)
        return self._counts > 0

    @reads("queues")
    def outstanding(self) -> Integers:
        """(D,) shards that run or wait on each device."""
        lookups.outstanding(self._problem, self._state, self._counts)
        return self._counts.copy()

    @reads("queues")
    def outstanding_queries(self) -> Integers:
        """(D,) queries that run or wait on each device."""
        lookups.outstanding_queries(self._problem, self._state, self._counts)
        return self._counts.copy()

    @reads("memory", "residency")
    def headroom_bytes(self, stage: int) -> Floats:
        """(D,) memory that is left for KV once the stage's model is loaded; may be below 0.

        On an exclusive device cached data counts as taken. On a batching device only what running
        queries hold does: cached KV and idle weights give way, as in serving engines.
        """
        lookups.headroom(self._problem, self._state, stage, self._numbers)
        return self._numbers.copy()

    @reads("memory")
    def free_bytes(self) -> Floats:
        """(D,) memory taken by neither weights nor cached KV."""
        devices = self._state.devices
        free: Floats = self._problem.devices["memory"] - devices["weight_bytes"]
        return free - devices["kv_bytes"]

    @reads("contexts")
    def cached_context_tokens(self, stage: int) -> Floats:
        """(D,) inherited tokens of one query that each device caches, a mean over the queries."""
        lookups.context_hits(self._problem, self._state, stage, self._numbers)
        return self._numbers.copy()

    @reads("memory", "residency")
    def missing_bytes(self, stage: int) -> Floats:
        """(D,) weights of the stage's model where it is not resident; 0 where it is."""
        model = int(self._problem.stages[stage]["model"])
        if model < 0:
            return np.zeros(self._problem.devices.size)
        missing = self._state.resident[:, model] == 0
        return missing * float(self._problem.models[model]["weight_bytes"])

    @reads("costs")
    def load_seconds(self, stage: int) -> Floats:
        """(D,) seconds to load the stage's model, resident or not; 0 for a stage without one."""
        model = int(self._problem.stages[stage]["model"])
        if model < 0:
            return np.zeros(self._problem.devices.size)
        return self._problem.load_seconds[model].copy()

    @reads("costs")
    def prefill_seconds(self, stage: int, cached: Integers) -> Floats:
        """(D,) prefill of the whole stage with ``cached`` (D,) prefix tokens; inf: cannot run.

        Zero for a stage without a model.
        """
        lookups.prefills(self._problem, stage, cached, self._numbers)
        return self._numbers.copy()

    @reads("costs")
    def full_batch_seconds(self, stage: int) -> Floats:
        """(D,) device time of the whole stage at the throughput of full batches.

        Its prefill, and its share of decoding in batches as large as memory allows; never more than
        `clean_seconds`. inf where it cannot run.
        """
        lookups.full_batches(self._problem, stage, self._numbers)
        return self._numbers.copy()

    @reads("costs")
    def usd_per_hour(self) -> Floats:
        """(D,) price of each device; 0 for one without a GPU."""
        facts = self._compiled.problem.device_facts
        names = self._compiled.device_ids
        return np.array([facts[name].usd_per_hour if name in facts else 0.0 for name in names])

    @reads("places")
    def local_bytes(self, stage: int) -> Floats:
        """(D,) bytes of the stage's inputs that lie on each device."""
        lookups.local_bytes(self._problem, self._state, stage, self._numbers)
        return self._numbers.copy()

    @reads("places", "links")
    def transfer_seconds(self, stage: int) -> Floats:
        """(D,) seconds to bring the stage's inputs to each device, once its queue has drained.

        On a batching device from now on: inputs are fetched while other shards run.

        With contention this includes the wait for the network: a policy that sees the links also
        sees what is booked on them.
        """
        lookups.transfers(self._problem, self._state, stage, self._numbers)
        return self._numbers.copy()

    @reads("links")
    def prefix_transfer_seconds(self, stage: int, source: int, tokens: Integers) -> Floats:
        """(D,) seconds to send ``tokens`` (D,) of the stage's prefix from device ``source``."""
        model = int(self._problem.stages[stage]["model"])
        kv = 0.0 if model < 0 else float(self._problem.models[model]["kv"])
        seconds: Floats = tokens * kv / self._problem.link_bandwidth[source]
        return seconds + self._problem.link_latency[source]

    @reads("progress")
    def arrival(self, workflow: int) -> float:
        """Return when a workflow arrived; inf if it has not."""
        return float(self._state.workflows[workflow]["arrived_at"])

    def session(self, workflow: int) -> int:
        """Return the session of a workflow, numbered by first use in the problem; -1 if none."""
        return int(self._problem.workflows[workflow]["session"]) - 1

    def turn(self, workflow: int) -> int:
        """Return how many workflows this one follows in its session, directly or not."""
        return int(self._problem.workflows[workflow]["turn"])

    @reads("progress")
    def parents(self, stage: int) -> list[int]:
        """Return the stages whose outputs a ready stage takes as input."""
        s = self._problem.stages[stage]
        return self._problem.edges["parent"][s["parents_from"] : s["parents_to"]].tolist()

    @reads("progress")
    def service_seconds(self, stage: int) -> float:
        """Return the seconds from the first start of a finished stage's shards to its end.

        0 for tools and for stages that are not finished or have vanished.
        """
        record = self._state.stages[stage]
        if record["status"] != DONE or record["note"] == VANISHED:
            return 0.0
        if self._problem.stages[stage]["kind"] == TOOL_STAGE:
            return 0.0
        return float(record["end"] - self._state.slots[stage, : record["shards"]]["start"].min())

    @reads("dag")
    def vanished(self, stage: int) -> bool:
        """Return whether the stage has vanished: its branch was not taken."""
        return bool(self._state.stages["note"][stage] == VANISHED)

    @reads(ARRAYS)
    def fork(self, out: StateArrays | None = None, *, seed: int | None = None) -> StateArrays:
        """Return a private state to play forward: estimated durations, no future arrivals.

        Open choices take the most likely outcome; no device fails, and one that is down is repaired
        after the mean time from now. With ``seed``, durations, lengths, choices and failures are
        drawn by it instead, for rollouts over samples. Writes to ``out`` if it is given.
        """
        if out is None:
            out = self._state.copy()
        if seed is None:
            fork(self._problem, self._state, out)
        else:
            fork_sampled(self._problem, self._state, out, seed)
        return out

    @reads(ARRAYS)
    def excerpt(self, excerpt: Excerpt) -> bool:
        """Bring an excerpt up to date: a fork whose cost depends only on what is in flight.

        Returns whether its numbering is new.
        """
        return excerpt.renew(self._state)
