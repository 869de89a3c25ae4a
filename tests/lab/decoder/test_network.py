"""The decoder computes what a transformer computes, whatever the caches and segments."""

from __future__ import annotations

from typing import Any

import pytest

from fate_gym import catalog
from fate_gym.lab.decoder.device import TorchDevice, open_device
from fate_gym.lab.decoder.network import (
    Decoder,
    KvCache,
    Segment,
    _attend_on_cpu,
    _attend_on_gpu,
    load,
    random_host_tensor,
)
from fate_gym.lab.decoder.shape import DecoderShape, shape_of

torch = pytest.importorskip("torch")

SHAPE = DecoderShape(
    layers=2, hidden=64, heads=4, kv_heads=2, head_dim=16, intermediate=128, vocab=256
)


@pytest.fixture(scope="module")
def device() -> TorchDevice:
    found = open_device("cpu")
    found.dtype = torch.float32
    return found


def decoder_of(device: TorchDevice, shape: DecoderShape) -> Decoder:
    torch.manual_seed(0)
    weights = load(device, random_host_tensor(device, shape.params))
    assert weights.shape == (shape.params,)
    # Larger than those of a model in use, so that positions and attention count.
    return Decoder(device, shape, 5 * weights)


def kv_of(decoder: Decoder, tokens: Any, pieces: list[int]) -> KvCache:
    """Return the cache after the tokens of one query, processed in pieces."""
    cache = KvCache(decoder.device, decoder.shape, 1, len(tokens))
    at = 0
    for count in pieces:
        decoder.run([Segment(cache, slice(0, 1), at, count, True)], tokens[at : at + count])
        at += count
    return cache


@pytest.mark.parametrize("pieces", [[300, 1], [1, 300], [7, 280, 13, 1]])
def test_a_prompt_in_pieces_leaves_the_same_kv(device: TorchDevice, pieces: list[int]) -> None:
    decoder = decoder_of(device, SHAPE)
    tokens = torch.randint(0, SHAPE.vocab, (301,))
    whole, parts = kv_of(decoder, tokens, [301]), kv_of(decoder, tokens, pieces)
    assert torch.allclose(whole.keys, parts.keys, atol=1e-4)
    assert torch.allclose(whole.values, parts.values, atol=1e-4)
    assert not torch.allclose(whole.keys[:, :, :, 0], whole.keys[:, :, :, 1], atol=1e-3)


def test_queries_side_by_side_do_not_see_one_another(device: TorchDevice) -> None:
    """Two queries behind a shared prefix in one pass, against each alone."""
    decoder = decoder_of(device, SHAPE)
    prefix, own = torch.randint(0, 256, (20,)), torch.randint(0, 256, (2, 9))
    cache = KvCache(device, SHAPE, 2, 29)
    both = slice(0, 2)
    segments = [
        Segment(cache, slice(0, 1), 0, 20, logits=False, into=both),
        Segment(cache, both, 20, 9, logits=True),
    ]
    found = decoder.run(segments, torch.cat([prefix, own.flatten()]))
    assert found.shape == (2,)
    for row in range(2):
        alone = kv_of(decoder, torch.cat([prefix, own[row]]), [29])
        assert torch.allclose(cache.keys[:, row], alone.keys[:, 0], atol=1e-4)
        keys, values = alone.read(0, 5, 20)
        cache.write(both, 5, (keys, values))
        assert torch.allclose(cache.values[:, row], alone.values[:, 0], atol=1e-4)


@pytest.mark.parametrize(("tokens", "context"), [(1, 310), (300, 300), (300, 310), (600, 900)])
def test_both_ways_to_attend_agree(tokens: int, context: int) -> None:
    queries = torch.randn(2, 4, tokens, 16)
    keys, values = torch.randn(2, 2, context, 16), torch.randn(2, 2, context, 16)
    here = _attend_on_cpu(torch, queries, keys, values)
    there = _attend_on_gpu(torch, queries, keys, values)
    assert torch.allclose(here, there, atol=1e-5)


@pytest.mark.parametrize("name", ["Mixtral-8x7B", "bge-large", "Gemma-2-9B"])
def test_other_kinds_of_models_run(device: TorchDevice, name: str) -> None:
    shape = shape_of(catalog.model(name), 32)
    decoder = decoder_of(device, shape)
    cache = KvCache(device, shape, 1, 8)
    segments = [Segment(cache, slice(0, 1), 0, 8, True)]
    found = decoder.run(segments, decoder.input_for(segments))
    assert (found is None) == (shape.vocab == 0)
    assert cache.values.abs().sum() > 0
