"""Additive attention: the alignment model of Bahdanau et al. 2015, section 3.1 and A.1.2."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from zoo.nn.linear import Dense, Initializer
from zoo.nn.masks import FORBIDDEN


@struct.dataclass
class Aligned:
    """The source as a query sees it: `keys` are `U_a h`, computed once; `energy` is `v_a`; `seen` are its tokens,
    and at least one position of each row."""

    keys: Float[Array, "B S A"]
    energy: Float[Array, "A"]
    seen: Bool[Array, "B S"]


def additive_weights(query: Float[Array, "B K A"], source: Aligned) -> Float[Array, "B K S"]:
    """`α = softmax_j(v_aᵀ tanh(W_a s + U_a h_j))` for queries `W_a s`, in float32; 0 on padding.

    The backward pass recomputes the `tanh`, which would be the largest tensor of the model.
    """
    scores = _scores(query, source.keys, source.energy)
    return jax.nn.softmax(jnp.where(source.seen[:, None], scores, FORBIDDEN), axis=-1)


@jax.checkpoint
def _scores(query: Array, keys: Array, energy: Array) -> Float[Array, "B K S"]:
    return (jnp.tanh(query[:, :, None] + keys[:, None].astype(jnp.float32)) * energy).sum(axis=-1)


def uniform_weights(real: Bool[Array, "B S"], beams: int) -> Float[Array, "B K S"]:
    """Equal weights for all tokens of the source, for a model without attention."""
    weights = real / jnp.maximum(real.sum(axis=1, keepdims=True), 1)
    return jnp.broadcast_to(weights[:, None], (real.shape[0], beams, real.shape[1])).astype(jnp.float32)


class AdditiveAlignment(nn.Module):
    """The parameters of the alignment model, of size `size`: `W_a` for queries, `U_a` for the source, and `v_a`."""

    size: int
    queries: int
    kernel_init: Initializer
    energy_init: Initializer
    dtype: DTypeLike = jnp.float32

    def setup(self):
        self.source = Dense(
            self.size, axes=("embed", "mlp"), bias=False, dtype=self.dtype, kernel_init=self.kernel_init
        )
        init = nn.with_logical_partitioning(self.kernel_init, ("embed", "mlp"))
        self.query = self.param("query", init, (self.queries, self.size))
        self.energy = self.param("energy", nn.with_logical_partitioning(self.energy_init, ("mlp",)), (self.size,))

    def __call__(self, annotations: Float[Array, "B S E"], seen: Bool[Array, "B S"]) -> Aligned:
        return Aligned(self.source(annotations), self.energy, seen)
