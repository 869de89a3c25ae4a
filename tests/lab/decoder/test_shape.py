"""Decoders have the sizes of the models, full or scaled down."""

from __future__ import annotations

import pytest

from fate_gym import catalog
from fate_gym.errors import InputError
from fate_gym.lab.decoder.shape import shape_of

UNQUANTISED = [name for name in catalog.models() if not name.endswith("-AWQ")]


@pytest.mark.parametrize("name", UNQUANTISED)
def test_a_decoder_has_the_parameters_of_its_model(name: str) -> None:
    model = catalog.model(name)
    shape = shape_of(model)
    assert shape.params == pytest.approx(model.params_b * 1e9, rel=0.01)
    assert shape.active_params == pytest.approx(model.active_params, rel=0.02)
    facts = shape.facts(name)
    assert facts.kv_bytes_per_token == model.kv_bytes_per_token
    assert facts.attention_width == model.attention_width


@pytest.mark.parametrize(
    ("name", "dense", "expert"),
    [("Llama-3.1-8B", 14336, 0), ("Qwen2.5-7B", 18944, 0), ("Mixtral-8x7B", 0, 14336),
     ("Qwen3-30B-A3B-2507", 0, 768)],
)  # fmt: skip
def test_mlps_are_as_wide_as_published(name: str, dense: int, expert: int) -> None:
    """intermediate_size and moe_intermediate_size of the models' config.json."""
    shape = shape_of(catalog.model(name))
    assert (shape.intermediate, shape.expert_width) == (dense, expert)


@pytest.mark.parametrize("name", UNQUANTISED)
@pytest.mark.parametrize("scale", [4.0, 16.0])
def test_a_smaller_decoder_is_a_model_of_its_own(name: str, scale: float) -> None:
    shape = shape_of(catalog.model(name), scale)
    assert shape.params < shape_of(catalog.model(name)).params / scale
    assert shape.heads % shape.kv_heads == 0
    assert shape_of(shape.facts(name)) == shape


def test_quantised_weights_are_refused() -> None:
    with pytest.raises(InputError, match="quantised"):
        shape_of(catalog.model("Qwen2.5-72B-AWQ"))


def test_a_model_without_room_for_its_attention_is_refused() -> None:
    model = catalog.model("Mistral-7B").model_copy(update={"params_b": 0.7})
    with pytest.raises(InputError, match="attention alone"):
        shape_of(model)
