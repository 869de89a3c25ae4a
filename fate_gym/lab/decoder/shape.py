"""The sizes of a decoder with the costs of a catalogue model, at full size or scaled down."""

from __future__ import annotations

from dataclasses import dataclass

from fate_gym.catalog import GB, Model
from fate_gym.errors import InputError

_STEP = 64
"""Hidden sizes and MLP widths are multiples of this, for fast GEMM kernels."""
_LEAST_VOCABULARY = 256
_QUANTISED = 1.5
"""Bytes per parameter below which weights count as quantised."""


@dataclass(frozen=True)
class DecoderShape:
    """The sizes of a decoder. ``experts`` 0: one dense MLP per layer.

    ``intermediate`` is the width of the dense MLP of a layer, 0 without one; ``expert_width`` that
    of each expert. ``vocab`` 0: neither embedding nor output projection. ``keeps_kv`` is false
    for an encoder, which attends but caches nothing.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied_embedding: bool = False
    experts: int = 0
    experts_per_token: int = 0
    expert_width: int = 0
    keeps_kv: bool = True

    @property
    def width(self) -> int:
        """Query heads x head dimension."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """KV heads x head dimension."""
        return self.kv_heads * self.head_dim

    @property
    def attention_params(self) -> int:
        """Weights of the projections of a layer's attention."""
        return self.hidden * (2 * self.width + 2 * self.kv_width)

    @property
    def layer_params(self) -> int:
        """Weights of a layer, all its experts included."""
        return self.attention_params + self._mlp_params + self.experts * self._expert_params

    @property
    def params(self) -> int:
        """All weights."""
        embeddings = self.vocab * self.hidden * (1 if self.tied_embedding else 2)
        return self.layers * self.layer_params + embeddings

    @property
    def active_params(self) -> int:
        """Weights that a token uses."""
        idle = (self.experts - self.experts_per_token) * self._expert_params
        return self.params - self.layers * idle

    @property
    def _mlp_params(self) -> int:
        router = self.hidden * self.experts
        return 3 * self.hidden * self.intermediate + router

    @property
    def _expert_params(self) -> int:
        return 3 * self.hidden * self.expert_width

    def facts(self, name: str) -> Model:
        """Describe the decoder as a model of the simulator, with 16-bit weights."""
        mixture = {
            "active_b": self.active_params / 1e9,
            "experts": self.experts,
            "experts_per_token": self.experts_per_token,
        }
        return Model(
            name=name,
            params_b=self.params / 1e9,
            layers=self.layers,
            hidden=self.hidden,
            heads=self.heads,
            kv_heads=self.kv_heads if self.keeps_kv else 0,
            head_dim=self.head_dim,
            vocab=self.vocab,
            tied_embedding=self.tied_embedding,
            weight_gb=2 * self.params / GB,
            **(mixture if self.experts else {}),
        )


def shape_of(model: Model, scale: float = 1.0) -> DecoderShape:
    """Derive a decoder with the layers, heads, experts and parameters of a model.

    The width of its MLP follows from the number of parameters in the catalogue.

    Args:
        model: model of the catalogue or of a problem.
        scale: divisor of layers, widths and vocabulary; heads keep their size and experts their
            number.

    Raises:
        InputError: the model has quantised weights, or fewer parameters than its attention needs.
    """
    if model.weight_bytes < _QUANTISED * model.params_b * 1e9:
        raise InputError(
            f"{model.name} has quantised weights, and decoders run in 16 bits",
            item=f"model {model.name!r}",
            field="weight_gb",
            remedy="choose the 16-bit variant of the model",
        )
    head_dim = model.head_dim or 64
    heads = model.heads or max(1, model.hidden // head_dim)
    kv_heads = model.kv_heads or heads
    whole = DecoderShape(
        layers=model.layers,
        hidden=model.hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=0,
        vocab=model.vocab,
        tied_embedding=model.tied_embedding,
        experts=model.experts,
        experts_per_token=model.experts_per_token,
        keeps_kv=model.kv_heads > 0,
    )
    expert_width, intermediate = _mlp_widths(model, whole)
    kv_heads = max(1, round(kv_heads / scale))
    return DecoderShape(
        layers=max(1, round(model.layers / scale)),
        hidden=_multiple(model.hidden / scale),
        heads=kv_heads * max(1, round(heads / (scale * kv_heads))),
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=_multiple(intermediate / scale) if intermediate > 0 else 0,
        vocab=max(_LEAST_VOCABULARY, round(model.vocab / scale)) if model.vocab else 0,
        tied_embedding=model.tied_embedding,
        experts=model.experts,
        experts_per_token=model.experts_per_token,
        expert_width=_multiple(expert_width / scale) if model.experts else 0,
        keeps_kv=model.kv_heads > 0,
    )


def _mlp_widths(model: Model, bare: DecoderShape) -> tuple[float, float]:
    """Compute the widths of an expert and of the dense MLP; ``bare`` is the shape without MLPs."""
    a_unit = 3.0 * model.hidden * model.layers
    expert = 0.0
    if model.experts > model.experts_per_token:
        idle = model.params_b * 1e9 - model.active_params
        expert = idle / ((model.experts - model.experts_per_token) * a_unit)
    rest = model.layer_params - model.layers * bare.layer_params
    dense = rest / a_unit - model.experts_per_token * expert
    if rest <= 0:
        raise InputError(
            "its attention alone has more parameters than it has in all",
            item=f"model {model.name!r}",
            field="params_b",
            remedy="correct params_b, hidden, heads or head_dim",
        )
    # What the experts do not account for is rounding in the model card, or a shared expert.
    return expert, dense if dense > 0.02 * rest / a_unit else 0.0


def _multiple(width: float) -> int:
    return max(_STEP, _STEP * round(width / _STEP))
