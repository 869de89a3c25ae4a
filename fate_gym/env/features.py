"""The features of the observation: the one source of spaces, columns and documentation.

Every feature is finite and bounded. There are four scalings:

* flag: 0 or 1.
* share: a ratio that lies in [0, 1] by itself.
* half at c: ``x / (x + c)`` of a quantity x ≥ 0, in [0, 1]: 0 for x = 0, 0.5 for x = c, towards 1
  for large x. It preserves order, needs no cap, and maps inf to 1.
* signed, half at c: ``x / (|x| + c)``, in [-1, 1].

``time_scale`` is an option of the environment, in seconds. Compiled code refers to a column as,
for example, ``CANDIDATE.turn``.
"""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any, NamedTuple

from fate_gym.jit import inlined

HALF_TOKENS = 1000.0
HALF_OUTPUT_TOKENS = 200.0
HALF_QUERIES = 4.0
HALF_DEGREE = 4.0
HALF_STAGES = 50.0
HALF_WORKFLOWS = 4.0
HALF_SHARDS = 4.0
HALF_OUTSTANDING = 10_000.0
HALF_MEMORY = 32e9
HALF_TRANSFER = 256e6
HALF_FLOPS = 150e12
HALF_MEMORY_RATE = 1e12
HALF_HOST_RATE = 25e9
HALF_LINK_RATE = 25e9
HALF_SIGMA = 0.5
_UNITS = {"GB": 1e9, "MB": 1e6, "GB/s": 1e9, "TFLOP/s": 1e12}
LONG = 10.0
"""Features that span whole schedules (ranks, now) are half at ``LONG x time_scale``."""


@inlined
def saturate(x: float, half: float) -> float:
    """Return ``x / (x + half)``: in [0, 1) for x ≥ 0, 1 for inf; 0 for x < 0 (by rounding)."""
    return 1.0 - half / (max(0.0, x) + half)


class Feature(NamedTuple):
    """One number of the observation."""

    name: str
    meaning: str
    unit: str
    scaling: str
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True)
class Group:
    """One key of the observation: rows of features.

    Attributes:
        key: name in the observation.
        rows: what a row stands for.
        features: the columns that every problem has.
        per_model: further features, with one column per model each.
    """

    key: str
    rows: str
    features: tuple[Feature, ...]
    per_model: tuple[Feature, ...] = ()

    def index(self, name: str) -> int:
        """Return the column of a feature."""
        return [feature.name for feature in self.features].index(name)

    def numbers(self) -> Any:
        """Return a named tuple of the column numbers, for compiled code."""
        names = [feature.name for feature in self.features]
        return namedtuple(self.key, names)(*range(len(names)))

    def width(self, models: int) -> int:
        """Return the number of columns when up to ``models`` models are shown."""
        return len(self.features) + models * len(self.per_model)

    def columns(self, models: int) -> list[Feature]:
        """Return all columns in order; those for a model carry its number."""
        repeated = [
            feature._replace(name=f"{feature.name}[{m}]")
            for feature in self.per_model
            for m in range(models)
        ]
        return [*self.features, *repeated]


def _flag(name: str, meaning: str) -> Feature:
    return Feature(name, meaning, "-", "flag")


def _share(name: str, meaning: str) -> Feature:
    return Feature(name, meaning, "-", "share")


def _half(name: str, meaning: str, unit: str, half: float) -> Feature:
    return Feature(name, meaning, unit, f"half at {half / _UNITS.get(unit, 1.0):g} {unit}")


def _seconds(name: str, meaning: str, *, long: bool = False) -> Feature:
    scale = f"{LONG:g} x time_scale" if long else "time_scale"
    return Feature(name, meaning, "s", f"half at {scale}")


def _signed(name: str, meaning: str) -> Feature:
    return Feature(name, meaning, "s", "signed, half at time_scale", -1.0)


def _count(name: str, meaning: str, half: float) -> Feature:
    return Feature(name, meaning, "count", f"half at {half:g}")


_STATIC_STAGE = (
    _flag("is_model", "the stage is a batch of queries to a model, not a task of given seconds"),
    _count("queries", "queries of the batch", HALF_QUERIES),
    _half("prefix", "shared prompt prefix", "tokens", HALF_TOKENS),
    _half("prompt", "own prompt of one query", "tokens", HALF_TOKENS),
    _half("inherited", "context that one query takes over from the parents", "tokens", HALF_TOKENS),
    _half("output", "output of one query", "tokens", HALF_OUTPUT_TOKENS),
    _seconds("best_seconds", "prefill + decode on the fastest device, nothing cached"),
    _seconds("mean_seconds", "the same, mean over the devices that can run it"),
    _seconds("upward_rank", "longest way to the end of the workflow (HEFT)", long=True),
    _share("criticality", "upward rank / largest upward rank of the workflow"),
    _seconds("slack", "longest way through the workflow - longest way through here", long=True),
    _share("reachability", "devices that can run the stage when they are up / all devices"),
    _half("weights", "weights of its model", "GB", HALF_MEMORY),
    _half("context", "KV of all its queries, prefix once", "GB", HALF_MEMORY),
    _count("parents", "parents", HALF_DEGREE),
    _count("children", "children", HALF_DEGREE),
    _half("input", "data from the parents", "MB", HALF_TRANSFER),
    _half("result", "data for the children", "MB", HALF_TRANSFER),
    _share("children_same_model", "children that use the same model / children"),
    _count("prefix_peers", "other stages of the workflow with the same prefix", HALF_DEGREE),
    _flag("chooses", "when it ends it is drawn which of the stages behind it live"),
)

_MODELS = (
    _flag("model", "it uses this model"),
    _share("child_model", "children that use this model / children"),
)

STAGES = Group(
    "stages",
    "one ready stage, in the order of the window",
    (
        _flag("present", "the slot holds a stage; otherwise the row is 0"),
        *_STATIC_STAGE,
        _seconds("ready_for", "time since it became ready"),
        _seconds("age", "time since its workflow arrived", long=True),
        _share("resident", "devices that hold its model / devices that can run it"),
        _share("prefix_cached", "largest share of its prefix that a device caches"),
        _seconds("best_end", "earliest expected end on one device, from now"),
        _share("children_live", "children that are expected to live / children"),
        _share("slot", "number of its slot, from 1 / slots"),
        _share("unplaced", "stages of its workflow that are not placed / stages of its workflow"),
        _count("siblings", "other ready stages of its workflow", HALF_DEGREE),
        _count("rivals", "other ready stages that use its model", HALF_DEGREE),
    ),
    _MODELS,
)

DEVICES = Group(
    "devices",
    "one device, in the order of the cluster",
    (
        _flag("present", "there is such a device; otherwise the row is 0"),
        _half("memory", "limit of weights + KV", "GB", HALF_MEMORY),
        _half("flops", "effective rate", "TFLOP/s", HALF_FLOPS),
        _half("bandwidth", "effective, of memory", "GB/s", HALF_MEMORY_RATE),
        _half("host_rate", "from the host", "GB/s", HALF_HOST_RATE),
        _half("link_rate", "from other devices, mean", "GB/s", HALF_LINK_RATE),
        _share("node_peers", "other devices of its node / all devices"),
        _share("hosts_models", "models of the problem that some stage could run here / models"),
        _flag(
            "admits",
            "nobody waits for it, and it is up; an exclusive one, besides: nothing is running",
        ),
        _seconds(
            "queue",
            "expected time until all its shards have ended; of a device that is down: until it "
            "is up",
        ),
        _share(
            "weights",
            "resident weights / memory, as the next shard will meet them; of a batching device: "
            "now",
        ),
        _share("kv", "cached KV / memory, likewise; on a batching device with what is reserved"),
        _share("free", "1 - weights - kv"),
        _share("prefix_hits", "mean share of the shown stages' prefixes that is cached here"),
        _share(
            "demand", "mean over the shown stages of 1 / (devices that can run it), where it is one"
        ),
        _flag("up", "it has not failed, or it is up again"),
        _share("occupancy", "queries that run together now / most that may"),
        _share("reserved", "KV that these need / memory beside the weights of their model"),
        _count("waiting", "shards in line for it", HALF_SHARDS),
        _half(
            "outstanding",
            "tokens, of prompts and outputs, that its shards still have to compute; what is "
            "cached counts until the shard begins",
            "tokens",
            HALF_OUTSTANDING,
        ),
        _share(
            "wanted", "shown stages whose model is resident here, as the next shard will meet it"
        ),
    ),
    (_flag("resident", "the model is loaded, as the next shard will meet it"),),
)

CANDIDATES = Group(
    "candidates",
    "one candidate placement, slot x P + position: action numbers without the last",
    (
        _flag("legal", "the placement exists; otherwise the row is 0"),
        _share("devices", "devices used / max_shards"),
        _seconds("turn", "time until the last of its shards begins"),
        _seconds("load", "longest load of weights"),
        _seconds("transfer", "longest transfer of inputs"),
        _seconds("prefill", "longest prefill"),
        _seconds("decode", "longest decode"),
        _seconds("end", "expected end, from now"),
        _signed("later", "expected end - earliest expected end of the stage on one device"),
        _signed(
            "behind",
            "later, if the stages in the slots before went first, each to where it ends earliest",
        ),
        _seconds("occupied", "by how much later its devices will be free, summed"),
        _share("speed", "best seconds of the stage / its seconds on the slowest device used"),
        _share("resident", "queries that find the model loaded / queries"),
        _share(
            "prefix_hit", "prefix tokens that need no prefill / prefix tokens, mean over queries"
        ),
        _share("context_hit", "inherited tokens that need no prefill / inherited tokens, likewise"),
        _half("moved", "data to move", "MB", HALF_TRANSFER),
        _share("evicted_kv", "KV that has to go / memory, worst device"),
        _share("evicted_weights", "other models' weights that have to go / memory, worst device"),
        _share("children_fit", "children that can run on the first device / children"),
        _share(
            "children_resident", "children that will find their model on the first device, same"
        ),
        _seconds("children_saved", "prefill that children save by following to the first device"),
        _share("demand", "largest demand (see devices) for one of its devices"),
        _seconds("delay", "by how much later the other shards on its devices end, summed"),
        _flag(
            "admits",
            "all its shards begin at once, on a batching device: at the end of the iteration that "
            "is under way",
        ),
    ),
)

GLOBALS = Group(
    "globals",
    "the run as a whole",
    (
        _seconds("now", "time since the first arrival", long=True),
        _flag("can_wait", "an event lies ahead"),
        _share("shown", "slots that hold a stage / slots"),
        _count("hidden", "ready stages beyond the window", HALF_DEGREE),
        _count("workflows", "workflows that have arrived and have not ended", HALF_WORKFLOWS),
        _count("stages_left", "stages of these that have not ended", HALF_STAGES),
        _share("done", "ended stages / stages of arrived workflows"),
        _share("busy", "devices with something to run / devices"),
        _seconds("mean_queue", "queue (see devices), mean over devices"),
        _seconds("longest_queue", "the same, longest"),
        _seconds("path_left", "largest upward rank of a ready stage", long=True),
        _seconds("work_left", "best seconds of stages not placed / devices", long=True),
        _half("uncertainty", "sigma of the noise on durations", "-", HALF_SIGMA),
        _flag("eager", "transfers start when the parent ends"),
        _half("length_uncertainty", "sigma of actual / estimated output tokens", "-", HALF_SIGMA),
        _flag("failing", "devices may fail"),
        _share("up", "devices that are up / devices"),
        _flag("batching", "devices batch continuously; otherwise they run one shard at a time"),
    ),
)

NODES = Group(
    "dag_nodes",
    "one stage of an arrived workflow, in the order of the problem",
    (
        _flag("present", "its workflow has arrived; otherwise the row is 0"),
        *_STATIC_STAGE,
        _flag("waiting", "a parent has not ended, or no device that can run it is up"),
        _flag("ready", "it can be placed"),
        _flag("placed", "it is queued or running"),
        _flag("ended", "it is done, or its branch was not taken"),
        _share("lives", "probability that it lives, given what has been drawn"),
        _share("slot", "(number of its slot in the window + 1) / slots; 0: not shown"),
    ),
    _MODELS,
)

GROUPS = {group.key: group for group in (STAGES, DEVICES, CANDIDATES, GLOBALS)}
"""The groups that can be switched on and off, in order."""

STATIC_FROM = 1
"""First static column of a stage, in `STAGES` and in `NODES`."""
STATIC_TO = STATIC_FROM + len(_STATIC_STAGE)
STAGE_WIDTH = len(STAGES.features)
DEVICE_WIDTH = len(DEVICES.features)
CANDIDATE_WIDTH = len(CANDIDATES.features)
GLOBAL_WIDTH = len(GLOBALS.features)
NODE_WIDTH = len(NODES.features)

STAGE, DEVICE, CANDIDATE = STAGES.numbers(), DEVICES.numbers(), CANDIDATES.numbers()
GLOBAL, NODE = GLOBALS.numbers(), NODES.numbers()
