"""Executes the operations of a script with real decoders and times them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fate_gym.lab.decoder.device import TorchDevice
from fate_gym.lab.decoder.network import Decoder, KvCache, Segment, load, random_host_tensor
from fate_gym.lab.decoder.shape import DecoderShape
from fate_gym.lab.replay.progress import Progress
from fate_gym.lab.replay.script import Close, Evict, Load, Open, Operation, Part, Pass, Script
from fate_gym.lab.replay.units import Units
from fate_gym.validator.world import CONTEXT, PREFIX, WEIGHTS, Piece

_NUMBER_BYTES = 2


def execute(device: TorchDevice, script: Script, shapes: Mapping[str, DecoderShape]) -> Executor:
    """Make an executor for a script after checking its memory.

    Raises:
        InputError: weights and KV of the schedule do not fit.
    """
    needed = peak_bytes(script, shapes)
    if device.device.type == "cpu":
        needed += _NUMBER_BYTES * max(shape.params for shape in shapes.values())
    device.require(needed, "the schedule", "raise --scale, or choose a device with more memory")
    return Executor(device, script, shapes)


class Executor:
    """Executes a script; holds weights, cached prefixes and contexts, and the KV of open parts.

    Weights come from one tensor of random numbers in host memory. Reused data is copied into a
    part's own KV before it begins, and what stays cached is copied out when it ends. An engine with
    paged KV shares these instead, so the copies are not timed.
    """

    def __init__(
        self, device: TorchDevice, script: Script, shapes: Mapping[str, DecoderShape]
    ) -> None:
        self.device, self.script, self.shapes = device, script, shapes
        self._host = random_host_tensor(device, max(shape.params for shape in shapes.values()))
        self._clear()

    def run(self) -> list[float]:
        """Execute all operations; return the seconds of each."""
        self._clear()
        seconds = []
        with self.device.torch.inference_mode():
            for operation in self.script.operations:
                seconds.append(self._execute(operation))
                self.progress.follow(operation)
        self._clear()
        return seconds

    def _clear(self) -> None:
        self.progress = Progress(self.script)
        self._decoders: dict[str, Decoder] = {}
        self._prefixes: dict[int, tuple[Any, Any]] = {}
        self._contexts: dict[int, list[KvCache]] = {}
        self._caches: dict[int, KvCache] = {}
        self._units: dict[int, Units] = {}
        self.device.release()

    def _execute(self, operation: Operation) -> float:
        if isinstance(operation, Open):
            self._open(self.script.parts[operation.part])
        elif isinstance(operation, Evict):
            self._evict(operation)
        elif isinstance(operation, Load):
            return self._load(operation.model)
        elif isinstance(operation, Pass):
            return self._pass(operation)
        else:
            self._close(operation)
        return 0.0

    def _load(self, model: str) -> float:
        shape = self.shapes[model]
        loaded: list[Any] = []
        seconds = self.device.seconds(
            lambda: loaded.append(load(self.device, self._host[: shape.params]))
        )
        self._decoders[model] = Decoder(self.device, shape, loaded[0])
        return seconds

    def _evict(self, operation: Evict) -> None:
        if operation.kind == WEIGHTS:
            del self._decoders[self.script.world.models[operation.key]]
        else:
            stores: dict[int, dict[int, Any]] = {PREFIX: self._prefixes, CONTEXT: self._contexts}
            # The entry may be missing: a shard that has begun may have replaced it.
            stores[operation.kind].pop(operation.key, None)

    def _open(self, part: Part) -> None:
        shape = self.shapes[part.model]
        cache = KvCache(self.device, shape, part.queries, part.prompt + part.output)
        everyone = slice(0, part.queries)
        for piece in part.path:
            stored = self._prefixes.get(piece.key[1])
            if stored is not None:
                end = min(piece.need, part.known, piece.start + stored[0].shape[-2])
                count = max(0, end - piece.start)
                cache.write(everyone, piece.start, tuple(x[..., :count, :] for x in stored))
        self._take_contexts(part, cache)
        self._caches[part.number], self._units[part.number] = cache, Units(part)

    def _take_contexts(self, part: Part, cache: KvCache) -> None:
        """Copy the cached contexts that a part inherits into its KV."""
        everyone, at = slice(0, part.queries), part.prefix
        missing = part.own - Units(part).least_new
        for parent in part.parents:
            for kept in self._contexts.get(parent, [])[:1]:
                count = min(missing, kept.keys.shape[-2])
                if count > 0 and kept.keys.shape[2] == cache.keys.shape[2]:
                    cache.write(everyone, at, kept.read(0, 0, count))
                    at, missing = at + count, missing - count

    def _pass(self, operation: Pass) -> float:
        segments: list[Segment] = []
        complete = []
        for number, tokens in operation.chunks:
            segments += self._units[number].take(self._caches[number], tokens)
            if self.progress.completes(number, tokens):
                complete.append(self.script.parts[number])
        for number in operation.steps:
            part = self.script.parts[number]
            place = self.progress.context(number) - part.first_comes_with_prompt
            rows = slice(0, part.queries)
            segments.append(Segment(self._caches[number], rows, place, 1, logits=True))
        decoder = self._decoders[operation.model]
        given = decoder.input_for(segments)
        seconds = self.device.seconds(lambda: decoder.run(segments, given))
        for part in complete:
            self._keep(part, part.path)
        return seconds

    def _keep(self, part: Part, path: tuple[Piece, ...]) -> None:
        """Cache the entries of a prefix that a part has computed completely."""
        cache = self._caches[part.number]
        for piece in path:
            stored = self._prefixes.get(piece.key[1])
            if stored is None or piece.start + stored[0].shape[-2] < piece.need:
                self._prefixes[piece.key[1]] = cache.read(0, piece.start, piece.need)

    def _close(self, operation: Close) -> None:
        part = self.script.parts[operation.part]
        self._keep(part, part.written)
        cache = self._caches.pop(operation.part)
        del self._units[operation.part]
        if part.has_heirs and self.shapes[part.model].keeps_kv:
            self._contexts.setdefault(part.stage, []).append(cache)


def peak_bytes(script: Script, shapes: Mapping[str, DecoderShape]) -> float:
    """Compute the peak bytes of weights and KV, including the copies of prefixes."""
    weights: dict[str, float] = {}
    stored: dict[tuple[int, int], float] = {}
    opened: dict[int, float] = {}
    peak = 0.0
    for operation in script.operations:
        if isinstance(operation, Open):
            part = script.parts[operation.part]
            token = _token_bytes(shapes[part.model])
            opened[part.number] = part.queries * (part.prompt + part.output) * token
            stored |= {piece.key: (piece.need - piece.start) * token for piece in part.path}
        elif isinstance(operation, Load):
            weights[operation.model] = _NUMBER_BYTES * shapes[operation.model].params
        elif isinstance(operation, Evict):
            if operation.kind == WEIGHTS:
                weights.pop(script.world.models[operation.key], None)
            stored.pop((operation.kind, operation.key), None)
        elif isinstance(operation, Close):
            part, size = script.parts[operation.part], opened.pop(operation.part)
            token = _token_bytes(shapes[part.model])
            stored |= {piece.key: (piece.need - piece.start) * token for piece in part.written}
            if part.has_heirs:
                key = (CONTEXT, part.stage)
                stored[key] = stored.get(key, 0.0) + size
        peak = max(peak, sum(weights.values()) + sum(stored.values()) + sum(opened.values()))
    return peak


def _token_bytes(shape: DecoderShape) -> float:
    return 2.0 * _NUMBER_BYTES * shape.layers * shape.kv_width
