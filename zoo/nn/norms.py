"""Layer normalization, as exact for rows whose mean is far from zero."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

EPSILON = 1e-5


def normalized(
    x: Float[Array, "*B E"], scale: Float[Array, "E"], bias: Float[Array, "E"], dtype: DTypeLike
) -> Float[Array, "*B E"]:
    """Ba et al. 2016, eq. 4: `(x - mean) / deviation * scale + bias` over the last axis, in `dtype`.

    Statistics are in float32. `E[x²] - E[x]²` cancels where a row lies far from zero (mean 1,000 and deviation 1 come
    out wrong by a half), so each row is first moved by one of its own elements. None of these is further from the mean
    than `√E` deviations (Samuelson 1968), which bounds what is lost, and both sums are still taken in one pass.
    """
    x = x.astype(jnp.float32)
    x = x - jax.lax.stop_gradient(x[..., :1])
    mean = x.mean(axis=-1, keepdims=True)
    variance = jnp.maximum(jnp.square(x).mean(axis=-1, keepdims=True) - jnp.square(mean), 0.0)
    return ((x - mean) * (jax.lax.rsqrt(variance + EPSILON) * scale) + bias).astype(dtype)


class LayerNorm(nn.Module):
    """`normalized` with its gain and its offset, one number each for every unit of the width."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*B E"]) -> Float[Array, "*B E"]:
        ones, zeros = nn.initializers.ones_init(), nn.initializers.zeros_init()
        scale = self.param("scale", nn.with_logical_partitioning(ones, ("embed",)), (x.shape[-1],))
        bias = self.param("bias", nn.with_logical_partitioning(zeros, ("embed",)), (x.shape[-1],))
        return normalized(x, scale, bias, self.dtype)
