"""Layer normalization as one kernel, forward and backward, with the residual and the dropout before it.

Written in Pallas for Triton, so for NVIDIA GPUs. A program holds whole rows, so each row is read once and written once:
XLA takes statistics in one pass and uses them in another. The backward pass keeps the sum of the residual alone; it
computes the statistics again, and draws the bits of dropout again.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt32

from zoo.nn.blocks import load, span, store
from zoo.nn.dropout import RowDropout
from zoo.nn.placement import platform

EPSILON = 1e-5
ELEMENTS = 4096  # of a block, which four warps hold in registers
WIDEST = 8192  # elements of a row
PROGRAMS = 512  # of the backward pass, each of which gives one sum for each gain and offset


def fused_norm(
    x: Float[Array, "*B E"],
    scale: Float[Array, "E"],
    bias: Float[Array, "E"],
    dtype: DTypeLike,
    added: Float[Array, "*B E"] | None = None,
    dropout: RowDropout | None = None,
) -> Float[Array, "*B E"]:
    """`zoo.nn.norms.normalized` of `x` or of `x + dropout(added)`, in `dtype`.

    The sum is rounded to the type of `x`; statistics are in float32. Rows have at most `WIDEST` elements. On a CPU the
    kernel runs as JAX operations, which is for tests.
    """
    width = x.shape[-1]
    if width > WIDEST:
        raise ValueError(f"the kernel takes rows of at most {WIDEST} elements, not {width}")
    rows = [None if a is None else a.reshape(-1, width) for a in (x, added)]
    draw, rate = None, None
    if dropout is not None:
        first = jnp.asarray(dropout.row).astype(jnp.uint32)
        draw, rate = jnp.stack([dropout.one, dropout.two, first]), dropout.rate
    plan = _Plan(rows[0].shape[0], width, jnp.dtype(dtype).name, rate)
    return _fused(*rows, scale, bias, draw, plan).reshape(x.shape)


@dataclass(frozen=True)
class _Plan:
    """What is known of a call when it is compiled."""

    length: int
    size: int
    dtype: str
    rate: float | None

    @property
    def width(self) -> int:
        """Elements of a row, with those that fill it up to a power of two."""
        return pl.next_power_of_2(self.size)

    @property
    def rows(self) -> int:
        """Rows in a block."""
        return max(1, ELEMENTS // self.width)

    @property
    def blocks(self) -> int:
        """Blocks that one program of the backward pass takes, one after the other."""
        return max(1, self.length // (PROGRAMS * self.rows))

    def whole(self) -> pl.BlockSpec:
        """All rows: a program takes its own from there."""
        return pl.BlockSpec((pl.cdiv(self.length, self.rows) * self.rows, self.width), lambda i: (0, 0))

    def load(self, ref, row: Array) -> Float[Array, "rows width"]:
        return load(ref, row, self.rows, self.length, self.size).astype(jnp.float32)

    def store(self, ref, row: Array, block: Float[Array, "rows width"]) -> None:
        store((ref,), row, block, self.length, self.size)

    def vector(self, ref) -> Float[Array, "1 width"]:
        return load(ref, 0, self.width, self.size, 1).astype(jnp.float32)[None, :]

    def mean(self, block: Float[Array, "rows width"]) -> Float[Array, "rows 1"]:
        """Of each row; zeros fill `block` up."""
        return (block.sum(axis=1) * (1 / self.size))[:, None]

    def standard(self, block: Float[Array, "rows width"]) -> tuple[Float[Array, "rows width"], Float[Array, "rows 1"]]:
        """Each row less its mean and divided by its deviation, and one over the deviation."""
        real = (jnp.arange(self.width) < self.size)[None, :]
        centered = jnp.where(real, block - self.mean(block), 0.0)
        scale = jax.lax.rsqrt(self.mean(jnp.square(centered)) + EPSILON)
        return centered * scale, scale

    def dropped(self, block: Float[Array, "rows width"], row: Array, draw, dtype: DTypeLike) -> Array:
        """As `zoo.nn.dropout.dropped` of a block in `dtype`, which begins at `row` and is in float32 here."""
        if self.rate is None:
            return block
        bits = RowDropout(draw[0], draw[1], draw[2], self.rate)
        columns = jnp.arange(self.width, dtype=jnp.int32)[None, :]
        kept = bits.kept(span(row, self.rows)[:, None], columns, self.size)
        return jnp.where(kept, block / bits.share(dtype), 0.0)


def _forward_kernel(refs: dict, out: dict, *, plan: _Plan) -> None:
    """One block of rows."""
    row = pl.program_id(0) * plan.rows
    x = plan.load(refs["x"], row)
    if "added" in refs:
        added = plan.load(refs["added"], row)
        x = x + plan.dropped(added, row, refs.get("draw"), refs["added"].dtype)
        x = x.astype(refs["x"].dtype)
        plan.store(out["sum"], row, x)
        x = x.astype(jnp.float32)
    standard, _ = plan.standard(x)
    plan.store(out["normal"], row, standard * plan.vector(refs["scale"]) + plan.vector(refs["bias"]))


def _backward_kernel(refs: dict, out: dict, *, plan: _Plan) -> None:
    """Several blocks of rows, and their sums over rows for the gain and the offset (Ba et al. 2016, eq. 4)."""
    gain, first = plan.vector(refs["scale"]), pl.program_id(0) * plan.blocks

    def step(i, sums):
        row = (first + i) * plan.rows
        given = plan.load(refs["given"], row)
        standard, scale = plan.standard(plan.load(refs["sum"], row))
        inner = given * gain
        to_sum = (inner - plan.mean(inner) - standard * plan.mean(inner * standard)) * scale
        plan.store(out["x"], row, to_sum)
        if "added" in out:
            plan.store(out["added"], row, plan.dropped(to_sum, row, refs["draw"], out["added"].dtype))
        return sums[0] + (given * standard).sum(axis=0), sums[1] + given.sum(axis=0)

    nothing = jnp.zeros(plan.width, jnp.float32)
    sums = jax.lax.fori_loop(0, plan.blocks, step, (nothing, nothing))
    real = jnp.arange(plan.width) < plan.size
    for name, total in zip(("scale", "bias"), sums, strict=True):
        triton.store(out[name].at[pl.ds(0, plan.width)], total, mask=real)


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _fused(x, added, scale, bias, draw, plan: _Plan) -> Float[Array, "N E"]:
    return _forward(x, added, scale, bias, draw, plan)[0]


def _forward(x, added, scale, bias, draw: UInt32[Array, "3"] | None, plan: _Plan):
    refs = {"x": x, "added": added, "scale": scale, "bias": bias, "draw": draw}
    out = {"normal": jax.ShapeDtypeStruct(x.shape, plan.dtype)}
    if added is not None:
        out["sum"] = jax.ShapeDtypeStruct(x.shape, x.dtype)
    blocks = pl.cdiv(plan.length, plan.rows)
    found = _call(_forward_kernel, "norm_forward", plan, blocks, refs, out)
    # Zero-sized witnesses carry the types to the backward pass.
    like = None if added is None else added[:0]
    return found["normal"], (found.get("sum", x), like, scale, bias[:0], draw)


def _backward(plan: _Plan, residuals, given: Float[Array, "N E"]):
    total, like, scale, bias_like, draw = residuals
    programs = pl.cdiv(plan.length, plan.rows * plan.blocks)
    refs = {"sum": total, "given": given, "scale": scale, "draw": draw}
    out = {"x": jax.ShapeDtypeStruct(total.shape, total.dtype)}
    out |= dict.fromkeys(("scale", "bias"), jax.ShapeDtypeStruct((programs, plan.size), jnp.float32))
    if like is not None and plan.rate is not None:
        out["added"] = jax.ShapeDtypeStruct(total.shape, like.dtype)
    found = _call(_backward_kernel, "norm_backward", plan, programs, refs, out)
    to_added = None if like is None else found.get("added", found["x"]).astype(like.dtype)
    sums = (found[name].sum(axis=0).astype(a.dtype) for name, a in (("scale", scale), ("bias", bias_like)))
    return found["x"], to_added, *sums, None


_fused.defvjp(_forward, _backward)


def _call(kernel, name: str, plan: _Plan, programs: int, given: dict, out: dict) -> dict:
    """`kernel` in so many programs, over those arrays that are not `None`."""
    vector = pl.BlockSpec((plan.width,), lambda i: (0,))
    specs = dict.fromkeys(("x", "added", "sum", "given"), plan.whole())
    specs |= {"scale": vector, "bias": vector, "draw": pl.BlockSpec((3,), lambda i: (0,))}
    results = dict.fromkeys(("x", "added", "sum", "normal"), plan.whole())
    results |= dict.fromkeys(("scale", "bias"), pl.BlockSpec((None, plan.width), lambda i: (i, 0)))
    given = {name: x for name, x in given.items() if x is not None}
    return pl.pallas_call(
        partial(kernel, plan=plan),
        grid=(programs,),
        in_specs=[{name: specs[name] for name in given}],
        out_specs={name: results[name] for name in out},
        out_shape=out,
        **{"name": name, "interpret": platform() == "cpu"},
        compiler_params=triton.CompilerParams(num_warps=4 if plan.width < ELEMENTS else 8, num_stages=2),
    )(given)
