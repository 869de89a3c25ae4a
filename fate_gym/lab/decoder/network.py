"""A decoder: grouped-query attention, SwiGLU or experts, RMS norms, rotary positions.

A pass is what a serving engine computes in one iteration: any number of segments, each a piece of
the prompt of some queries or their next token, batched in all matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fate_gym.lab.decoder.device import TorchDevice
from fate_gym.lab.decoder.shape import DecoderShape

_BLOCK = 256
"""Prompt tokens whose attention is computed at once on a CPU."""
_RANDOM = 1 << 22
"""Count of random numbers drawn; weights repeat them."""
_THETA = 10_000.0


class KvCache:
    """Keys and values of ``rows`` queries, up to ``capacity`` tokens each.

    Both are (layers, rows, kv_heads, capacity, head_dim).
    """

    def __init__(self, device: TorchDevice, shape: DecoderShape, rows: int, capacity: int) -> None:
        sizes = (shape.layers, rows, shape.kv_heads, capacity, shape.head_dim)
        # Zeroed, because tokens cached elsewhere may never be written here.
        self.keys, self.values = device.empty(*sizes).zero_(), device.empty(*sizes).zero_()

    def fill(self, device: TorchDevice) -> KvCache:
        """Fill the cache with random numbers and return it."""
        self.keys.copy_(device.random(*self.keys.shape))
        self.values.copy_(device.random(*self.values.shape))
        return self

    def read(self, row: int, start: int, end: int) -> tuple[Any, Any]:
        """Copy keys and values of one query's tokens, (layers, kv_heads, tokens, head_dim) each."""
        keys, values = self.keys[:, row, :, start:end], self.values[:, row, :, start:end]
        return keys.clone(), values.clone()

    def write(self, rows: slice, start: int, piece: tuple[Any, Any]) -> None:
        """Write tokens into each of the queries ``rows``."""
        end = start + piece[0].shape[-2]
        self.keys[:, rows, :, start:end] = piece[0].unsqueeze(1)
        self.values[:, rows, :, start:end] = piece[1].unsqueeze(1)


@dataclass(frozen=True)
class Segment:
    """``length`` tokens of each query in ``rows`` of a cache, from token ``start`` on.

    ``logits``: the next token of each query is generated. ``into``: the queries to which the keys
    and values are written if not ``rows``, e.g. all that share a prefix.
    """

    cache: KvCache
    rows: slice
    start: int
    length: int
    logits: bool
    into: slice | None = None

    @property
    def queries(self) -> int:
        return int(self.rows.stop - self.rows.start)

    @property
    def tokens(self) -> int:
        return self.queries * self.length


@dataclass(frozen=True)
class Layer:
    """Weights of a layer; those of experts are (experts, out, in); None: not in the model."""

    qkv: Any
    out: Any
    gate_up: Any
    down: Any
    router: Any
    expert_gate_up: Any
    expert_down: Any


def random_host_tensor(device: TorchDevice, count: int) -> Any:
    """Make random weights of a decoder in host memory, in one tensor."""
    weights = device.host_tensor(count)
    block = weights[: min(_RANDOM, count)]
    block.copy_(0.02 * device.torch.randn(block.shape))
    for start in range(_RANDOM, count, _RANDOM):
        part = weights[start : start + _RANDOM]
        part.copy_(block[: part.shape[0]])
    return weights


def load(device: TorchDevice, weights: Any) -> Any:
    """Copy weights to the device's memory, as loading a model does."""
    loaded = device.empty(weights.shape[0])
    loaded.copy_(weights, non_blocking=True)
    return loaded


class Decoder:
    """A decoder whose weights are in one tensor on a device."""

    def __init__(self, device: TorchDevice, shape: DecoderShape, weights: Any) -> None:
        self.device, self.shape, self.torch = device, shape, device.torch
        pieces = _Pieces(weights)
        self.layers = [self._layer(pieces) for _ in range(shape.layers)]
        self.embedding = self.head = None
        if shape.vocab:
            self.embedding = pieces.take(shape.vocab, shape.hidden)
            tied = shape.tied_embedding
            self.head = self.embedding if tied else pieces.take(shape.vocab, shape.hidden)
        self._norm = device.empty(shape.hidden).fill_(1.0)
        half = shape.head_dim // 2
        torch = self.torch
        self._rates = _THETA ** (-torch.arange(half, device=device.device) / half)

    def _layer(self, pieces: _Pieces) -> Layer:
        shape = self.shape
        h, width, mlp, e = shape.hidden, shape.width, shape.intermediate, shape.experts
        narrow = shape.expert_width
        return Layer(
            qkv=pieces.take(width + 2 * shape.kv_width, h),
            out=pieces.take(h, width),
            gate_up=pieces.take(2 * mlp, h) if mlp else None,
            down=pieces.take(h, mlp) if mlp else None,
            router=pieces.take(e, h) if e else None,
            expert_gate_up=pieces.take(e, 2 * narrow, h) if e else None,
            expert_down=pieces.take(e, h, narrow) if e else None,
        )

    def input_for(self, segments: Sequence[Segment]) -> Any:
        """Draw random tokens (T,) for the segments of a pass; hidden states if no embedding.

        Random, because with equal numbers everywhere a GPU draws less power and runs faster.
        """
        count = sum(segment.tokens for segment in segments)
        if self.embedding is None:
            return self.device.random(count, self.shape.hidden)
        return self.torch.randint(self.shape.vocab, (count,), device=self.device.device)

    def run(self, segments: Sequence[Segment], given: Any) -> Any:
        """Run one pass; return the next token of every query that generates one.

        Args:
            segments: the tokens of the pass.
            given: input from `input_for`, in the order of the segments.
        """
        torch = self.torch
        hidden = given if self.embedding is None else self.embedding[given]
        turns = self._turns(segments)
        for number, layer in enumerate(self.layers):
            states = torch.rms_norm(hidden, (self.shape.hidden,), self._norm)
            hidden = hidden + self._attention(number, layer, states, segments, turns)
            states = torch.rms_norm(hidden, (self.shape.hidden,), self._norm)
            hidden = hidden + self._mlp(layer, states)
        if self.head is None:
            return None
        last = self._last(segments)
        if not last:
            return None
        rows = torch.tensor(last, device=self.device.device)
        states = torch.rms_norm(hidden[rows], (self.shape.hidden,), self._norm)
        return torch.nn.functional.linear(states, self.head).argmax(-1)

    def gemms(self, count: int) -> Callable[[], None]:
        """Return a function that runs only a dense decoder's matrix products, ``count`` tokens."""
        shape, linear = self.shape, self.torch.nn.functional.linear
        states, inner, wide = (
            self.device.random(count, width)
            for width in (shape.hidden, shape.width, shape.intermediate)
        )

        def products() -> None:
            for layer in self.layers:
                linear(states, layer.qkv)
                linear(inner, layer.out)
                linear(states, layer.gate_up)
                linear(wide, layer.down)

        return products

    def _turns(self, segments: Sequence[Segment]) -> tuple[Any, Any]:
        """Compute cosine and sine of the positions, (T, 1, head_dim / 2)."""
        torch = self.torch
        positions = torch.cat(
            [
                torch.arange(s.start, s.start + s.length, device=self.device.device).repeat(
                    s.queries
                )
                for s in segments
            ]
        )
        angles = (positions[:, None] * self._rates)[:, None, :]
        return angles.cos().to(self.device.dtype), angles.sin().to(self.device.dtype)

    def _attention(
        self,
        number: int,
        layer: Layer,
        states: Any,
        segments: Sequence[Segment],
        turns: tuple[Any, Any],
    ) -> Any:
        shape, linear = self.shape, self.torch.nn.functional.linear
        heads, kv_heads, dim = shape.heads, shape.kv_heads, shape.head_dim
        all_heads = linear(states, layer.qkv).view(-1, heads + 2 * kv_heads, dim)
        turned = _turn(self.torch, all_heads[:, : heads + kv_heads], turns)
        queries, keys = turned[:, :heads], turned[:, heads:]
        values = all_heads[:, heads + kv_heads :]
        parts, at = [], 0
        for segment in segments:
            here = slice(at, at + segment.tokens)
            at += segment.tokens
            n, m = segment.queries, segment.length
            end = segment.start + m
            cache, rows = segment.cache, segment.rows
            for kept, made in ((cache.keys, keys), (cache.values, values)):
                into = kept[number, segment.into or rows, :, segment.start : end]
                into.copy_(made[here].view(n, m, kv_heads, dim).transpose(1, 2))
            mixed = attend(
                self.device,
                queries[here].view(n, m, heads, dim).transpose(1, 2),
                cache.keys[number, rows, :, :end],
                cache.values[number, rows, :, :end],
            )
            parts.append(mixed.transpose(1, 2).reshape(n * m, shape.width))
        return linear(parts[0] if len(parts) == 1 else self.torch.cat(parts), layer.out)

    def _mlp(self, layer: Layer, states: Any) -> Any:
        total = None
        if layer.gate_up is not None:
            total = self._swiglu(states, layer.gate_up, layer.down)
        if layer.router is not None:
            mixed = self._experts(layer, states)
            total = mixed if total is None else total + mixed
        return total

    def _experts(self, layer: Layer, states: Any) -> Any:
        """Apply each token's experts, expert by expert; weights of unused experts are not read."""
        torch = self.torch
        weights, chosen = torch.topk(
            torch.nn.functional.linear(states, layer.router), self.shape.experts_per_token
        )
        weights = weights.softmax(-1)
        total = torch.zeros_like(states)
        for expert in chosen.unique().tolist():
            rows, places = (chosen == expert).nonzero(as_tuple=True)
            part = self._swiglu(
                states[rows], layer.expert_gate_up[expert], layer.expert_down[expert]
            )
            total.index_add_(0, rows, part * weights[rows, places, None])
        return total

    def _swiglu(self, states: Any, gate_up: Any, down: Any) -> Any:
        functional = self.torch.nn.functional
        gate, up = functional.linear(states, gate_up).chunk(2, -1)
        return functional.linear(functional.silu(gate) * up, down)

    def _last(self, segments: Sequence[Segment]) -> list[int]:
        """Return the row of the last token of every query that generates a next one."""
        rows, at = [], 0
        for segment in segments:
            if segment.logits:
                ends = range(segment.length - 1, segment.tokens, segment.length)
                rows += [at + end for end in ends]
            at += segment.tokens
        return rows


def attend(device: TorchDevice, queries: Any, keys: Any, values: Any) -> Any:
    """Compute causal attention of the last tokens of a context to the whole context.

    Args:
        device: device to run on.
        queries: (N, heads, tokens, head_dim).
        keys: (N, kv_heads, context, head_dim).
        values: the same.
    """
    torch = device.torch
    if device.device.type == "cpu":
        return _attend_on_cpu(torch, queries, keys, values)
    return _attend_on_gpu(torch, queries, keys, values)


def _attend_on_gpu(torch: Any, queries: Any, keys: Any, values: Any) -> Any:
    tokens, context = queries.shape[-2], keys.shape[-2]
    attention = torch.nn.functional.scaled_dot_product_attention
    grouped = queries.shape[1] > keys.shape[1]
    if tokens == 1 or tokens == context:
        return attention(queries, keys, values, is_causal=tokens > 1, enable_gqa=grouped)
    # The mask of PyTorch's `is_causal` is aligned to the upper left corner.
    from torch.nn.attention.bias import causal_lower_right

    mask = causal_lower_right(tokens, context)
    return attention(queries, keys, values, attn_mask=mask, enable_gqa=grouped)


def _attend_on_cpu(torch: Any, queries: Any, keys: Any, values: Any) -> Any:
    """Attend by matrix products: PyTorch's 16-bit CPU kernel is several times slower."""
    n, heads, tokens, dim = queries.shape
    kv_heads, context = keys.shape[1], keys.shape[2]
    grouped = queries.reshape(n, kv_heads, heads // kv_heads, tokens, dim)
    parts = []
    for start in range(0, tokens, _BLOCK):
        block = grouped[:, :, :, start : start + _BLOCK]
        count = block.shape[3]
        end = context - tokens + start + count
        flat = block.reshape(n, kv_heads, -1, dim)
        scores = torch.matmul(flat, keys[:, :, :end].transpose(-1, -2)) * dim**-0.5
        if count > 1:
            later = torch.ones(count, count, dtype=torch.bool).triu(1)
            square = scores.view(n, kv_heads, -1, count, end)[..., end - count :]
            square.masked_fill_(later, -torch.inf)
        mixed = torch.matmul(scores.softmax(-1), values[:, :, :end])
        parts.append(mixed.view(n, kv_heads, -1, count, dim))
    return torch.cat(parts, 3).reshape(n, heads, tokens, dim)


def _turn(torch: Any, heads: Any, turns: tuple[Any, Any]) -> Any:
    """Apply rotary position embeddings (Su et al., RoFormer, 2021)."""
    cosine, sine = turns
    first, second = heads.chunk(2, -1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), -1)


class _Pieces:
    """Cuts consecutive tensors of given sizes from one tensor."""

    def __init__(self, weights: Any) -> None:
        self._weights, self._at = weights, 0

    def take(self, *sizes: int) -> Any:
        """Return the next numbers, in this shape."""
        start, self._at = self._at, self._at + math.prod(sizes)
        return self._weights[start : self._at].view(*sizes)
