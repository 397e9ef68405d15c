"""Attention with its dropout as one kernel, forward and backward: no `[T, S]` table reaches memory.

The algorithm is FlashAttention-2 (Dao 2023), written in Pallas for Triton, so for NVIDIA GPUs. A program of the grid
has one block of queries of one head and walks over blocks of keys with an online softmax; the backward pass computes
the weights again from the log-sum-exp of each query, and draws the bits of dropout again. They are those of
`zoo.nn.dropout`: a weight's number decides, so the kernel drops what the plain form drops.

Queries, keys and values are read where the products that made them left them, each an array or several stacked in one,
`[B, T, 3, H, D]` or `[B, S, 2, H, D]`, and their gradients are written in the same form.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

from zoo.nn.attention_blocks import Plan, View, times, up
from zoo.nn.blocks import exp2, span, store
from zoo.nn.dropout import WeightDropout
from zoo.nn.masks import FORBIDDEN, Mask


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
    plan = Plan(batch, length, source, heads, size, mask.causal, rate, interpret)
    given = {name: x.astype(jnp.int32) for name in ("lengths", "segments") if (x := getattr(mask, name)) is not None}
    if dropout is not None:
        draw = (dropout.one, dropout.two, dropout.row, dropout.head)
        given["draw"] = jnp.stack([jnp.asarray(x).astype(jnp.uint32) for x in draw])
    return _fused(operands, given, plan)


def _forward_kernel(refs: dict, mixed_ref, total_ref, *, plan: Plan) -> None:
    """FlashAttention-2, algorithm 1: one block of queries."""
    view, row = View.of(plan, refs), pl.program_id(0) * plan.rows
    query = view.queries("query", row)

    def step(i, carry, whole):
        mixed, highest, total = carry
        column = i * plan.columns
        products = view.products(query, view.keys("key", column), row, column, whole)
        new = jnp.maximum(highest, products.max(axis=1) * view.scale)
        weights, shrink = exp2(products * view.scale - new[:, None]), exp2(highest - new)
        dropped = view.kept(row, column)(weights)
        mixed = mixed * shrink[:, None] + times(dropped, view.keys("value", column), 1, 0)
        return mixed, new, total * shrink + weights.sum(axis=1)

    nothing = jnp.zeros((plan.rows, plan.width), jnp.float32)
    start = (nothing, jnp.full(plan.rows, FORBIDDEN, jnp.float32), jnp.zeros(plan.rows, jnp.float32))
    mixed, highest, total = view.over_keys(row, step, start)
    store((mixed_ref,), row, mixed * (view.share / total)[:, None], plan.length, plan.size)
    real = span(row, plan.rows) < plan.length
    triton.store(total_ref.at[pl.ds(row, plan.rows)], highest + jnp.log2(total), mask=real)


def _backward_kernel(refs: dict, *gradients, plan: Plan) -> None:
    """FlashAttention-2, algorithm 2: the gradients of one block of keys and values, then those of one of queries.

    Two walks, and no sums by atomic operations: the result does not depend on the order of programs.
    """
    view = View.of(plan, refs)
    places = []
    for ref in gradients:
        places += [(ref,)] if len(ref.shape) == 2 else [(ref, jnp.int32(i)) for i in range(ref.shape[1])]
    row, column = pl.program_id(0) * plan.rows, pl.program_id(0) * plan.columns
    of_query, of_key, of_value = _of_one_block(view) if plan.one_block else (None, *_of_keys(view, column))
    store(places[1], column, of_key * plan.size**-0.5, plan.source, plan.size)
    store(places[2], column, of_value * view.share, plan.source, plan.size)
    if not plan.one_block:  # not before registers are free again
        of_query = _of_queries(view, row)
    store(places[0], row, of_query * plan.size**-0.5, plan.length, plan.size)


def _of_one_block(view: View) -> tuple[Float[Array, "rows D"], Float[Array, "columns D"], Float[Array, "columns D"]]:
    """All three at once, where one block holds all queries and another all keys."""
    start = jnp.int32(0)
    queries, key, value = _Queries.of(view, start), view.keys("key", start), view.keys("value", start)
    dropped, of_products = queries.weights_and_gradient(view, key, value, start, whole=False)
    of_key, of_value = times(queries.query, of_products, 0, 0).T, times(queries.given, dropped, 0, 0).T
    return times(of_products, key, 1, 0), of_key, of_value


def _of_keys(view: View, column: Array) -> tuple[Float[Array, "columns D"], Float[Array, "columns D"]]:
    """Weights are turned round, `[columns, rows]`, so that the next products take them from registers."""
    key, value = view.keys("key", column), view.keys("value", column)

    def step(i, carry, whole):
        of_key, of_value = carry
        queries = _Queries.of(view, i * view.plan.rows)
        dropped, of_products = queries.weights_and_gradient(view, key, value, column, whole, turned=True)
        of_value = of_value + times(dropped, queries.given, 1, 0)
        return of_key + times(of_products, queries.query, 1, 0), of_value

    nothing = jnp.zeros((view.plan.columns, view.plan.width), jnp.float32)
    return view.over_queries(column, step, (nothing, nothing))


def _of_queries(view: View, row: Array) -> Float[Array, "rows D"]:
    queries = _Queries.of(view, row)

    def step(i, of_query, whole):
        column = i * view.plan.columns
        key, value = view.keys("key", column), view.keys("value", column)
        _, of_products = queries.weights_and_gradient(view, key, value, column, whole)
        return of_query + times(of_products, key, 1, 0)

    nothing = jnp.zeros((view.plan.rows, view.plan.width), jnp.float32)
    return view.over_keys(row, step, nothing)


@dataclass(frozen=True)
class _Queries:
    """A block of queries that begins at `row`, with what the backward pass knows of each: the gradient of its output,
    the log-sum-exp of its logits in base 2, and its output times that gradient, summed."""

    row: Array
    query: Float[Array, "rows D"]
    given: Float[Array, "rows D"]
    total: Float[Array, "rows"]
    overlap: Float[Array, "rows"]

    @classmethod
    def of(cls, view: View, row: Array) -> "_Queries":
        query, given = view.queries("query", row), view.queries("given", row)
        if view.plan.one_block:
            overlap = (given.astype(jnp.float32) * view.queries("mixed", row).astype(jnp.float32)).sum(axis=1)
        else:
            overlap = view.queries("overlap", row)
        return cls(row, query, given, view.queries("total", row, jnp.inf), overlap)

    def weights_and_gradient(
        self, view: View, key: Array, value: Array, column: Array, whole: bool, turned: bool = False
    ) -> tuple[Float[Array, "_ _"], Float[Array, "_ _"]]:
        """For the block of keys at `column`: the weights after dropout, without its share, and the gradient of the
        products below the softmax, without their scale, `[rows, columns]` or `turned` round."""
        total, overlap = (x[None, :] if turned else x[:, None] for x in (self.total, self.overlap))
        kept = view.kept(self.row, column, turned)
        weights = exp2(view.products(self.query, key, self.row, column, whole, turned) * view.scale - total)
        of_weights = times(value, self.given, 1, 1) if turned else times(self.given, value, 1, 1)
        return kept(weights), weights * (kept(of_weights) * view.share - overlap)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _fused(operands: tuple[Array, ...], given: dict[str, Array], plan: Plan) -> Float[Array, "B T H D"]:
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
    arrays |= {"given": gradient, "total": total}
    specs |= {"given": _spec(gradient, plan), "total": _total_spec(plan)}
    if plan.one_block:
        arrays["mixed"], specs["mixed"] = mixed, _spec(mixed, plan)
    else:  # each block of queries is read several times, its overlap is computed once
        overlap = (gradient.astype(jnp.float32) * mixed.astype(jnp.float32)).sum(axis=-1).swapaxes(1, 2)
        arrays["overlap"], specs["overlap"] = overlap, _total_spec(plan)
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in operands]
    blocks = max(pl.cdiv(plan.length, plan.rows), pl.cdiv(plan.source, plan.columns))
    gradients = pl.pallas_call(
        partial(_backward_kernel, plan=plan),
        grid=(blocks, plan.heads, plan.batch),
        in_specs=[specs],
        out_specs=[_spec(x, plan) for x in shapes],
        out_shape=shapes,
        # Both walks multiply queries by keys, and gradients by values.
        **_compiled("attention_backward", plan, products=5 if plan.one_block else 7),
    )(arrays)
    return tuple(gradients), None


_fused.defvjp(_forward, _backward)


def _operands(operands: tuple[Array, ...], given: dict[str, Array], plan: Plan) -> tuple[dict, dict]:
    """What both kernels read, by name, and which part of it a program sees."""
    found = []
    for x in operands:
        found += [(x, None)] if x.ndim == 4 else [(x, part) for part in range(x.shape[2])]
    named = dict(zip(("query", "key", "value"), found, strict=True))
    arrays = {name: x for name, (x, _) in named.items()}
    specs = {name: _spec(x, plan, part) for name, (x, part) in named.items()}
    whole = {
        "lengths": pl.BlockSpec((1,), lambda i, h, b: (b,)),
        "segments": pl.BlockSpec((None, up(plan.length)), lambda i, h, b: (b, 0)),
        "draw": pl.BlockSpec((4,), lambda i, h, b: (0,)),
    }
    return arrays | given, specs | {name: whole[name] for name in given}


def _spec(x: Array | jax.ShapeDtypeStruct, plan: Plan, part: int | None = None) -> pl.BlockSpec:
    """All positions of one head of `x`; of an array that holds several operands, those of all or of this `part`."""
    if x.ndim == 4:
        return pl.BlockSpec((None, up(x.shape[1]), None, plan.width), lambda i, h, b: (b, 0, h, 0))
    if part is None:
        return pl.BlockSpec((None, up(x.shape[1]), x.shape[2], None, plan.width), lambda i, h, b: (b, 0, 0, h, 0))
    return pl.BlockSpec((None, up(x.shape[1]), None, None, plan.width), lambda i, h, b: (b, 0, part, h, 0))


def _total_spec(plan: Plan) -> pl.BlockSpec:
    return pl.BlockSpec((None, None, up(plan.length)), lambda i, h, b: (b, h, 0))


def _compiled(name: str, plan: Plan, products: int) -> dict:
    """What else a kernel of so many matrix products is made with. Its FLOPs, of whole tables, are for who counts."""
    parameters = triton.CompilerParams(num_warps=4 if plan.width <= 64 else 8, num_stages=1)
    flops = 2 * products * plan.batch * plan.heads * plan.length * plan.source * plan.size
    return {
        **{"name": name, "interpret": plan.interpret, "compiler_params": parameters},
        "metadata": {"flops": str(flops)},
    }
