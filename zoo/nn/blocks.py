"""Blocks of arrays inside kernels for NVIDIA GPUs, written in Pallas for Triton.

Sizes of blocks are powers of two. Elements beyond the end of an array are neither read nor written.
"""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float, Int

from zoo.nn.placement import platform


def load(ref, start: Array | int, count: int, length: int, size: int, other: float = 0) -> Array:
    """`count` rows of `ref` from `start` on, of which `length` exist, with their first `size` elements; `other` stands
    for what does not exist. A `ref` without a second axis has rows of one element."""
    real, places = span(start, count) < length, (pl.ds(start, count),)
    if len(ref.shape) == 2:
        real = real[:, None] & (jnp.arange(ref.shape[1]) < size)[None, :]
        places = (*places, pl.ds(0, ref.shape[1]))
    return triton.load(ref.at[places], mask=real, other=other)


def store(place: tuple, start: Array | int, block: Float[Array, "block D"], length: int, size: int) -> None:
    """The reverse. `place` is a reference and, where it has an axis between rows and elements, the index there."""
    (ref, *part), (count, width) = place, block.shape
    real = (span(start, count) < length)[:, None] & (jnp.arange(width) < size)[None, :]
    triton.store(ref.at[(pl.ds(start, count), *part, pl.ds(0, width))], block.astype(ref.dtype), mask=real)


def span(start: Array | int, count: int) -> Int[Array, "count"]:
    """The numbers of `count` rows from `start` on."""
    return start + jnp.arange(count, dtype=jnp.int32)


def exp2(x: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """`2 ** x` in one instruction, whose results below 2⁻¹²⁶ are 0; XLA's takes four, to get those right."""
    if platform() == "cpu":
        return jnp.exp2(x)
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return triton.elementwise_inline_asm(
        "ex2.approx.ftz.f32 $0, $1;", args=[x], constraints="=f,f", pack=1, result_shape_dtypes=[shape]
    )[0]
