"""The laws of layer normalization: the numbers of float64 wherever a row lies, and gradients to match."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from zoo.data.batches.base import LanguageBatch
from zoo.models import build
from zoo.nn.attention import Heads
from zoo.nn.dropout import RowDropout
from zoo.nn.fused_norm import EPSILON, fused_norm
from zoo.nn.layers import EncoderLayer, LayerConfig
from zoo.nn.masks import Mask
from zoo.nn.norms import LayerNorm, normalized

WIDTH = 96
RANDOM = np.random.default_rng(0)
SCALE, BIAS, COTANGENT = (jnp.asarray(RANDOM.normal(size=shape), jnp.float32) for shape in (WIDTH, WIDTH, (4, WIDTH)))


def rows(place):
    """Rows of deviation 1 and this mean; for `outlier`, of mean 0 with a first element that outweighs the rest."""
    x = np.random.default_rng(1).normal(size=(4, WIDTH))
    if place == "outlier":
        x[:, 0] = 3e4
    else:
        x += place
    return jnp.asarray(x, jnp.float32)


def in_float64(x):
    """Ba et al. 2016, eq. 4, and its gradients by hand."""
    x, scale, bias, given = (np.asarray(a, np.float64) for a in (x, SCALE, BIAS, COTANGENT))
    deviation = np.sqrt(x.var(axis=-1, keepdims=True) + EPSILON)
    standard = (x - x.mean(axis=-1, keepdims=True)) / deviation
    inner = given * scale
    along = (inner * standard).mean(axis=-1, keepdims=True)
    to_x = (inner - inner.mean(axis=-1, keepdims=True) - standard * along) / deviation
    return standard * scale + bias, to_x, (given * standard).sum(axis=0), given.sum(axis=0)


@pytest.mark.smoke
@pytest.mark.parametrize("device", ["cpu", "tpu"])
@pytest.mark.parametrize("place", [0.0, 1e3, -1e3, "outlier"])
def test_rows_anywhere_are_normalized_as_in_float64(place, device, monkeypatch):
    monkeypatch.setattr("zoo.nn.norms.platform", lambda: device)
    x = rows(place)
    y, back = jax.vjp(lambda *given: normalized(*given, jnp.float32), x, SCALE, BIAS)
    for ours, exact in zip((y, *back(COTANGENT)), in_float64(x), strict=True):
        # The mean itself is one rounding of 1,000 away from exact, a ten-thousandth of a deviation.
        np.testing.assert_allclose(ours, exact, rtol=0, atol=3e-4 * np.abs(exact).max())


def test_rows_of_one_value_become_the_bias():
    x = jnp.full((2, WIDTH), 7.0)
    assert (normalized(x, SCALE, BIAS, jnp.float32) == BIAS).all()
    assert jnp.isfinite(jax.grad(lambda x: normalized(x, SCALE, BIAS, jnp.float32).sum())(x)).all()


def test_the_layer_is_born_as_the_plain_standardization():
    layer = LayerNorm(jnp.bfloat16)
    boxed = layer.init(jax.random.key(0), rows(0.0))["params"]
    assert {name: box.names for name, box in boxed.items()} == {"scale": ("embed",), "bias": ("embed",)}
    y = layer.apply({"params": nn.unbox(boxed)}, rows(5.0))
    assert y.dtype == jnp.bfloat16
    assert jnp.abs(y.astype(jnp.float32).mean(axis=-1)).max() < 1e-2 and abs(float(jnp.std(y)) - 1) < 1e-2


def test_a_constant_added_to_every_position_vector_changes_logits_by_rounding_only():
    model = build("gpt", "nano", layers=2)
    batch = LanguageBatch(*(np.arange(20).reshape(2, 10) + 4 for _ in range(2)))
    params = nn.unbox(jax.jit(model.init)(jax.random.key(0), batch)["params"])
    moved = params | {"positions": {"table": params["positions"]["table"] + 100.0}}
    run = jax.jit(lambda params: model.apply({"params": params}, batch).logits)
    logits, others = run(params), run(moved)
    assert jnp.abs(logits - others).max() < 1e-3 * jnp.abs(logits).max()


@pytest.mark.parametrize("added", [True, False])
def test_the_kernel_is_the_plain_form_forward_and_backward(added, monkeypatch):
    """Of a residual with dropout and its norm, in several blocks for several programs, with a part of a block left."""
    monkeypatch.setattr("zoo.nn.fused_norm.ELEMENTS", 128)
    monkeypatch.setattr("zoo.nn.fused_norm.PROGRAMS", 3)
    random, shape, dropout = np.random.default_rng(2), (5, 9, 24), RowDropout.of(jax.random.key(5), 0.3)
    x, y, target = (jnp.asarray(random.normal(size=shape), jnp.float32) for _ in range(3))
    scale, bias = (jnp.asarray(random.normal(size=shape[-1:]), jnp.float32) for _ in range(2))

    def plain(x, y, scale, bias):
        return normalized(x + dropout.apply(y) if added else x, scale, bias, jnp.float32)

    def in_kernel(x, y, scale, bias):
        return fused_norm(x, scale, bias, jnp.float32, y if added else None, dropout if added else None)

    def of(function):
        return jax.jit(jax.value_and_grad(lambda *given: (function(*given) * target).sum(), argnums=(0, 1, 2, 3)))

    expected, found = of(plain)(x, y, scale, bias), of(in_kernel)(x, y, scale, bias)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4), found, expected)


def test_a_layer_is_the_same_with_the_kernel(monkeypatch):
    layer = EncoderLayer(LayerConfig(Heads(16, 2), 32, "post", dropout=0.3))
    x, mask = jnp.asarray(RANDOM.normal(size=(2, 5, 16)), jnp.float32), Mask()
    params = layer.init(jax.random.key(0), x, mask, False, False)

    def gradient(params):
        rngs = {"dropout": jax.random.key(1)}
        return jax.jit(jax.grad(lambda params: (layer.apply(params, x, mask, True, False, rngs=rngs)[0] ** 3).sum()))(
            params
        )

    expected = gradient(params)
    monkeypatch.setattr("zoo.nn.norms._has_kernel", lambda x: True)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-4), gradient(params), expected)
