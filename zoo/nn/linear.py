"""Matrix products: one dot that stays fast in bfloat16 forward and backward, and the layers that use it."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Int

from zoo.nn.placement import parts, placed, platform
from zoo.nn.quantization import Quantized

Initializer = Callable[..., Array]
GLOROT_UNIFORM: Initializer = nn.initializers.xavier_uniform()  # Glorot & Bengio 2010, eq. 16


def result_of(dtype: DTypeLike) -> DTypeLike:
    """What a product of `dtype` gives. All sum in float32 inside; where memory is slow beside the products, as on GPU
    and TPU, a sum that would be rounded next leaves the product rounded. On a CPU, results of bfloat16 are slow."""
    return jnp.float32 if platform() == "cpu" else dtype


def product(
    x: Float[Array, "*N _"], y: Float[Array, "_ _"], contract: int, result: DTypeLike = jnp.float32
) -> Float[Array, "*N _"]:
    """The last axis of `x` against axis `contract` of `y`, summed in float32, given in `result`.

    On a GPU the axes before it are merged, so that XLA lays out what comes before and after as rows too, unless the
    mesh cuts positions: devices would then have to send each other everything.
    """
    rows = _flat(x) if _mergeable(x) else x
    axes = (rows.ndim - 1,), (contract,)
    y = lax.dot_general(rows, y, (axes, ((), ())), preferred_element_type=result)
    return y.reshape(*x.shape[:-1], y.shape[-1])


def summed_outer(a: Float[Array, "*N I"], b: Float[Array, "*N O"]) -> Float[Array, "I O"]:
    """The sum of `a bᵀ` over all axes but the last, in float32: the gradient of every weight.

    A CPU transposes slowly, above all where XLA fuses what computes the operand into its transpose: there the smaller
    operand is transposed, and the result. XLA's CPU back-end also folds the transpose into the product, and is slow
    then in two cases. Both operands of a bfloat16 product are converted to float32: cut in two along the contraction it
    cannot be folded, and the bfloat16 kernel is used, 2 to 4 times faster. And where the rows of a float32 `b` lie a
    multiple of 4 KiB apart, they compete for the same lines of the cache: with the transpose held apart the product is
    1.4 to 1.8 times faster.
    """

    def whole(a, b):
        if _mergeable(a):
            a, b = _flat(a), _flat(b)
        summed = tuple(range(a.ndim - 1))
        return lax.dot_general(a, b, ((summed, summed), ((), ())), preferred_element_type=jnp.float32)

    def halves(a, b):
        a, b = _flat(a), _flat(b)
        transposed, half = a.T, a.shape[0] // 2
        return product(transposed[:, :half], b[:half], 0) + product(transposed[:, half:], b[half:], 0)

    def apart(a, b):
        return product(lax.optimization_barrier(_flat(a).T), _flat(b), 0)

    if platform() == "cpu" and a.shape[-1] > b.shape[-1]:
        return summed_outer(b, a).T
    if platform() == "cpu" and a.dtype == jnp.bfloat16 and math.prod(a.shape[:-1]) > 1:
        return halves(a, b)
    if platform() == "cpu" and a.dtype == jnp.float32 and b.shape[-1] % 1024 == 0:
        return apart(a, b)
    return whole(a, b)


def _flat(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def _mergeable(x: Array) -> bool:
    """Whether the axes of rows become one without moving anything: the mesh may cut the first, and no other. Not on a
    TPU, which tiles the last two axes and may order the others as it likes: there XLA would copy."""
    return x.ndim > 2 and platform() == "gpu" and parts("length") == 1


def dot(
    x: Float[Array, "*N I"],
    kernel: Float[Array, "_ _"] | Quantized,
    dtype: DTypeLike = jnp.float32,
    contract: int = 0,
    result: DTypeLike | None = None,
) -> Array:
    """`x @ kernel`, or `x @ kernel.T` with `contract=1`; inputs in `dtype`, sums in float32, the result in `result` or,
    if that is `None`, in `result_of(dtype)`.

    The two products of the backward pass take inputs in `dtype` as well; the gradient keeps the kernel's own dtype. A
    kernel that is `Quantized` multiplies integers instead, and has no gradient.
    """
    if isinstance(kernel, Quantized):
        return kernel.product(x, contract).astype(result or result_of(dtype))
    return _dot(x, kernel, dtype, contract, result)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _dot(x: Array, kernel: Array, dtype: DTypeLike, contract: int, result: DTypeLike | None) -> Array:
    return product(x.astype(dtype), kernel.astype(dtype), contract, result or result_of(dtype))


def _dot_forward(x, kernel, dtype, contract, result):
    low_x, low_kernel = x.astype(dtype), kernel.astype(dtype)
    # Zero-sized witnesses carry the original dtypes to the backward pass.
    y = product(low_x, low_kernel, contract, result or result_of(dtype))
    return y, (low_x, low_kernel, x[..., :0], kernel[:0])


def _dot_backward(dtype, contract, result, residuals, gradient):
    x, kernel, x_like, kernel_like = residuals
    gradient = gradient.astype(dtype)  # a float32 cotangent would drag both products out of bfloat16
    to_x = product(gradient, kernel, 1 - contract, result_of(dtype))
    to_kernel = summed_outer(x, gradient) if contract == 0 else summed_outer(gradient, x)
    return to_x.astype(x_like.dtype), to_kernel.astype(kernel_like.dtype)


_dot.defvjp(_dot_forward, _dot_backward)


@jax.custom_vjp
def add_bias(y: Float[Array, "*N O"], bias: Float[Array, "O"]) -> Float[Array, "*N O"]:
    """`y + bias` in the type of `y`, which a GPU adds inside the product, before it rounds; the gradient of `bias` is
    summed in its own type."""
    return y + bias.astype(y.dtype)


def _add_bias_forward(y, bias):
    return add_bias(y, bias), bias[:0]


def _add_bias_backward(like, gradient):
    return gradient, gradient.sum(axis=tuple(range(gradient.ndim - 1)), dtype=like.dtype)


add_bias.defvjp(_add_bias_forward, _add_bias_backward)


def as_matrix(initializer: Initializer, inputs: int) -> Initializer:
    """Initialize a kernel of any rank as the matrix that it is: its first `inputs` axes by the rest."""

    def init(key, shape, dtype=jnp.float32):
        matrix = (math.prod(shape[:inputs]), math.prod(shape[inputs:]))
        return initializer(key, matrix, dtype).reshape(shape)

    return init


class Dense(nn.Module):
    """An affine map of the last `inputs` axes to `features`; the kernel's axes carry the names `axes`.

    Takes `[..., *in]`, gives `[..., *features]` in `dtype`. The kernel is float32 of shape `[*in, *features]`.
    """

    features: int | Sequence[int]
    axes: Sequence[str | None]
    inputs: int = 1
    bias: bool = True
    dtype: DTypeLike = jnp.float32
    kernel_init: Initializer = GLOROT_UNIFORM

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        features = (self.features,) if isinstance(self.features, int) else tuple(self.features)
        batch, contracted = x.shape[: -self.inputs], x.shape[-self.inputs :]
        init = nn.with_logical_partitioning(as_matrix(self.kernel_init, self.inputs), tuple(self.axes))
        kernel = self.param("kernel", init, (*contracted, *features))
        matrix = kernel.reshape(math.prod(contracted), math.prod(features))
        y = dot(x.reshape(*batch, matrix.shape[0]), matrix, self.dtype)
        if any(name != "embed" and name and parts(name) > 1 for name in self.axes[: self.inputs]):
            y = y.astype(self.dtype)  # each device has a part of the sum (the width alone is gathered): half to send
        if self.bias:
            init = nn.with_logical_partitioning(nn.initializers.zeros_init(), tuple(self.axes[self.inputs :]))
            y = add_bias(y, self.param("bias", init, features).reshape(-1))
        return y.astype(self.dtype).reshape(*batch, *features)


def together(layers: Sequence[Dense], x: Float[Array, "*N I"]) -> Float[Array, "..."]:
    """The outputs of each of `layers` for `x`, by one product with their concatenated kernels.

    They have parameters already, and features alike. `x` is read once, and its gradient is written once.
    """
    of_each, dtype = [nn.unbox(layer.variables["params"]) for layer in layers], layers[0].dtype
    kernels = jnp.stack([params["kernel"].astype(dtype) for params in of_each], axis=1)
    y = dot(x, kernels.reshape(x.shape[-1], -1), dtype)
    if layers[0].bias:
        y = add_bias(y, jnp.stack([params["bias"] for params in of_each]).reshape(-1))
    return y.astype(dtype).reshape(*x.shape[:-1], *kernels.shape[1:])


class Embedding(nn.Module):
    """A table of `size` rows of width `width`, read by row; a tied output reads it as a matrix."""

    size: int
    width: int
    dtype: DTypeLike = jnp.float32
    table_init: Initializer = nn.initializers.normal(1.0)

    def setup(self):
        self.table = self.param(
            "table", nn.with_logical_partitioning(self.table_init, ("vocab", "embed")), (self.size, self.width)
        )

    def __call__(self, tokens: Int[ArrayLike, "*B"]) -> Float[Array, "*B E"]:
        if isinstance(self.table, Quantized):
            return self.table.rows(tokens).astype(self.dtype)
        # Gather the table along `embed` first: its rows are sharded by width, the result by batch.
        return jnp.take(placed(self.table, "vocab", None), tokens, axis=0).astype(self.dtype)
