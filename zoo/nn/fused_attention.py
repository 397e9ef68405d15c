"""Attention with its dropout as one kernel, forward and backward: no `[T, S]` table reaches memory.

The algorithm is FlashAttention-2 (Dao 2023), written in Pallas for Triton, so for NVIDIA GPUs. A program of the grid
has one block of queries of one head and walks over blocks of keys with an online softmax; the backward pass computes
the weights again from the log-sum-exp of each query, and draws the bits of dropout again. They are those of
`zoo.nn.dropout`: a weight's number decides, so the kernel drops what the plain form drops.

Queries, keys and values are read where the products that made them left them, each an array or several stacked in one,
`[B, T, 3, H, D]` or `[B, S, 2, H, D]`, and their gradients are written in the same form.
"""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float, Int

from zoo.nn.blocks import load, span, store
from zoo.nn.dropout import WeightDropout
from zoo.nn.masks import FORBIDDEN, Mask

BLOCK = 64  # positions in a block; a tile of tensor cores wants 64 rows on Hopper, and at least 16 anywhere


def fused_attention(
    query: Float[Array, "B T H D"],
    key: Float[Array, "B S H D"],
    value: Float[Array, "B S H D"],
    mask: Mask,
    dropout: WeightDropout | None = None,
    interpret: bool = False,
) -> Float[Array, "B T H D"]:
    """Softmax(Q Kᵀ / √D) V (Vaswani et al. 2017, eq. 1), its weights dropped out, in the type of `query`.

    Products are in the operands' type with sums in float32, the softmax is in float32. Any lengths will do; `D` is at
    most 128. `interpret` runs the kernel as JAX operations, on any device.
    """
    return fused_stacked_attention((query, key, value), mask, dropout, interpret)


def fused_stacked_attention(
    operands: tuple[Array, ...], mask: Mask, dropout: WeightDropout | None = None, interpret: bool = False
) -> Float[Array, "B T H D"]:
    """`fused_attention` of queries, keys and values in this order, each `[B, T, H, D]` or several as `[B, T, n, H, D]`;
    each array gets a gradient of its own form."""
    batch, length, *_, heads, size = operands[0].shape
    source = operands[-1].shape[1]
    mask.check(length, source)
    if size > 128:
        raise ValueError(f"the kernel takes heads of at most 128 elements, not {size}")
    rate = None if dropout is None else (dropout.heads, dropout.rate)
    plan = _Plan(batch, length, source, heads, size, mask.causal, rate, interpret)
    given = {name: x.astype(jnp.int32) for name in ("lengths", "segments") if (x := getattr(mask, name)) is not None}
    if dropout is not None:
        draw = (dropout.one, dropout.two, dropout.row, dropout.head)
        given["draw"] = jnp.stack([jnp.asarray(x).astype(jnp.uint32) for x in draw])
    return _fused(operands, given, plan)


@dataclass(frozen=True)
class _Plan:
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
    def late(self) -> int:
        """By how much the first query is later than the first key, under a causal mask."""
        return self.source - self.length


@dataclass(frozen=True)
class _View:
    """One head of one row of the batch, as a program of the grid sees it.

    `refs` are the operands: `query`, `key`, `value` and the like `[T, D]`, `segments` and `total` `[T]`. Each is as
    long and wide as whole blocks; what is there beyond `plan` must not be read. `end` is how many keys can be seen.
    """

    plan: _Plan
    refs: dict
    end: Int[Array, ""] | int
    bits: WeightDropout | None

    @classmethod
    def of(cls, plan: _Plan, refs: dict) -> "_View":
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

    def logits(self, query: Array, key: Array, row: Array, column: Array) -> Float[Array, "rows columns"]:
        """Eq. 1 below its softmax, in base 2, of the blocks that begin at query `row` and key `column`."""
        p = self.plan
        rows, columns = self.places(row, column)
        logits = _times(query, key, 1, 1) * (p.size**-0.5 * math.log2(math.e))
        seen = jnp.broadcast_to(columns < self.end, logits.shape)
        if p.causal:
            seen = seen & (columns <= rows + p.late)
        if "segments" in self.refs:
            seen = seen & (self.queries("segments", row)[:, None] == self.keys("segments", column)[None, :])
        return jnp.where(seen, logits, FORBIDDEN)

    def dropped(self, weights: Float[Array, "rows columns"], row: Array, column: Array) -> Array:
        """`weights` of the same blocks, or their gradients, after dropout."""
        if self.bits is None:
            return weights
        kept = self.bits.kept(0, 0, *self.places(row, column), (self.plan.length, self.plan.source))
        return jnp.where(kept, weights * (1 / (1 - self.bits.rate)), 0.0)

    def places(self, row: Array, column: Array) -> tuple[Int[Array, "rows 1"], Int[Array, "1 columns"]]:
        return span(row, self.plan.rows)[:, None], span(column, self.plan.columns)[None, :]

    def key_blocks(self, row: Array) -> tuple[int, Int[Array, ""]]:
        """The first and the end of the blocks of keys that the queries at `row` look at."""
        p, end = self.plan, jnp.int32(self.end)
        if p.causal:
            end = jnp.minimum(end, row + p.rows + p.late)
        return 0, jax.lax.div(end + (p.columns - 1), p.columns)

    def query_blocks(self, column: Array) -> tuple[Int[Array, ""], Int[Array, ""]]:
        """The first and the end of the blocks of queries that look at the keys at `column`."""
        p = self.plan
        first = jax.lax.div(jnp.maximum(column - p.late, 0), p.rows) if p.causal else jnp.int32(0)
        return first, jnp.where(column < self.end, jnp.int32(pl.cdiv(p.length, p.rows)), first)


def _times(one: Array, other: Array, contract: int, with_: int) -> Float[Array, "_ _"]:
    """The product of two blocks over these axes, summed in float32."""
    axes = (((contract,), (with_,)), ((), ()))
    return jax.lax.dot_general(one, other.astype(one.dtype), axes, preferred_element_type=jnp.float32)


def _forward_kernel(refs: dict, mixed_ref, total_ref, *, plan: _Plan) -> None:
    """FlashAttention-2, algorithm 1: one block of queries."""
    view, row = _View.of(plan, refs), pl.program_id(0) * plan.rows
    query = view.queries("query", row)

    def step(i, carry):
        mixed, highest, total = carry
        column = i * plan.columns
        logits = view.logits(query, view.keys("key", column), row, column)
        new = jnp.maximum(highest, logits.max(axis=1))
        weights, shrink = jnp.exp2(logits - new[:, None]), jnp.exp2(highest - new)
        mixed = mixed * shrink[:, None] + _times(view.dropped(weights, row, column), view.keys("value", column), 1, 0)
        return mixed, new, total * shrink + weights.sum(axis=1)

    nothing = jnp.zeros((plan.rows, plan.width), jnp.float32)
    start = (nothing, jnp.full(plan.rows, FORBIDDEN, jnp.float32), jnp.zeros(plan.rows, jnp.float32))
    mixed, highest, total = jax.lax.fori_loop(*view.key_blocks(row), step, start)
    store((mixed_ref,), row, mixed / total[:, None], plan.length, plan.size)
    real = span(row, plan.rows) < plan.length
    triton.store(total_ref.at[pl.ds(row, plan.rows)], highest + jnp.log2(total), mask=real)


def _backward_kernel(refs: dict, *gradients, plan: _Plan) -> None:
    """FlashAttention-2, algorithm 2: the gradients of one block of keys and values, then those of one of queries.

    Two walks, and no sums by atomic operations: the result does not depend on the order of programs.
    """
    view = _View.of(plan, refs)
    places = []
    for ref in gradients:
        places += [(ref,)] if len(ref.shape) == 2 else [(ref, jnp.int32(i)) for i in range(ref.shape[1])]
    of_key, of_value = _of_keys(view, pl.program_id(0) * plan.columns)
    for place, gradient in zip(places[1:], (of_key, of_value), strict=True):
        store(place, pl.program_id(0) * plan.columns, gradient, plan.source, plan.size)
    of_query = _of_queries(view, pl.program_id(0) * plan.rows)
    store(places[0], pl.program_id(0) * plan.rows, of_query, plan.length, plan.size)


def _of_keys(view: _View, column: Array) -> tuple[Float[Array, "columns D"], Float[Array, "columns D"]]:
    key, value = view.keys("key", column), view.keys("value", column)

    def step(i, carry):
        of_key, of_value = carry
        row = i * view.plan.rows
        query, given = view.queries("query", row), view.queries("given", row)
        weights, of_logits = _weights_and_gradient(view, query, key, value, given, row, column)
        of_value = of_value + _times(given, view.dropped(weights, row, column), 0, 0).T
        return of_key + _times(query, of_logits, 0, 0).T, of_value

    nothing = jnp.zeros((view.plan.columns, view.plan.width), jnp.float32)
    of_key, of_value = jax.lax.fori_loop(*view.query_blocks(column), step, (nothing, nothing))
    return of_key * view.plan.size**-0.5, of_value


def _of_queries(view: _View, row: Array) -> Float[Array, "rows D"]:
    query, given = view.queries("query", row), view.queries("given", row)

    def step(i, of_query):
        column = i * view.plan.columns
        key, value = view.keys("key", column), view.keys("value", column)
        _, of_logits = _weights_and_gradient(view, query, key, value, given, row, column)
        return of_query + _times(of_logits, key, 1, 0)

    nothing = jnp.zeros((view.plan.rows, view.plan.width), jnp.float32)
    return jax.lax.fori_loop(*view.key_blocks(row), step, nothing) * view.plan.size**-0.5


def _weights_and_gradient(view, query, key, value, given, row, column) -> tuple[Array, Array]:
    """The weights of two blocks before dropout, and the gradient of their logits, `[rows, columns]` each."""
    weights = jnp.exp2(view.logits(query, key, row, column) - view.queries("total", row, jnp.inf)[:, None])
    along = (given.astype(jnp.float32) * view.queries("mixed", row).astype(jnp.float32)).sum(axis=1)
    of_weights = view.dropped(_times(given, value, 1, 1), row, column)
    return weights, weights * (of_weights - along[:, None])


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _fused(operands: tuple[Array, ...], given: dict[str, Array], plan: _Plan) -> Float[Array, "B T H D"]:
    return _forward(operands, given, plan)[0]


def _forward(operands, given, plan):
    arrays, specs = _operands(operands, given, plan)
    like = jax.ShapeDtypeStruct((plan.batch, plan.length, plan.heads, plan.size), operands[0].dtype)
    totals = jax.ShapeDtypeStruct((plan.batch, plan.heads, plan.length), jnp.float32)
    mixed, total = pl.pallas_call(
        partial(_forward_kernel, plan=plan),
        grid=(pl.cdiv(plan.length, plan.rows), plan.heads, plan.batch),
        in_specs=[specs],
        out_specs=[_spec(like, plan), _total_spec(plan)],
        out_shape=[like, totals],
        **_compiled("attention_forward", plan, products=2),
    )(arrays)
    return mixed, (operands, given, mixed, total)


def _backward(plan, residuals, gradient):
    operands, given, mixed, total = residuals
    arrays, specs = _operands(operands, given, plan)
    arrays |= {"given": gradient, "mixed": mixed, "total": total}
    specs |= {"given": _spec(gradient, plan), "mixed": _spec(mixed, plan), "total": _total_spec(plan)}
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in operands]
    blocks = max(pl.cdiv(plan.length, plan.rows), pl.cdiv(plan.source, plan.columns))
    gradients = pl.pallas_call(
        partial(_backward_kernel, plan=plan),
        grid=(blocks, plan.heads, plan.batch),
        in_specs=[specs],
        out_specs=[_spec(x, plan) for x in shapes],
        out_shape=shapes,
        **_compiled("attention_backward", plan, products=7),  # as both walks multiply queries by keys
    )(arrays)
    return tuple(gradients), None


_fused.defvjp(_forward, _backward)


def _operands(operands: tuple[Array, ...], given: dict[str, Array], plan: _Plan) -> tuple[dict, dict]:
    """What both kernels read, by name, and which part of it a program sees."""
    found = []
    for x in operands:
        found += [(x, None)] if x.ndim == 4 else [(x, part) for part in range(x.shape[2])]
    named = dict(zip(("query", "key", "value"), found, strict=True))
    arrays = {name: x for name, (x, _) in named.items()}
    specs = {name: _spec(x, plan, part) for name, (x, part) in named.items()}
    whole = {
        "lengths": pl.BlockSpec((1,), lambda i, h, b: (b,)),
        "segments": pl.BlockSpec((None, _up(plan.length)), lambda i, h, b: (b, 0)),
        "draw": pl.BlockSpec((4,), lambda i, h, b: (0,)),
    }
    return arrays | given, specs | {name: whole[name] for name in given}


def _spec(x: Array | jax.ShapeDtypeStruct, plan: _Plan, part: int | None = None) -> pl.BlockSpec:
    """All positions of one head of `x`; of an array that holds several operands, those of all or of this `part`."""
    if x.ndim == 4:
        return pl.BlockSpec((None, _up(x.shape[1]), None, plan.width), lambda i, h, b: (b, 0, h, 0))
    if part is None:
        return pl.BlockSpec((None, _up(x.shape[1]), x.shape[2], None, plan.width), lambda i, h, b: (b, 0, 0, h, 0))
    return pl.BlockSpec((None, _up(x.shape[1]), None, None, plan.width), lambda i, h, b: (b, 0, part, h, 0))


def _total_spec(plan: _Plan) -> pl.BlockSpec:
    return pl.BlockSpec((None, None, _up(plan.length)), lambda i, h, b: (b, h, 0))


def _up(length: int) -> int:
    """`length`, filled up to whole blocks."""
    return -(-length // BLOCK) * BLOCK


def _compiled(name: str, plan: _Plan, products: int) -> dict:
    """What else a kernel of so many matrix products is made with. Its FLOPs, of whole tables, are for who counts."""
    parameters = triton.CompilerParams(num_warps=4 if plan.width <= 64 else 8, num_stages=2)
    flops = 2 * products * plan.batch * plan.heads * plan.length * plan.source * plan.size
    return {
        **{"name": name, "interpret": plan.interpret, "compiler_params": parameters},
        "metadata": {"flops": str(flops)},
    }
