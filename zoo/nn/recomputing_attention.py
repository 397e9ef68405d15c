"""Attention in plain JAX for CPUs, which keeps little for its backward pass.

The gradient that JAX derives keeps three tables `[B, H, T, S]` (the weights before and after dropout, and the mask of
it). A CPU writes and reads them slowly, and multiplies fast: here the backward pass computes the weights again, from
the logarithm of each query's normalizer (Dao et al. 2022, "FlashAttention", algorithm 4, in one block).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from zoo.nn.dropout import WeightDropout
from zoo.nn.masks import FORBIDDEN, Mask


@jax.custom_vjp
def recomputing_attention(
    query: Float[Array, "B T H D"],
    key: Float[Array, "B S H D"],
    value: Float[Array, "B S H D"],
    mask: Mask,
    dropout: WeightDropout | None,
) -> Float[Array, "B T H D"]:
    """`attend_with_weights` without the weights: products in the operands' type with sums in float32, softmax in
    float32."""
    return _forward(query, key, value, mask, dropout)[0]


def _product(spec: str, one: Array, other: Array) -> Float[Array, "..."]:
    return jnp.einsum(spec, one, other, preferred_element_type=jnp.float32)


def _logits(query: Array, key: Array, mask: Mask) -> Float[Array, "B H T S"]:
    scaled = query * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
    logits = _product("bthd,bshd->bhts", scaled, key)
    return jnp.where(mask.dense(query.shape[1], key.shape[1]), logits, FORBIDDEN)


def _forward(query, key, value, mask, dropout):
    logits = _logits(query, key, mask)
    normalizer = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    weights = jnp.exp(logits - normalizer)
    kept = weights if dropout is None else dropout.apply(weights)
    mixed = _product("bhts,bshd->bthd", kept.astype(value.dtype), value).astype(query.dtype)
    return mixed, (query, key, value, mask, dropout, normalizer, mixed)


def _over_queries(x: Float[Array, "B T H D"], table: Float[Array, "B H T S"]) -> Float[Array, "B S H D"]:
    """The sum of `x` over queries, by the weights in `table`.

    XLA's CPU back-end multiplies a transposed table 4 times slower, so `x` is transposed, in halves: else the transpose
    would be folded into the product (as in `zoo.nn.linear.summed_outer`).
    """
    x, half = x.transpose(0, 2, 3, 1), x.shape[1] // 2
    parts = ((x[..., :half], table[:, :, :half]), (x[..., half:], table[:, :, half:]))
    summed = sum(_product("bhdt,bhts->bhds", *part) for part in parts if part[0].shape[-1])
    return summed.transpose(0, 3, 1, 2)


def _backward(residuals, gradient):
    query, key, value, mask, dropout, normalizer, mixed = residuals
    dtype = value.dtype
    weights = jnp.exp(_logits(query, key, mask) - normalizer)
    # The derivative of a softmax subtracts the mean gradient of its weights, which is the gradient times the result.
    mean = jnp.sum(gradient.astype(jnp.float32) * mixed.astype(jnp.float32), axis=-1).swapaxes(1, 2)[..., None]
    gradient = gradient.astype(dtype)
    to_kept = _product("bthd,bshd->bhts", gradient, value)
    kept, to_weights = (x if dropout is None else dropout.apply(x) for x in (weights, to_kept))
    to_logits = (weights * (to_weights - mean)).astype(dtype)
    scale = query.shape[-1] ** -0.5
    to_query = _product("bhts,bshd->bthd", to_logits, key) * scale
    to_key = _over_queries(query, to_logits) * scale
    to_value = _over_queries(gradient, kept.astype(dtype))
    return to_query.astype(query.dtype), to_key.astype(key.dtype), to_value.astype(dtype), None, None


recomputing_attention.defvjp(_forward, _backward)
