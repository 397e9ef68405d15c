"""Dropout (Srivastava et al. 2014) whose bits cost less than the layer that they fall on."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt32


def _mixed(bits: UInt32[Array, "*B"]) -> UInt32[Array, "*B"]:
    """A bijection of 32 bits in which every input bit moves every output bit (Steele et al. 2014)."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> 15)) * jnp.uint32(0x846CA68B)
    return bits ^ (bits >> 16)


def keep(key: Array, rate: float, shape: tuple[int, ...]) -> Bool[Array, "..."]:
    """True with probability `1 - rate`, drawn by hashing each element's number with the key.

    A cipher is more than dropout needs: this takes a tenth of Threefry's time, fuses with what it is applied to, and,
    as Threefry's, does not change with the sharding.
    """
    one, two = jnp.ravel(jax.random.key_data(key))[:2].astype(jnp.uint32)
    number = jnp.zeros(shape, jnp.uint32)
    for axis, size in enumerate(shape):
        number = number * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    bits = _mixed(_mixed(number ^ one) + two)
    return bits < jnp.uint32(min(round((1 - rate) * 2**32), 2**32 - 1))


class Dropout(nn.Module):
    """Zeroes elements with probability `rate` while training, and scales the others by `1 / (1 - rate)`."""

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "*B"], train: bool) -> Float[Array, "*B"]:
        if not train or self.rate == 0.0:
            return x
        kept = keep(self.make_rng("dropout"), self.rate, x.shape)
        return jnp.where(kept, x / jnp.asarray(1 - self.rate, x.dtype), jnp.zeros_like(x))
