"""The laws of attention's back-ends: each is the plain form, forward and backward, whatever the mask, the lengths and
the dropout; and what is padding has no effect and gets no gradient."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.nn import attention_backends
from zoo.nn.attention_backends import attend, attend_stacked, attend_with_weights
from zoo.nn.dropout import WeightDropout, keep
from zoo.nn.masks import Mask

B, H, D = 3, 2, 8
ON_GPU = jax.default_backend() == "gpu"
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


def check(backend, kind, length, dropout=None, size=D):
    """The law, in float32; cuDNN has bfloat16 only. A GPU multiplies float32 in 10 bits."""
    tolerance = 0.05 if backend == "cudnn" or ON_GPU else 1e-4
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


def test_the_bits_of_a_part_are_those_of_the_whole():
    key, shape = jax.random.key(7), (B, 4, 5, 6)
    places = np.ix_(range(2), range(2), range(3), range(2, 6))

    @jax.jit
    def drawn():
        bits = WeightDropout.of(key, 0.3, heads=4)
        part = bits.replace(row=1, head=2).kept(*places, shape[2:])
        return keep(key, 0.3, shape), part, bits.apply(jnp.ones(shape))

    whole, part, weights = drawn()
    np.testing.assert_array_equal(part, whole[1:, 2:, :3, 2:])
    np.testing.assert_allclose(weights, whole / 0.7, rtol=1e-6)


@pytest.mark.smoke
@pytest.mark.parametrize("kind", ["padded", "packed", "cross to longer"])
def test_blocks_of_plain_jax_are_the_plain_form(kind):
    check("blockwise", kind, 6, DROPOUT)


@pytest.mark.parametrize(("kind", "length"), [("padded causal", 7), ("packed", 6), ("cross", 1)])
def test_weights_that_are_computed_again_are_the_plain_form(kind, length):
    check("einsum", kind, length, DROPOUT)


@pytest.mark.parametrize("kind", ["padded causal", "cross"])
def test_the_kernel_is_the_plain_form(kind):
    check("triton", kind, 18, DROPOUT)


@pytest.mark.parametrize(
    ("backend", "kind"),
    [("blockwise", "packed"), ("triton", "packed"), ("triton", "padded causal"), ("triton", "causal over a past")],
)
def test_several_blocks_are_one_whole(backend, kind, monkeypatch):
    """As of long texts, here with small blocks."""
    monkeypatch.setattr("zoo.nn.blockwise_attention.BLOCK", 16)
    monkeypatch.setattr("zoo.nn.attention_blocks.BLOCK", 16)
    check(backend, kind, 35, DROPOUT)


@pytest.mark.parametrize("stacks", [(3,), (1, 2)])
def test_what_lies_in_one_array_gets_one_gradient(stacks):
    mask, target = padded(5, causal=True), normal(B, 5, H, D, seed=9)
    apart = operands(5, 5)

    def stacked(given):
        given, found = list(given), []
        for number in stacks:
            some = [given.pop(0) for _ in range(number)]
            found.append(jnp.stack(some, axis=2) if number > 1 else some[0])
        return tuple(found)

    def gradient(function, given):
        return jax.jit(jax.grad(lambda given: (function(given) * target).sum()))(given)

    together = gradient(lambda given: attend_stacked(given, mask, "triton", DROPOUT), stacked(apart))
    expected = gradient(lambda given: attend(*given, mask, "einsum", DROPOUT), apart)
    for one, other in zip(together, stacked(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
    ("backend", "kind"), [("xla", "padded"), ("xla", "packed"), ("xla", "causal over a past"), ("auto", "cross")]
)
def test_back_ends_without_dropout_are_the_plain_form(backend, kind):
    check(backend, kind, 6)


@pytest.mark.parametrize(
    ("lengths", "mask", "chosen"),
    [
        ((256, 256), Mask(causal=True), "cudnn"),
        ((256, 130), padded(130), "cudnn"),
        ((256, 131), padded(131), "triton"),
        ((255, 255), Mask(), "triton"),
        ((256, 300), Mask(causal=True), "triton"),
        ((256, 256), packed(256), "triton"),
    ],
)
def test_a_gpu_uses_cudnn_only_for_masks_and_lengths_that_it_takes(lengths, mask, chosen, monkeypatch):
    monkeypatch.setattr(attention_backends, "platform", lambda: "gpu")
    length, source = lengths
    given = tuple(jnp.zeros((B, n, H, 64), jnp.bfloat16) for n in (length, source, source))
    assert attention_backends._fastest(given, mask, None) == chosen


def test_a_back_end_without_dropout_leaves_dropout_to_another():
    mask, given = padded(6), operands(6, 6)
    expected = attend(*given, mask, "einsum", DROPOUT)
    np.testing.assert_allclose(attend(*given, mask, "xla", DROPOUT), expected, atol=1e-5)


@pytest.mark.skipif(ON_GPU, reason="splash runs on a TPU, or interpreted on a CPU")
@pytest.mark.parametrize("kind", ["causal", "padded", "packed"])
def test_the_kernel_for_tpu_is_the_plain_form(kind):
    """Interpreted, and forward only, as its backward pass is a library's."""
    mask, length, source = of_kind(kind, 128)
    given = operands(length, source, 64)
    expected = attend_with_weights(*given, mask.dense(length, source))[0]
    np.testing.assert_allclose(attend(*given, mask, "splash"), expected, atol=2e-3)


LENGTHS = (1, 2, 7, 15, 16, 17, 33, 63, 64, 65, 100, 127, 128, 129, 130, 192)
BACKENDS = ("blockwise", "triton", "xla")
# On a CPU, where compiling takes all the time, each pair of a mask and a length goes to one back-end in turn.
SWEEP = [
    (backend, kind, length)
    for (i, backend), (j, kind), (n, length) in itertools.product(*map(enumerate, (BACKENDS, KINDS, LENGTHS)))
    if ON_GPU or (i + j + n) % len(BACKENDS) == 0
]


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "kind", "length"), SWEEP)
def test_a_back_end_is_the_plain_form_at_every_length(backend, kind, length):
    check(backend, kind, length, None if backend == "xla" else DROPOUT)


@pytest.mark.slow
@pytest.mark.skipif(not ON_GPU, reason="cuDNN's kernel runs on an NVIDIA GPU only")
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_cudnn_is_the_plain_form_at_every_length(kind, length):
    check("cudnn", kind, length)


@pytest.mark.slow
@pytest.mark.parametrize("size", [32, 48, 64, 128])
@pytest.mark.parametrize("backend", ["blockwise", "triton"])
def test_a_back_end_is_the_plain_form_for_heads_of_every_size(backend, size):
    check(backend, "padded causal", 70, DROPOUT, size)
