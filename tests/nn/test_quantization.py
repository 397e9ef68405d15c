"""The laws of 8-bit matrices: close to what they stand for, every row by itself, and all matrices of all models."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.data.batches.base import LanguageBatch, Seq2SeqBatch
from zoo.models import registry
from zoo.nn.linear import dot
from zoo.nn.quantization import Quantized, quantized

SHAPES = {
    "transformer": {"layers": 2, "width": 64, "ffn": 128, "heads": 2, "scan_layers": True},
    "gpt": {"layers": 2, "width": 64, "ffn": 128, "heads": 2, "max_length": 8},
    "rnnsearch": {"embedding": 64, "width": 64, "alignment": 64, "maxout": 64},
    "cho": {"embedding": 64, "width": 64, "maxout": 64, "rank": 64},
    "seq2seq": {"layers": 2, "width": 64},
}
IDS = np.array([[5, 6, 7, 2], [9, 8, 2, 0]], np.int32)


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("contract", [0, 1])
def test_a_product_is_close_and_each_row_is_what_it_is_alone(contract):
    x, kernel = normal(5, 64) * jnp.array([[1], [100], [0], [1e-3], [1]]), normal(64, 48, seed=1)
    matrix = kernel if contract == 0 else kernel.T
    found = dot(x, Quantized.of(matrix, (contract,)), jnp.float32, contract)
    size = jnp.linalg.norm(x, axis=1, keepdims=True) * jnp.linalg.norm(kernel, axis=0)
    assert (jnp.abs(found - x @ kernel) <= 0.02 * size).all()
    for row in range(5):
        alone = dot(x[row : row + 1], Quantized.of(matrix, (contract,)), jnp.float32, contract)
        np.testing.assert_allclose(alone[0], found[row], rtol=1e-6)


def test_a_matrix_of_integers_comes_back_as_it_was():
    whole = np.random.default_rng(0).integers(-127, 128, (16, 3, 8)).astype(np.float32)
    whole[0] = 127
    scale = np.arange(1, 25, dtype=np.float32).reshape(1, 3, 8)
    kept = Quantized.of(jnp.asarray(whole * scale), (0,))
    np.testing.assert_array_equal(kept.values, whole)
    np.testing.assert_allclose(kept.scale, scale, rtol=1e-6)


# The other recurrent models take the same paths as RNNsearch.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in ("cho", "seq2seq") else []) for name in SHAPES]
)
def test_every_matrix_of_a_model_is_of_8_bits_and_it_predicts_almost_the_same(name):
    language = name == "gpt"
    sizes = {"vocabulary": 40} if language else {"source_vocabulary": 40, "target_vocabulary": 40}
    model = registry.build(name, "nano" if language else "tiny", **SHAPES[name], **sizes)
    batch = LanguageBatch(IDS, IDS) if language else Seq2SeqBatch(IDS, IDS, IDS)
    params = nn.unbox(jax.jit(model.init)(jax.random.key(0), batch))["params"]
    low = quantized(params)
    floats = {path: leaf for path, leaf in jax.tree_util.tree_leaves_with_path(low) if leaf.dtype != jnp.int8}
    bulk = [str(path) for path, leaf in floats.items() if leaf.size > 1000]
    assert all("positions" in path for path in bulk)
    run = jax.jit(lambda params: model.apply({"params": params}, batch).logits)
    exact, found = run(params), run(low)
    assert jnp.abs(found - exact).max() <= 0.1 * jnp.abs(exact).max()
    assert not (found == exact).all()
