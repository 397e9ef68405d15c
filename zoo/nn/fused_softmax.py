"""The softmax of rows of logits and its error against their labels as one kernel: each logit is read from memory once.

Written in Pallas for Triton, so for NVIDIA GPUs. XLA takes a row's maximum in one pass, the sum of its exponentials in
another and the errors in a third. A program has one row and walks over it twice, the second time from its end, where
what it has just read is still in the cache.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Bool, Float, Int

from zoo.nn.blocks import load, span
from zoo.nn.placement import platform

BLOCK = 4096  # columns that are in registers at a time
EXCLUDED = -1e9  # the logit of an excluded column: its probability is 0 in float32


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
    predicted: Bool[Array, "V"],
    smoothing: float,
) -> tuple[Rows, Float[Array, "*B V"]]:
    """Of each row its `Rows`, in float32, and `(softmax - target) * weight` in the type of `logits`.

    Columns that are not `predicted` count as `EXCLUDED`. The target has `1 - smoothing` at the label, and `smoothing`
    in equal shares on the predicted columns. On a CPU the kernel runs as JAX operations, which is for tests.
    """
    size = logits.shape[-1]
    plan = _Plan(size, smoothing)
    flat = logits.reshape(-1, size)
    given = {"logits": flat, "labels": labels.reshape(-1), "weights": weights.reshape(-1).astype(jnp.float32)}
    given |= {"predicted": predicted.astype(jnp.int8), "share": (smoothing / predicted.sum()).reshape(1)}
    row = pl.BlockSpec((None, plan.blocks * BLOCK), lambda i: (i, 0))
    one, shared = pl.BlockSpec((1,), lambda i: (i,)), pl.BlockSpec((plan.blocks * BLOCK,), lambda i: (0,))
    specs = {"logits": row, "labels": one, "weights": one, "predicted": shared}
    specs["share"] = pl.BlockSpec((1,), lambda i: (0,))
    numbers = Rows(*[jax.ShapeDtypeStruct(flat.shape[:1], jnp.float32)] * 5)
    rows, errors = pl.pallas_call(
        partial(_kernel, plan=plan),
        grid=flat.shape[:1],
        in_specs=[specs],
        out_specs=(Rows(*[one] * 5), row),
        out_shape=(numbers, jax.ShapeDtypeStruct(flat.shape, flat.dtype)),
        **{"name": "softmax_errors", "interpret": platform() == "cpu"},
        compiler_params=triton.CompilerParams(num_warps=8, num_stages=2),
    )(given)
    return jax.tree.map(lambda x: x.reshape(labels.shape), rows), errors.reshape(logits.shape)


@dataclass(frozen=True)
class _Plan:
    """What is known of a call when it is compiled."""

    size: int
    smoothing: float

    @property
    def blocks(self) -> int:
        return pl.cdiv(self.size, BLOCK)

    def block(self, refs: dict, i: Array) -> tuple[Float[Array, "block"], Bool[Array, "block"], Int[Array, "block"]]:
        """The logits of a block in float32, which of them are predicted, and their columns."""
        start = i * BLOCK
        logits = load(refs["logits"], start, BLOCK, self.size, 1).astype(jnp.float32)
        predicted = load(refs["predicted"], start, BLOCK, self.size, 1) != 0
        return jnp.where(predicted, logits, EXCLUDED), predicted, span(start, BLOCK)


def _kernel(refs: dict, rows: Rows, errors_ref, *, plan: _Plan) -> None:
    """One row: its statistics online (Milakov & Gimelshein 2018, algorithm 3), then its errors."""
    label, weight = refs["labels"][0], refs["weights"][0]

    def add(i, found):
        before, highest, normalizer, of_label, total = found
        logits, predicted, columns = plan.block(refs, i)
        new = jnp.maximum(highest, logits.max())
        normalizer = normalizer * jnp.exp(highest - new) + jnp.exp(logits - new).sum()
        before = jnp.maximum(before, jnp.where(columns < label, logits, EXCLUDED).max())
        of_label = of_label + jnp.where(columns == label, logits, 0.0).sum()
        if plan.smoothing:
            total = total + jnp.where(predicted, logits, 0.0).sum()
        return before, new, normalizer, of_label, total

    start = tuple(map(jnp.float32, (EXCLUDED, EXCLUDED, 0, 0, 0)))
    found = jax.lax.fori_loop(0, plan.blocks, add, start)
    for ref, number in zip(rows, found, strict=True):
        ref[0] = number
    _, highest, normalizer, _, _ = found
    share = refs["share"][0]

    def write(i, _):
        i = plan.blocks - 1 - i
        logits, predicted, columns = plan.block(refs, i)
        target = jnp.where(columns == label, 1.0 - plan.smoothing, 0.0)
        if plan.smoothing:
            target = target + jnp.where(predicted, share, 0.0)
        errors = (jnp.exp(logits - highest) * (1 / normalizer) - target) * weight
        where = errors_ref.at[pl.ds(i * BLOCK, BLOCK)]
        triton.store(where, errors.astype(errors_ref.dtype), mask=columns < plan.size)

    jax.lax.fori_loop(0, plan.blocks, write, None)
