"""Layer normalization that stays exact for rows with a mean far from zero."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from zoo.nn.dropout import RowDropout
from zoo.nn.fused_norm import EPSILON, WIDEST, fused_norm
from zoo.nn.placement import mesh_axes, on_own_rows, parts, placed, platform


def normalized(
    x: Float[Array, "*B E"], scale: Float[Array, "E"], bias: Float[Array, "E"], dtype: DTypeLike
) -> Float[Array, "*B E"]:
    """Ba et al. 2016, eq. 4: `(x - mean) / deviation * scale + bias` over the last axis, in `dtype`.

    Statistics are in float32. `E[x²] - E[x]²` cancels where a row lies far from zero (mean 1,000 and deviation 1 come
    out wrong by a half), so each row is first moved by one of its own elements. None of these is further from the mean
    than `√E` deviations (Samuelson 1968), which bounds what is lost, and both sums are still taken in one pass.

    A CPU takes the sum of squares in a second pass, of rows less their mean: what XLA makes of moved rows there is
    slower, by a quarter of a small Transformer's step.
    """
    x = x.astype(jnp.float32)
    if platform() == "cpu":
        x = x - x.mean(axis=-1, keepdims=True)
        variance = jnp.square(x).mean(axis=-1, keepdims=True)
        return (x * (jax.lax.rsqrt(variance + EPSILON) * scale) + bias).astype(dtype)
    x = x - jax.lax.stop_gradient(x[..., :1])
    mean = x.mean(axis=-1, keepdims=True)
    variance = jnp.maximum(jnp.square(x).mean(axis=-1, keepdims=True) - jnp.square(mean), 0.0)
    return ((x - mean) * (jax.lax.rsqrt(variance + EPSILON) * scale) + bias).astype(dtype)


def _in_one_kernel(
    x: Float[Array, "*B E"],
    scale: Float[Array, "E"],
    bias: Float[Array, "E"],
    dtype: DTypeLike,
    added: Float[Array, "*B E"] | None,
    dropout: RowDropout | None,
) -> Float[Array, "*B E"]:
    """`normalized` of `x` or of `x + dropout(added)`, by the kernel for NVIDIA GPUs."""
    (batch,) = mesh_axes("batch")

    def here(x, added, scale, bias, dropout):
        if dropout is not None and batch:  # the bits are those of the whole
            dropout = dropout.replace(row=dropout.row + jax.lax.axis_index(batch) * (x.size // x.shape[-1]))
        return fused_norm(x, scale, bias, dtype, added=added, dropout=dropout)

    return on_own_rows(here, (x, added), (scale, bias, dropout))


def _has_kernel(x: Float[Array, "*B E"]) -> bool:
    """Whether the kernel runs here: on GPUs, whose rows the mesh cuts along the batch alone."""
    return platform() == "gpu" and x.shape[-1] <= WIDEST and parts("length") == 1 and x.shape[0] % parts("batch") == 0


class LayerNorm(nn.Module):
    """`normalized` with its gain and its offset, one number each for every unit of the width.

    With `added` it is that of the residual `x + dropout(added)`; where the device has a kernel for all three, of that.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*B E"], added: Float[Array, "*B E"] | None = None, dropout: RowDropout | None = None
    ) -> Float[Array, "*B E"]:
        ones, zeros = nn.initializers.ones_init(), nn.initializers.zeros_init()
        scale = self.param("scale", nn.with_logical_partitioning(ones, ("embed",)), (x.shape[-1],))
        bias = self.param("bias", nn.with_logical_partitioning(zeros, ("embed",)), (x.shape[-1],))
        if _has_kernel(x):
            return _in_one_kernel(x, scale, bias, self.dtype, added, dropout)
        if added is not None:
            x = x + (added if dropout is None else dropout.apply(added))
            x = placed(x, "batch", *(["length"] * (x.ndim - 2)), None)
        return normalized(x, scale, bias, self.dtype)
