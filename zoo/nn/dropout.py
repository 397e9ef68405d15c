"""Dropout (Srivastava et al. 2014) whose bits cost less than the layer that they fall on."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Bool, Float, Int, UInt32


def _kept(number: tuple[UInt32[Array, "..."], ...], one: Array, two: Array, rate: float) -> Bool[Array, "..."]:
    """Whether the elements of these numbers are kept, under the two words of a key. A number comes in parts whose sum
    it is and which broadcast, so that what they have in common is computed once.

    The number times an odd word plus another is hashed by a bijection of 32 bits in which every input bit moves every
    output bit (Steele et al. 2014), without its last step, which moves the low half alone: eight instructions. With one
    multiplication less neighbours are correlated.
    """
    bits = one
    for part in number:
        bits = part * (two | jnp.uint32(1)) + bits
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> 15)) * jnp.uint32(0x846CA68B)
    return bits < jnp.uint32(min(round((1 - rate) * 2**32), 2**32 - 1))


def _words(key: Array) -> tuple[UInt32[Array, ""], UInt32[Array, ""]]:
    one, two = jnp.ravel(jax.random.key_data(key))[:2].astype(jnp.uint32)
    return one, two


def keep(key: Array, rate: float, shape: tuple[int, ...]) -> Bool[Array, "..."]:
    """True with probability `1 - rate`, drawn by hashing each element's number with the key.

    A cipher is more than dropout needs: this takes a tenth of Threefry's time, fuses with what it is applied to, and,
    as Threefry's, does not change with the sharding.
    """
    return _kept((_numbers(shape),), *_words(key), rate)


def _numbers(shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """The place of each element in the whole, row by row, modulo 2³²."""
    number = jnp.zeros(shape, jnp.uint32)
    for axis, size in enumerate(shape):
        number = number * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    return number


@struct.dataclass
class WeightDropout:
    """The dropout of attention weights `[B, H, T, S]`, of which any part can be drawn without the rest.

    `kept` gives the bits that `keep` gives for the whole, so it does not matter how the weights are cut into blocks or
    over devices. `row` and `head` are where the part at hand begins, of a whole with `heads` heads.
    """

    one: UInt32[Array, ""]
    two: UInt32[Array, ""]
    row: Int[ArrayLike, ""]
    head: Int[ArrayLike, ""]
    heads: int = struct.field(pytree_node=False)
    rate: float = struct.field(pytree_node=False)

    @classmethod
    def of(cls, key: Array, rate: float, heads: int) -> "WeightDropout":
        return cls(*_words(key), jnp.int32(0), jnp.int32(0), heads, rate)

    def kept(
        self, row: ArrayLike, head: ArrayLike, query: ArrayLike, key: ArrayLike, shape: tuple[int, int]
    ) -> Bool[Array, "..."]:
        """Whether the weights at these places of the part are kept (the places broadcast); `shape` is `(T, S)`."""
        row, head, query, key = (
            jnp.asarray(place).astype(jnp.uint32) for place in (self.row + row, self.head + head, query, key)
        )
        length, source = map(jnp.uint32, shape)
        first = ((row * jnp.uint32(self.heads) + head) * length + query) * source
        return _kept((first, key), self.one, self.two, self.rate)

    def apply(self, weights: Float[Array, "B H T S"]) -> Float[Array, "B H T S"]:
        places = (jnp.arange(size) for size in weights.shape)
        kept = self.kept(*jnp.ix_(*places), weights.shape[2:])
        return jnp.where(kept, weights / (1 - self.rate), 0)


@struct.dataclass
class RowDropout:
    """The dropout of rows `[*B, E]`, of which any part can be drawn without the rest: the bits are those that `keep`
    gives for the whole. `row` is the number of the first row at hand."""

    one: UInt32[Array, ""]
    two: UInt32[Array, ""]
    row: Int[ArrayLike, ""]
    rate: float = struct.field(pytree_node=False)

    @classmethod
    def of(cls, key: Array, rate: float) -> "RowDropout":
        return cls(*_words(key), jnp.int32(0), rate)

    def kept(self, row: ArrayLike, column: ArrayLike, width: int) -> Bool[Array, "..."]:
        """Whether the elements at these places of the part are kept (the places broadcast)."""
        row, column = (jnp.asarray(place).astype(jnp.uint32) for place in (row, column))
        first = (jnp.asarray(self.row).astype(jnp.uint32) + row) * jnp.uint32(width)
        return _kept((first, column), self.one, self.two, self.rate)

    def share(self, dtype: DTypeLike) -> float:
        """What kept elements of `dtype` are divided by."""
        return float(np.asarray(1 - self.rate, dtype))

    def apply(self, x: Float[Array, "*B E"]) -> Float[Array, "*B E"]:
        """`x`, the whole, with zeros where elements are not kept, the rest divided by `1 - rate`.

        The backward pass draws the bits again: no mask is kept for it.
        """
        return _dropped(x, (self.one, self.two), self.rate)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _dropped(x: Float[Array, "*B"], words: tuple[Array, Array], rate: float) -> Float[Array, "*B"]:
    return jnp.where(_kept((_numbers(x.shape),), *words, rate), x / jnp.asarray(1 - rate, x.dtype), jnp.zeros_like(x))


def _dropped_forward(x, words, rate):
    return _dropped(x, words, rate), words


def _dropped_backward(rate, words, gradient):
    # The barrier keeps XLA from saving the mask after all, since both passes compute the same.
    return _dropped(gradient, jax.lax.optimization_barrier(words), rate), None


_dropped.defvjp(_dropped_forward, _dropped_backward)


class Dropout(nn.Module):
    """Zeroes elements with probability `rate` while training, and scales the others by `1 / (1 - rate)`."""

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "*B"], train: bool) -> Float[Array, "*B"]:
        dropout = self.of_rows(train)
        return x if dropout is None else dropout.apply(x)

    def of_rows(self, train: bool) -> RowDropout | None:
        """This dropout for rows, for whoever reads them next to apply; `None` where nothing is dropped."""
        if not train or self.rate == 0.0:
            return None
        return RowDropout.of(self.make_rng("dropout"), self.rate)

    def of_weights(self, heads: int) -> WeightDropout | None:
        """This dropout for the weights of `heads` heads, for attention to apply; `None` where the rate is 0."""
        return WeightDropout.of(self.make_rng("dropout"), self.rate, heads) if self.rate > 0 else None
