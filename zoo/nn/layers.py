"""The layers of a Transformer: the boxes of Vaswani et al. 2017, Figure 1, before or after their norms."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Bool, Float, Int

from zoo.nn.attention import Heads, KeyValue, MultiHeadAttention
from zoo.nn.dropout import Dropout
from zoo.nn.linear import GLOROT_UNIFORM, Dense, Initializer
from zoo.nn.masks import Mask
from zoo.nn.norms import LayerNorm
from zoo.nn.placement import placed, platform


@jax.custom_vjp
def relu(x: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """`max(x, 0)`. Its backward pass reads the result, which the next product keeps anyway, so `x` is never written."""
    return jnp.maximum(x, 0)


def _relu_forward(x):
    y = relu(x)
    return y, y


def _relu_backward(y, gradient):
    y = jax.lax.optimization_barrier(y)  # else XLA compares `x` instead, and writes it after all
    return (jnp.where(y > 0, gradient, jnp.zeros_like(gradient)),)


relu.defvjp(_relu_forward, _relu_backward)

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": relu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
    "swish": jax.nn.silu,
}
NORMS = ("post", "pre")


def activated(x: Float[Array, "*B F"], name: str) -> Float[Array, "*B F"]:
    """`x` after the activation of this name. The backward pass keeps `x` alone (of `relu` its result), and computes the
    rest again, which costs less than to write and read it."""
    activation = ACTIVATIONS[name]
    if activation is relu:
        return activation(x)
    return _activated_in_float32(x, name) if platform() == "cpu" else jax.checkpoint(activation)(x)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _activated_in_float32(x: Float[Array, "*B F"], name: str) -> Float[Array, "*B F"]:
    """A CPU has no arithmetic in bfloat16: it would convert before and after every operation."""
    return ACTIVATIONS[name](x.astype(jnp.float32)).astype(x.dtype)


def _activated_backward(name, x, gradient):
    _, pullback = jax.vjp(ACTIVATIONS[name], x.astype(jnp.float32))
    return (pullback(gradient.astype(jnp.float32))[0].astype(x.dtype),)


_activated_in_float32.defvjp(lambda x, name: (_activated_in_float32(x, name), x), _activated_backward)


@dataclass(frozen=True)
class LayerConfig:
    """What all layers of a stack have in common. `norm` is `post` (the paper) or `pre` (Xiong et al. 2020).

    Both sublayers' last maps begin as the attention's `residual_init` says, where it says anything.
    """

    attention: Heads
    ffn: int
    norm: str = "post"
    activation: str = "relu"
    dropout: float = 0.1
    ffn_dropout: float = 0.0
    kernel_init: Initializer = GLOROT_UNIFORM

    @property
    def width(self) -> int:
        return self.attention.width

    @property
    def dtype(self) -> DTypeLike:
        return self.attention.dtype


class AddAndNorm(nn.Module):
    """The residual around a sublayer: `norm(x + f(x))` after, or `x + f(norm(x))` before (section 3.1)."""

    config: LayerConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T E"], sublayer: Callable, train: bool
    ) -> tuple[Float[Array, "B T E"], object]:
        """`sublayer` maps `x` to its output and anything else, which is handed through."""
        norm = LayerNorm(self.config.dtype, name="norm")
        dropout = Dropout(self.config.dropout)
        if self.config.norm == "post":
            y, extra = sublayer(x)
            return norm(x, y, dropout.of_rows(train)), extra
        y, extra = sublayer(norm(x))
        return placed(x + dropout(y, train), "batch", "length", None), extra


class FeedForward(nn.Module):
    """Section 3.3, eq. 2: `f(x W1 + b1) W2 + b2`, at every position alike."""

    config: LayerConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T E"], train: bool = False) -> Float[Array, "B T E"]:
        c = self.config
        shared = {"dtype": c.dtype, "kernel_init": c.kernel_init}
        hidden = activated(Dense(c.ffn, axes=("embed", "mlp"), name="expand", **shared)(x), c.activation)
        hidden = Dropout(c.ffn_dropout)(placed(hidden, "batch", "length", "mlp"), train)
        shared["kernel_init"] = c.attention.residual_init or c.kernel_init
        return Dense(c.width, axes=("mlp", "embed"), name="contract", **shared)(hidden)


class EncoderLayer(nn.Module):
    """The box "N×" on the left of Figure 1.

    Under a causal mask it is the layer of a decoder without a source (Radford et al. 2018), and `step` decodes with it.
    """

    config: LayerConfig

    def setup(self):
        self.attention = MultiHeadAttention(self.config.attention)
        self.attention_residual = AddAndNorm(self.config)
        self.feed_forward = FeedForward(self.config)
        self.feed_forward_residual = AddAndNorm(self.config)

    def __call__(self, x: Float[Array, "B S E"], mask: Mask, train: bool, weights: bool):
        """Gives `x` and, if asked for, the attention weights `[B, H, S, S]`."""
        x, seen = self.attention_residual(x, lambda x: self.attention(x, x, mask, train, weights), train)
        x, _ = self.feed_forward_residual(x, lambda x: (self.feed_forward(x, train), None), train)
        return x, seen

    def step(self, x: Float[Array, "B T E"], caches: tuple[KeyValue], view: "StepView"):
        """`__call__` for new positions only, from the past. Gives `x`, the past with them, and the weights over its
        slots."""
        (past,) = caches
        x, seen = self.attention_residual(x, lambda x: self.attention.step(x, past, view.slot, view.past), False)
        x, _ = self.feed_forward_residual(x, lambda x: (self.feed_forward(x), None), False)
        return x, seen


@struct.dataclass
class Memory:
    """The encoded source, and who may look at it."""

    states: Float[Array, "B S E"]
    mask: Mask


@struct.dataclass
class StepView:
    """What a decoding step may see: `past` among the slots of the cache, `source` among the source's positions.

    `slot` is where the step's own keys and values are written. A decoder without a source has `None`.
    """

    slot: Int[ArrayLike, ""]
    past: Bool[Array, "B 1 T slots"]
    source: Bool[Array, "B 1 1 S"] | None = None


class DecoderLayer(nn.Module):
    """The box "N×" on the right of Figure 1: masked self-attention, attention to the source, feed-forward."""

    config: LayerConfig

    def setup(self):
        self.self_attention = MultiHeadAttention(self.config.attention)
        self.self_attention_residual = AddAndNorm(self.config)
        self.cross_attention = MultiHeadAttention(self.config.attention)
        self.cross_attention_residual = AddAndNorm(self.config)
        self.feed_forward = FeedForward(self.config)
        self.feed_forward_residual = AddAndNorm(self.config)

    def __call__(self, x: Float[Array, "B T E"], given: tuple[Mask, Memory], train: bool, weights: bool):
        """Gives `x` and, if asked for, the weights to itself `[B, H, T, T]` and to the source `[B, H, T, S]`."""
        mask, memory = given
        x, own = self.self_attention_residual(x, lambda x: self.self_attention(x, x, mask, train, weights), train)
        x, cross = self.cross_attention_residual(
            x, lambda x: self.cross_attention(x, memory.states, memory.mask, train, weights), train
        )
        x, _ = self.feed_forward_residual(x, lambda x: (self.feed_forward(x, train), None), train)
        return x, (own, cross)

    def remember(self, memory: Float[Array, "B S E"]) -> tuple[Float[Array, "B S E"], KeyValue]:
        """The source-side half of cross-attention, computed once for a whole decoding; `memory` is handed on."""
        return memory, self.cross_attention.keys_values(memory)

    def step(self, x: Float[Array, "B T E"], caches: tuple[KeyValue, KeyValue], view: StepView):
        """`__call__` for new positions only, from the past and the projected source. Gives `x`, the past with them, and
        the weights to the source `[B, H, T, S]`."""
        past, source = caches
        x, (past, _) = self.self_attention_residual(
            x, lambda x: self.self_attention.step(x, past, view.slot, view.past), False
        )
        x, cross = self.cross_attention_residual(x, lambda x: self.cross_attention.look(x, source, view.source), False)
        x, _ = self.feed_forward_residual(x, lambda x: (self.feed_forward(x), None), False)
        return x, (past, cross)
