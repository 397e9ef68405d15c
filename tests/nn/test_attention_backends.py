"""The laws of attention's back-ends: each is the plain form, forward and backward, whatever the mask, the lengths and
the dropout; and what is padding has no effect and gets no gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.nn.attention_backends import attend, attend_with_weights
from zoo.nn.dropout import WeightDropout
from zoo.nn.masks import Mask

B, H, D = 3, 2, 8
ON_GPU = jax.default_backend() == "gpu"
CUDNN = pytest.param("cudnn", marks=pytest.mark.skipif(not ON_GPU, reason="cuDNN's kernel runs on an NVIDIA GPU only"))
DROPOUT = WeightDropout.of(jax.random.key(7), 0.3, H)


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng((seed, *shape)).normal(size=shape), jnp.float32)


def operands(length, source, size=D, batch=B):
    shapes = (length, source, source)
    return tuple(normal(batch, n, H, size, seed=seed) for seed, n in enumerate(shapes))


def lengths(source):
    """Of a whole row, a short one, and one that is empty."""
    return np.array([source, max(source // 3, 1), 0])


def padded(source, causal=False):
    return Mask.padded(np.arange(source) < lengths(source)[:, None], causal)


def packed(length):
    """Documents of 1 to 5 tokens, and padding behind them in the last row."""
    numbers = np.random.default_rng(length).integers(1, 6, (B, length)).cumsum(axis=1) // 5 + 1
    numbers[-1, length // 2 :] = 0
    return Mask(segments=jnp.asarray(numbers, jnp.int32), causal=True)


def of_kind(kind, length):
    """The mask, and the number of queries and of keys."""
    masks = {
        "all": (Mask(), length, length),
        "padded": (padded(length), length, length),
        "causal": (Mask(causal=True), length, length),
        "padded causal": (padded(length, True), length, length),
        "packed": (packed(length), length, length),
        "cross": (padded(length // 2 + 1), length, length // 2 + 1),
        "cross to longer": (padded(2 * length + 1), length, 2 * length + 1),
        "causal over a past": (Mask(causal=True), length, length + 3),
    }
    return masks[kind]


KINDS = ("all", "padded", "causal", "padded causal", "packed", "cross", "cross to longer", "causal over a past")


def real(mask, length):
    """The queries that count: no query of an empty row does, nor one that stands beside padding of its own row."""
    if mask.segments is not None:
        return np.asarray(mask.segments) > 0
    whole = np.ones((B, length), bool)
    return whole if mask.lengths is None else whole & (lengths(10) > 0)[:, None]


def both(function, mask, length):
    """The output, where it counts, and the gradients of a loss over it."""
    counts = real(mask, length)[:, :, None, None]

    def loss(*given):
        mixed = jnp.where(counts, function(*given).astype(jnp.float32), 0)
        return (mixed * (mixed - 1)).sum(), mixed

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))


def check(backend, kind, length, dropout=None, size=D, tolerance=1e-4):
    mask, length, source = of_kind(kind, length)
    given = operands(length, source, size)
    if backend == "cudnn":
        given = tuple(x.astype(jnp.bfloat16).astype(jnp.float32) for x in given)

    def theirs(*x):
        x = [y.astype(jnp.bfloat16) for y in x] if backend == "cudnn" else x
        return attend(*x, mask, backend, dropout)

    def plain(*x):
        return attend_with_weights(*x, mask.dense(length, source), dropout)[0]

    (_, mixed), gradients = both(theirs, mask, length)(*given)
    (_, expected), expected_gradients = both(plain, mask, length)(*given)
    for one, other in zip((mixed, *gradients), (expected, *expected_gradients), strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
    assert (np.asarray(gradients[0])[~real(mask, length)] == 0).all()
    if mask.lengths is not None:
        hidden = np.arange(source) >= lengths(source)[:, None]
        assert all((np.asarray(gradient)[hidden] == 0).all() for gradient in gradients[1:])


@pytest.mark.smoke
@pytest.mark.parametrize("kind", KINDS)
def test_blockwise_is_the_plain_form(kind):
    check("blockwise", kind, 6, DROPOUT)


@pytest.mark.parametrize("kind", ["padded causal", "packed", "cross"])
def test_the_kernel_is_the_plain_form(kind):
    check("triton", kind, 18, DROPOUT)


@pytest.mark.parametrize("kind", ["padded", "packed", "cross"])
@pytest.mark.parametrize("backend", ["xla", "auto", CUDNN])
def test_back_ends_without_dropout_are_the_plain_form(kind, backend):
    check(backend, kind, 6, tolerance=0.05 if backend == "cudnn" else 1e-4)
