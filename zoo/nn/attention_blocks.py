"""Blocks of queries and keys, as the kernels of `zoo.nn.fused_attention` walk over them.

Written in Pallas for Triton. A program of the grid has one block of one head, and walks over the blocks that it meets:
those that are seen as a whole need no mask.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, Int

from zoo.nn.blocks import load, span
from zoo.nn.dropout import WeightDropout
from zoo.nn.masks import FORBIDDEN

PyTree = Any

BLOCK = 64  # positions in a block; a tile of tensor cores wants 64 rows on Hopper, and at least 16 anywhere


@dataclass(frozen=True)
class Plan:
    """What is known of a call when it is compiled."""

    batch: int
    length: int
    source: int
    heads: int
    size: int
    causal: bool
    dropout: tuple[int, float] | None  # heads of the whole batch, rate
    interpret: bool

    @property
    def rows(self) -> int:
        """Queries in a block."""
        return min(BLOCK, max(16, pl.next_power_of_2(self.length)))

    @property
    def columns(self) -> int:
        """Keys in a block."""
        return min(BLOCK, max(16, pl.next_power_of_2(self.source)))

    @property
    def width(self) -> int:
        """Elements of a head, with those that fill it up to a power of two."""
        return max(16, pl.next_power_of_2(self.size))

    @property
    def one_block(self) -> bool:
        """Whether one block holds all queries, and another all keys."""
        return self.length <= self.rows and self.source <= self.columns

    @property
    def late(self) -> int:
        """By how much the first query is later than the first key, under a causal mask."""
        return self.source - self.length


@dataclass(frozen=True)
class View:
    """One head of one row of the batch, as a program of the grid sees it.

    `refs` are the operands: `query`, `key`, `value` and the like `[T, D]`, `segments` and `total` `[T]`. Each is as
    long and wide as whole blocks; what is there beyond `plan` must not be read. `end` is how many keys can be seen.
    """

    plan: Plan
    refs: dict
    end: Int[Array, ""] | int
    bits: WeightDropout | None

    @classmethod
    def of(cls, plan: Plan, refs: dict) -> "View":
        end, bits = refs["lengths"][0] if "lengths" in refs else plan.source, None
        if plan.dropout is not None:
            draw, (heads, rate) = [refs["draw"][i] for i in range(4)], plan.dropout
            row, head = (draw[i].astype(jnp.int32) + pl.program_id(axis) for i, axis in ((2, 2), (3, 1)))
            bits = WeightDropout(draw[0], draw[1], row, head, heads, rate)
        return cls(plan, refs, end, bits)

    def queries(self, name: str, row: Array, other: float = 0) -> Array:
        """The block of queries, or of what there is one of for each, that begins at `row`; `other` beyond the last."""
        return load(self.refs[name], row, self.plan.rows, self.plan.length, self.plan.size, other)

    def keys(self, name: str, column: Array) -> Array:
        """The block of keys, values or their segments that begins at `column`; zeros beyond the last."""
        return load(self.refs[name], column, self.plan.columns, self.plan.source, self.plan.size)

    @property
    def scale(self) -> float:
        """What a product of a query and a key is multiplied by: eq. 1 below its softmax, in base 2."""
        return self.plan.size**-0.5 * math.log2(math.e)

    def products(
        self, query: Array, key: Array, row: Array, column: Array, whole: bool, turned: bool = False
    ) -> Float[Array, "_ _"]:
        """Of each query and key of the blocks that begin at query `row` and key `column`, `[rows, columns]` or `turned`
        round, not yet scaled; `FORBIDDEN` where the query must not see the key, unless the `whole` block is seen."""
        products = times(key, query, 1, 1) if turned else times(query, key, 1, 1)
        if whole:
            return products
        rows, columns = self.places(row, column, turned)
        seen = jnp.broadcast_to(columns < self.end, products.shape)
        if self.plan.causal:
            seen = seen & (columns <= rows + self.plan.late)
        if "segments" in self.refs:
            one, other = self.queries("segments", row), self.keys("segments", column)
            seen = seen & (one[None, :] == other[:, None] if turned else one[:, None] == other[None, :])
        return jnp.where(seen, products, FORBIDDEN)

    @property
    def share(self) -> float:
        """What dropout multiplies by what it keeps."""
        return 1.0 if self.bits is None else 1 / (1 - self.bits.rate)

    def kept(self, row: Array, column: Array, turned: bool = False) -> Callable[[Float[Array, "_ _"]], Array]:
        """Dropout without its `share`, of weights of these blocks or of their gradients."""
        if self.bits is None:
            return lambda weights: weights
        kept = self.bits.kept(0, 0, *self.places(row, column, turned), (self.plan.length, self.plan.source))
        return lambda weights: jnp.where(kept, weights, 0.0)

    def places(self, row: Array, column: Array, turned: bool) -> tuple[Int[Array, "_ _"], Int[Array, "_ _"]]:
        rows, columns = span(row, self.plan.rows), span(column, self.plan.columns)
        return (rows[None, :], columns[:, None]) if turned else (rows[:, None], columns[None, :])

    def over_keys(self, row: Array, step: Callable, start: PyTree) -> PyTree:
        """`step(block, carry, whole)` from `start` on over the blocks of keys that the queries at `row` look at; those
        that all of them see as a `whole` come first."""
        p, end = self.plan, jnp.int32(self.end)
        whole = jax.lax.div(end, p.columns)
        if p.causal:
            end = jnp.minimum(end, row + p.rows + p.late)
            whole = jnp.minimum(whole, jax.lax.div(row + p.late + 1, p.columns))
        end = jax.lax.div(end + (p.columns - 1), p.columns)
        if "segments" in self.refs:
            return jax.lax.fori_loop(0, end, partial(step, whole=False), start)
        carry = jax.lax.fori_loop(0, whole, partial(step, whole=True), start)
        return jax.lax.fori_loop(whole, end, partial(step, whole=False), carry)

    def over_queries(self, column: Array, step: Callable, start: PyTree) -> PyTree:
        """The same over the blocks of queries that look at the keys at `column`; those that see them as a `whole` come
        last."""
        p, blocks = self.plan, jnp.int32(pl.cdiv(self.plan.length, self.plan.rows))
        first = jax.lax.div(jnp.maximum(column - p.late, 0), p.rows) if p.causal else jnp.int32(0)
        last = column + (p.columns - 1)
        end = jnp.where(column < self.end, blocks, first)
        if "segments" in self.refs:
            return jax.lax.fori_loop(first, end, partial(step, whole=False), start)
        whole = jax.lax.div(jnp.maximum(last - p.late, 0) + (p.rows - 1), p.rows) if p.causal else first
        whole = jnp.where(last < self.end, jnp.minimum(whole, end), end)
        carry = jax.lax.fori_loop(first, whole, partial(step, whole=False), start)
        return jax.lax.fori_loop(whole, end, partial(step, whole=True), carry)


def times(one: Array, other: Array, contract: int, with_: int) -> Float[Array, "_ _"]:
    """The product of two blocks over these axes, in the narrower of their types, summed in float32."""
    dtype = min(one.dtype, other.dtype, key=lambda dtype: dtype.itemsize)
    axes = (((contract,), (with_,)), ((), ()))
    return jax.lax.dot_general(one.astype(dtype), other.astype(dtype), axes, preferred_element_type=jnp.float32)


def up(length: int) -> int:
    """`length`, filled up to whole blocks."""
    return -(-length // BLOCK) * BLOCK
