"""Converts the schedule of one device to operations that can be executed one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from fate_gym.errors import InputError
from fate_gym.sim import Trace
from fate_gym.validator import validate
from fate_gym.validator.batching import replay as batching
from fate_gym.validator.batching.engine import Engine
from fate_gym.validator.batching.waves import Job, Wave
from fate_gym.validator.costs import wave_limit
from fate_gym.validator.memory import prefix_path, written_path
from fate_gym.validator.state import Row, State
from fate_gym.validator.world import Node, Piece, World


@dataclass(frozen=True)
class Part:
    """Queries of a shard that run together: a wave in docs/execution-model.md.

    Attributes:
        number: number of the part, in the order in which parts begin.
        stage: number of the stage.
        model: name of the model.
        queries: number of queries.
        prefix: tokens of the shared prefix.
        known: how many of these are cached.
        own: further prompt tokens of each query, inherited ones included.
        tokens: prompt tokens computed, over all queries.
        pairs: pairs of tokens in the attention of the prompts.
        output: tokens that each query generates.
        first_comes_with_prompt: whether the prompt yields the first output token, as on batching
            devices.
        path: entries of the prefix cache that the part uses, the last first.
        written: entries that it extends.
        parents: stages whose contexts it may find cached.
        has_heirs: whether children may find its context.
        transfer_s: simulated seconds until its inputs have arrived from elsewhere.
    """

    number: int
    stage: int
    model: str
    queries: int
    prefix: int
    known: int
    own: int
    tokens: int
    pairs: float
    output: int
    first_comes_with_prompt: bool
    path: tuple[Piece, ...]
    written: tuple[Piece, ...]
    parents: tuple[int, ...]
    has_heirs: bool
    transfer_s: float

    @property
    def prompt(self) -> int:
        """Tokens of the whole prompt of a query."""
        return self.prefix + self.own


@dataclass(frozen=True)
class Open:
    """A part begins: its stage is ready, and the data it reuses is put in place."""

    part: int


@dataclass(frozen=True)
class Evict:
    """Cached data is evicted: kind and key as in the evictions of a trace."""

    kind: int
    key: int


@dataclass(frozen=True)
class Load:
    """The weights of a model are loaded, for a part."""

    model: str
    part: int


@dataclass(frozen=True)
class Pass:
    """One pass of a model: (part, prompt tokens) ``chunks``, and parts that decode one token."""

    model: str
    chunks: tuple[tuple[int, int], ...]
    steps: tuple[int, ...]


@dataclass(frozen=True)
class Close:
    """A part ends; ``last``: so does its shard, and with it its stage on this device."""

    part: int
    last: bool


Operation: TypeAlias = Open | Evict | Load | Pass | Close
Phase: TypeAlias = Literal["load", "prefill", "decode", "launch", ""]


def phase_of(operation: Operation) -> Phase:
    """Return the phase to which an operation's seconds belong; empty if it takes none."""
    if isinstance(operation, Load):
        return "load"
    if isinstance(operation, Pass):
        return "prefill" if operation.chunks else "decode"
    return "launch" if isinstance(operation, Open) else ""


@dataclass(frozen=True)
class Script:
    """The operations of one device, and the parts that they refer to."""

    trace: Trace
    world: World
    device: int
    operations: list[Operation]
    parts: list[Part]

    @property
    def models(self) -> list[str]:
        """The models that run, in the order of first use."""
        return list(dict.fromkeys(part.model for part in self.parts))


def script_of(trace: Trace, device: str | None, source: str) -> Script:
    """Convert a device's schedule in a trace to a script.

    Args:
        trace: trace of a run.
        device: id of the device; None if there is only one.
        source: the trace's file, for messages.

    Raises:
        InputError: an unknown device, or a trace that cannot be executed: it is invalid, lengths
            are uncertain, devices fail, the device has several GPUs, or some stages have fixed
            times.
    """
    number = _device_number(trace, device, source)
    _check(trace, number, source)
    state = State(trace)
    names = trace.shards.dtype.names or ()
    rows: list[Row] = [
        {"index": index} | dict(zip(names, values, strict=True))
        for index, values in enumerate(trace.shards.tolist())
    ]
    if trace.problem.cluster.serving.batching:
        recorder = _Recorder(state, rows, number)
        recorder.run()
        recorder.close_all()
        return Script(trace, state.world, number, recorder.operations, recorder.parts)
    mine = [row for row in rows if row["device"] == number]
    operations: list[Operation] = []
    parts: list[Part] = []
    for row in mine:
        operations.extend(_shard(state, row, parts))
    return Script(trace, state.world, number, operations, parts)


def _device_number(trace: Trace, device: str | None, source: str) -> int:
    names = trace.device_ids
    if device is None and len(names) == 1:
        return 0
    if device not in names:
        fault = "no device chosen" if device is None else f"unknown device {device!r}"
        remedy = "choose one with --of: " + ", ".join(names[:12])
        raise InputError(fault, source=source, remedy=remedy)
    return names.index(device)


def _check(trace: Trace, device: int, source: str) -> None:
    options = trace.problem.options
    if options.failures is not None or options.length_uncertainty > 0:
        raise InputError(
            "its devices fail, or its lengths are uncertain: what ran is not what was estimated",
            source=source,
            remedy="simulate the problem without failures and length_uncertainty",
        )
    given = trace.problem.cluster.devices[device]
    if given.gpu is None or given.tensor_parallel > 1:
        raise InputError(
            f"device {given.id!r} is {'no GPU' if given.gpu is None else 'several GPUs'}",
            source=source,
            remedy="choose a device of one GPU with --of",
        )
    fixed = [
        stage.id
        for workflow in trace.problem.workflows
        for stage in workflow.stages
        if stage.kind == "fixed"
    ]
    if fixed:
        raise InputError(
            f"stage {fixed[0]!r} has given seconds and no model: there is nothing to execute",
            source=source,
            remedy="choose a trace of model stages",
        )
    faults = validate(trace)
    if faults:
        raise InputError(
            f"not a schedule of this release ({faults[0]})",
            source=source,
            remedy="simulate and save it anew",
        )


def _shard(state: State, row: Row, parts: list[Part]) -> Iterator[Operation]:
    """Yield the operations of a shard on an exclusive device, from its row in the trace."""
    world, node = state.world, state.world.nodes[row["stage"]]
    machine = world.machines[row["device"]]
    n = int(row["queries"])
    batch = wave_limit(node, machine, world.problem.cluster.serving.max_sequences)
    evicted = state.trace.evictions[state.trace.evictions["shard"] == row["index"]]
    assert node.model is not None
    for first in range(0, n, batch):
        queries = min(batch, n - first)
        new = int(row["prefix_new"]) if first == 0 else 0
        known = node.stage.prefix_tokens - new
        each = node.stage.prompt_tokens + row["context_new"] / n
        pairs = new * (known + new / 2)
        pairs += queries * each * (node.stage.prefix_tokens + _own(node) - each / 2)
        work = _Work(queries, known, max(queries, round(new + each * queries)), pairs)
        transfer_s = float(row["transfer_s"])
        part = _part(state, node, len(parts), work, transfer_s=transfer_s, batching=False)
        parts.append(part)
        yield Open(part.number)
        if first == 0:
            yield from (Evict(int(one["kind"]), int(one["key"])) for one in evicted)
            if row["load_s"] > 0:
                yield Load(part.model, part.number)
        yield Pass(part.model, ((part.number, part.tokens),), ())
        yield from [Pass(part.model, (), (part.number,))] * part.output
        yield Close(part.number, last=first + queries == n)


def _own(node: Node) -> int:
    return node.stage.prompt_tokens + node.inherited


class _Work(NamedTuple):
    """The fields of `Part` that say what it computes."""

    queries: int
    known: int
    tokens: int
    pairs: float


def _part(
    state: State, node: Node, number: int, work: _Work, *, transfer_s: float, batching: bool
) -> Part:
    assert node.model is not None
    return Part(
        number=number,
        stage=node.number,
        model=node.model.name,
        prefix=node.stage.prefix_tokens,
        own=_own(node),
        output=node.stage.output_tokens,
        first_comes_with_prompt=batching,
        path=tuple(prefix_path(state, node)),
        written=tuple(written_path(state, node)),
        parents=tuple(parent for parent, _ in node.parents),
        has_heirs=node.has_heirs,
        transfer_s=transfer_s,
        **work._asdict(),
    )


class _Recorder(batching.Replay):
    """Records the validator's replay of a batching device, iteration by iteration."""

    def __init__(self, state: State, rows: list[Row], device: int) -> None:
        super().__init__(state, rows)
        self.operations: list[Operation] = []
        self.parts: list[Part] = []
        self._numbers: dict[Wave, int] = {}
        self._evictions = 0
        self._resident: set[str] = set()
        self.engines[device] = _RecordedEngine(state, device, self._ended, self)

    def iteration(self, engine: Engine) -> None:
        """Record the start of an iteration, and what ended, began or was evicted before it."""
        self._close(wave for wave in list(self._numbers) if wave not in engine.admitted)
        opened = [wave for wave in engine.chunks if wave not in self._numbers]
        for wave in opened:
            self._open(wave)
        mine = [one for one in self.state.evicted if one[1] == engine.number]
        for _, _, kind, key, _ in mine[self._evictions :]:
            self.operations.append(Evict(kind, key))
            if kind == 2:
                self._resident.discard(self.state.world.models[key])
        self._evictions = len(mine)
        for wave in opened:
            part = self.parts[self._numbers[wave]]
            if part.model not in self._resident:
                self._resident.add(part.model)
                self.operations.append(Load(part.model, part.number))
        chunks = tuple((self._numbers[wave], count) for wave, count in engine.chunks.items())
        steps = tuple(self._numbers[wave] for wave in engine.steps)
        model = self.parts[chunks[0][0] if chunks else steps[0]].model
        self.operations.append(Pass(model, chunks, steps))

    def close_all(self) -> None:
        """Close all parts at the end of the run."""
        self._close(list(self._numbers))

    def _open(self, wave: Wave) -> None:
        work = _Work(wave.queries, wave.known, wave.tokens, wave.pairs)
        part = _part(
            self.state,
            wave.job.node,
            len(self.parts),
            work,
            transfer_s=float(wave.job.found.transfer),
            batching=True,
        )
        self.parts.append(part)
        self._numbers[wave] = part.number
        self.operations.append(Open(part.number))

    def _close(self, waves: Iterable[Wave]) -> None:
        for wave in waves:
            number = self._numbers.pop(wave)
            others = any(other.job is wave.job for other in self._numbers)
            self.operations.append(Close(number, wave.job.left == 0 and not others))


class _RecordedEngine(Engine):
    """An engine that tells the recorder when an iteration starts."""

    def __init__(
        self,
        state: State,
        number: int,
        on_end: Callable[[Job, float], None],
        recorder: _Recorder,
    ) -> None:
        self._recorder = recorder
        super().__init__(state, number, on_end)

    def start(self) -> None:
        super().start()
        self._recorder.iteration(self)
