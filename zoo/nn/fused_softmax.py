"""The softmax of rows of logits and its error against their labels as one kernel: each logit is read from memory once.

Written in Pallas for Triton, so for NVIDIA GPUs. XLA takes a row's maximum in one pass, the sum of its exponentials in
another and the errors in a third. A program has one row and walks over it twice, the second time from its end, where
what it has just read is still in the cache. Instructions, not memory, are what it could wait for: only the block that
holds the label is compared with it, and what is the same for each thread's columns is reduced once.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float, Int

from zoo.nn.blocks import exp2, load, span
from zoo.nn.placement import platform

BLOCK = 2048  # columns that are in registers at a time
EXCLUDED = -1e9  # the logit of an excluded column: its probability is 0 in float32
LOG2E = math.log2(math.e)


class Rows(NamedTuple):
    """What a loss needs of each row: the highest logit before the label, and of all; the sum of `exp(logit - highest)`;
    the label's logit; and the sum of the predicted columns' logits."""

    highest_before: Float[Array, "*B"]
    highest: Float[Array, "*B"]
    normalizer: Float[Array, "*B"]
    of_label: Float[Array, "*B"]
    total: Float[Array, "*B"]


def fused_errors(
    logits: Float[Array, "*B V"],
    labels: Int[Array, "*B"],
    weights: Float[Array, "*B"],
    spread: Float[Array, ""],
    smoothing: float,
) -> tuple[Rows, Float[Array, "*B V"]]:
    """Of each row its `Rows`, in float32, and `(softmax - target) * weight` in the type of `logits`.

    A column whose logit is `EXCLUDED` is not predicted. The target has `1 - smoothing` at the label and `spread` on
    every predicted column, where there is `smoothing`; where there is none, the rows have no `total`. On a CPU the
    kernel runs as JAX operations, which is for tests.
    """
    size = logits.shape[-1]
    plan = _Plan(size, smoothing)
    flat = logits.reshape(-1, size)
    given = {"logits": flat, "labels": labels.reshape(-1), "weights": weights.reshape(-1).astype(jnp.float32)}
    row = pl.BlockSpec((None, plan.blocks * BLOCK), lambda i: (i, 0))
    one = pl.BlockSpec((1,), lambda i: (i,))
    specs = {"logits": row, "labels": one, "weights": one, "spread": pl.BlockSpec((1,), lambda i: (0,))}
    numbers = Rows(*[jax.ShapeDtypeStruct(flat.shape[:1], jnp.float32)] * 5)
    rows, errors = pl.pallas_call(
        partial(_kernel, plan=plan),
        grid=flat.shape[:1],
        in_specs=[specs],
        out_specs=(Rows(*[one] * 5), row),
        out_shape=(numbers, jax.ShapeDtypeStruct(flat.shape, flat.dtype)),
        **{"name": "softmax_errors", "interpret": platform() == "cpu"},
        compiler_params=triton.CompilerParams(num_warps=4, num_stages=1),
    )(given | {"spread": spread.reshape(1)})
    return jax.tree.map(lambda x: x.reshape(labels.shape), rows), errors.reshape(logits.shape)


@dataclass(frozen=True)
class _Plan:
    """What is known of a call when it is compiled."""

    size: int
    smoothing: float

    @property
    def blocks(self) -> int:
        return pl.cdiv(self.size, BLOCK)

    def logits(self, refs: dict, i: Array) -> Float[Array, "block"]:
        """Those of a block, in base 2."""
        return load(refs["logits"], i * BLOCK, BLOCK, self.size, 1, EXCLUDED).astype(jnp.float32) * LOG2E


def _kernel(refs: dict, rows: Rows, errors_ref, *, plan: _Plan) -> None:
    """One row: its statistics online (Milakov & Gimelshein 2018, algorithm 3), then its errors."""
    label, weight = refs["labels"][0], refs["weights"][0]
    own = jax.lax.div(label, BLOCK)
    columns, logits = span(own * BLOCK, BLOCK), plan.logits(refs, own)
    of_label = jnp.where(columns == label, logits, 0.0).sum()

    def add(i, found):
        highest, normalizer, total = found
        logits = plan.logits(refs, i)
        new = jnp.maximum(highest, logits)
        normalizer = normalizer * exp2(highest - new) + exp2(logits - new)
        return new, normalizer, total + _predicted(logits, logits) if plan.smoothing else total

    start = (jnp.full(BLOCK, EXCLUDED * LOG2E, jnp.float32), *[jnp.zeros(BLOCK, jnp.float32)] * 2)
    found = jax.lax.fori_loop(0, own, add, start)
    before = jnp.maximum(found[0], jnp.where(columns < label, logits, EXCLUDED * LOG2E)).max()
    of_columns, normalizer, total = jax.lax.fori_loop(own, plan.blocks, add, found)
    highest = of_columns.max()
    normalizer = (normalizer * exp2(of_columns - highest)).sum()
    of_row = (before / LOG2E, highest / LOG2E, normalizer, of_label / LOG2E, total.sum() / LOG2E)
    for ref, number in zip(rows, of_row, strict=True):
        ref[0] = number

    whole, spread = highest + jnp.log2(normalizer), refs["spread"][0]

    def write(i, hit: Callable[[Array], Array] = lambda errors: errors):
        logits = plan.logits(refs, i)
        errors = hit(exp2(logits - whole))
        if plan.smoothing:
            errors = errors - _predicted(logits, spread)
        place = errors_ref.at[pl.ds(i * BLOCK, BLOCK)]
        triton.store(place, (errors * weight).astype(errors_ref.dtype), mask=span(i * BLOCK, BLOCK) < plan.size)

    after = plan.blocks - 1 - own
    jax.lax.fori_loop(0, after, lambda i, _: write(plan.blocks - 1 - i), None)
    write(own, lambda errors: jnp.where(columns == label, errors - (1 - plan.smoothing), errors))
    jax.lax.fori_loop(0, own, lambda i, _: write(own - 1 - i), None)


def _predicted(logits: Float[Array, "block"], x: Float[Array, "*#block"]) -> Float[Array, "block"]:
    """`x` in the columns that are predicted. What rounding leaves of `EXCLUDED` is far below any logit."""
    return jnp.where(logits > EXCLUDED, x, 0.0)
