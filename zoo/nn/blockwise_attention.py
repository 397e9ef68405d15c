"""Attention block by block in plain JAX (Rabe and Staats 2021), for devices that have no kernel with dropout.

Memory grows with `T`, not with `T S`: a scan over blocks of keys has one `[B, H, T, block]` table at a time, and the
backward pass computes it again from the log-sum-exp of each query.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from zoo.nn.dropout import WeightDropout
from zoo.nn.masks import FORBIDDEN, Mask

BLOCK = 512  # keys in a block


def blockwise_attention(
    query: Float[Array, "B T H D"],
    key: Float[Array, "B S H D"],
    value: Float[Array, "B S H D"],
    mask: Mask,
    dropout: WeightDropout | None = None,
) -> Float[Array, "B T H D"]:
    """Softmax(Q Kᵀ / √D) V (Vaswani et al. 2017, eq. 1), its weights dropped out, in the type of `query`.

    Products are in the operands' type with sums in float32, the softmax is in float32.
    """
    mask.check(query.shape[1], key.shape[1])
    return _blockwise((query, key, value), (mask, dropout), min(BLOCK, key.shape[1]))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _blockwise(operands, given, block: int) -> Float[Array, "B T H D"]:
    return _forward(operands, given, block)[0]


def _forward(operands, given, block):
    (query, key, value), (mask, dropout), source = operands, given, operands[1].shape[1]
    heads_first = (query.shape[0], query.shape[2], query.shape[1])

    def step(carry, blocks):
        mixed, highest, total = carry
        key, value, start = blocks
        logits = _logits(query, key, start, mask, source)
        new = jnp.maximum(highest, logits.max(axis=-1))
        weights, shrink = jnp.exp(logits - new[..., None]), jnp.exp(highest - new)
        kept = _dropped(weights, start, dropout, source)
        mixed = mixed * shrink[..., None] + _product("bhts,bshd->bhtd", kept, value)
        return (mixed, new, total * shrink + weights.sum(axis=-1)), None

    nothing = jnp.zeros((*heads_first, query.shape[3]), jnp.float32)
    start = (nothing, jnp.full(heads_first, FORBIDDEN), jnp.zeros(heads_first))
    (mixed, highest, total), _ = jax.lax.scan(step, start, (*_cut(block, key, value), _starts(key, block)))
    mixed = (mixed / total[..., None]).swapaxes(1, 2).astype(query.dtype)
    return mixed, (operands, given, mixed, highest + jnp.log(total))


def _backward(block, residuals, gradient):
    (query, key, value), (mask, dropout), mixed, total = residuals
    source, scale = key.shape[1], query.shape[-1] ** -0.5
    along = (gradient.astype(jnp.float32) * mixed.astype(jnp.float32)).sum(axis=-1).swapaxes(1, 2)

    def step(of_query, blocks):
        key, value, start = blocks
        weights = jnp.exp(_logits(query, key, start, mask, source) - total[..., None])
        of_value = _product("bhts,bthd->bshd", _dropped(weights, start, dropout, source), gradient)
        of_weights = _dropped(_product("bthd,bshd->bhts", gradient, value), start, dropout, source)
        of_logits = weights * (of_weights - along[..., None]) * scale
        of_query = of_query + _product("bhts,bshd->bthd", of_logits, key)
        return of_query, (_product("bhts,bthd->bshd", of_logits, query), of_value)

    blocks = (*_cut(block, key, value), _starts(key, block))
    of_query, of_pair = jax.lax.scan(step, jnp.zeros(query.shape, jnp.float32), blocks)
    of_key, of_value = (jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:])[:, :source] for x in of_pair)
    return (of_query.astype(query.dtype), of_key.astype(key.dtype), of_value.astype(value.dtype)), None


_blockwise.defvjp(_forward, _backward)


def _cut(block: int, *arrays: Float[Array, "B S H D"]) -> list[Float[Array, "blocks B block H D"]]:
    """In blocks of positions, the last one filled up with zeros."""
    blocks = -(-arrays[0].shape[1] // block)
    padded = (jnp.pad(x, ((0, 0), (0, blocks * block - x.shape[1]), (0, 0), (0, 0))) for x in arrays)
    return [jnp.moveaxis(x.reshape(x.shape[0], blocks, block, *x.shape[2:]), 1, 0) for x in padded]


def _starts(key: Array, block: int) -> Int[Array, "blocks"]:
    return jnp.arange(0, key.shape[1], block)


def _logits(query, key, start: Int[Array, ""], mask: Mask, source: int) -> Float[Array, "B H T block"]:
    """Eq. 1 below its softmax, for the block of keys that begins at `start`."""
    logits = _product("bthd,bshd->bhts", query, key) * query.shape[-1] ** -0.5
    return jnp.where(_seen(mask, query.shape[1], source, start, key.shape[1]), logits, FORBIDDEN)


def _seen(mask: Mask, length: int, source: int, start: Int[Array, ""], block: int) -> Bool[Array, "_ 1 T block"]:
    """These columns of `mask.dense`."""
    rows, columns = jnp.arange(length)[:, None], start + jnp.arange(block)
    end = jnp.int32(source) if mask.lengths is None else mask.lengths[:, None, None, None]
    seen = columns < end
    if mask.causal:
        seen = seen & (columns <= rows + (source - length))
    if mask.segments is not None:
        others = jnp.take(mask.segments, columns, axis=1, mode="clip")
        seen = seen & (mask.segments[:, None, :, None] == others[:, None, None, :])
    return jnp.broadcast_to(seen, jnp.broadcast_shapes(seen.shape, (1, 1, length, block)))


def _dropped(weights: Float[Array, "B H T block"], start, dropout: WeightDropout | None, source: int) -> Array:
    """`weights`, or their gradients, after dropout."""
    if dropout is None:
        return weights
    batch, heads, length, block = weights.shape
    places = jnp.ix_(*(jnp.arange(n) for n in (batch, heads, length)), start + jnp.arange(block))
    return jnp.where(dropout.kept(*places, (length, source)), weights / (1 - dropout.rate), 0)


def _product(equation: str, one: Array, other: Array) -> Float[Array, "..."]:
    """In the type of the operands, which is not that of weights; summed in float32."""
    kind = min(one.dtype, other.dtype, key=lambda x: x.itemsize)
    return jnp.einsum(equation, one.astype(kind), other.astype(kind), preferred_element_type=jnp.float32)
