"""Matrices of 8-bit integers, for decoding: a quarter of float32's memory, and products of integers."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Int8

QUANTIZATIONS = ("none", "int8")
LARGEST = 127  # -128 is left out, so that both signs have the same range
# Parameters that are multiplied by, or read row by row. Those under POSITIONS are added to others, and stay.
MATRICES = ("kernel", "table", "output", "matrix", "query", "context", "gates", "candidate")
POSITIONS = ("positions", "learned_positions")


@struct.dataclass
class Quantized:
    """Stands for the matrix `values * scale` in a kernel's place among the parameters; `zoo.nn.linear.dot` multiplies
    by it. `scale` broadcasts: it has one number for each output of the product, or for each row of a table."""

    values: Int8[Array, "..."]
    scale: Float[Array, "..."]

    @classmethod
    def of(cls, matrix: Float[Array, "..."], contracted: tuple[int, ...]) -> "Quantized":
        """The nearest to `matrix`, whose `contracted` axes a product sums over."""
        scale = _step(matrix, contracted)
        return cls(jnp.round(matrix / scale).astype(jnp.int8), scale)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def ndim(self) -> int:
        return self.values.ndim

    def reshape(self, *shape: int) -> "Quantized":
        """A kernel as the matrix `[I, O]` of this `shape`."""
        return Quantized(self.values.reshape(*shape), self.scale.reshape(1, -1))

    def rows(self, index: Int[ArrayLike, "*B"]) -> Float[Array, "*B E"]:
        """Those rows of a table, in float32."""
        return jnp.take(self.values, index, axis=0).astype(jnp.float32) * jnp.take(self.scale, index, axis=0)

    def product(self, x: Float[Array, "*N I"], contract: int) -> Float[Array, "*N O"]:
        """The last axis of `x` against axis `contract` of the matrix, in float32.

        Each row of `x` is rounded to integers by a scale of its own, so that rows do not change each other's result.
        """
        rows = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
        step = _step(rows, (1,))
        whole = jnp.round(rows / step).astype(jnp.int8)
        sums = lax.dot_general(whole, self.values, (((1,), (contract,)), ((), ())), preferred_element_type=jnp.int32)
        return (sums.astype(jnp.float32) * step * self.scale.reshape(1, -1)).reshape(*x.shape[:-1], -1)


def _step(x: Float[Array, "..."], axes: tuple[int, ...]) -> Float[Array, "..."]:
    """The distance between two neighbouring integers, such that the largest of `axes` is `LARGEST` of them."""
    largest = jnp.max(jnp.abs(x), axis=axes, keepdims=True)
    return jnp.where(largest > 0, largest / LARGEST, 1.0)


def quantized(params: Mapping[str, Any]) -> dict[str, Any]:
    """`params` of any model or ensemble with every matrix as a `Quantized`; biases, norms and positions as they are."""
    flat = flatten_dict(params)
    of = jax.jit(Quantized.of, static_argnums=1)
    for path, leaf in flat.items():
        contracted = _contracted(path, leaf.ndim)
        if contracted:
            flat[path] = of(leaf, contracted)
    return unflatten_dict(flat)


def _contracted(path: tuple[str, ...], ndim: int) -> tuple[int, ...]:
    """The axes that a product with the parameter at `path` sums over; none, if it is no matrix."""
    first = 1 if "layers" in path else 0  # a stack's axis of layers comes before
    parent, name = path[-2] if len(path) > 1 else "", path[-1]
    if name not in MATRICES or parent in POSITIONS or ndim - first < 2:
        return ()
    if name == "table":
        return (ndim - 1,)  # a row for each token, whether it is read or predicted
    if parent == "output":
        return tuple(range(first, ndim - 1))  # of attention: over heads and their units
    return (first,)
