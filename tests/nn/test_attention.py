"""The laws of attention: the formula, weights that sum to one where one may look, and back-ends that agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.nn.attention import Heads, KeyValue, Mask, MultiHeadAttention, _splash, attend, attend_with_weights

B, T, S, H, D = 3, 6, 6, 2, 8
PADDED = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]])
PACKED = np.array([[1, 1, 2, 2, 2, 3], [1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 2, 0]])
MASKS = {
    "everything": Mask(),
    "causal": Mask(causal=True),
    "padded": Mask(jnp.asarray(PADDED), jnp.asarray(PADDED)),
    "padded causal": Mask(jnp.asarray(PADDED), jnp.asarray(PADDED), causal=True),
    "packed causal": Mask(jnp.asarray(PACKED), jnp.asarray(PACKED), causal=True),
}


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng((seed, *shape)).normal(size=shape), jnp.float32)


def operands(length=T, source=S, size=D, batch=B):
    return (
        normal(batch, length, H, size),
        normal(batch, source, H, size, seed=1),
        normal(batch, source, H, size, seed=2),
    )


def allowed(name):
    """Who may look at whom, decided pair by pair."""
    segments = {"padded": PADDED, "packed": PACKED}.get(name.split()[0], np.ones((B, S), int))
    return np.array(
        [
            [
                [segments[b, t] == segments[b, s] and (s <= t or "causal" not in name) for s in range(S)]
                for t in range(T)
            ]
            for b in range(B)
        ]
    )


def by_numpy(query, key, value, seen):
    """Vaswani et al. 2017, eq. 1, in float64, one query at a time over the keys that it sees."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    mixed, weights = np.zeros((B, T, H, D)), np.zeros((B, H, T, S))
    for b, t, h in np.ndindex(B, T, H):
        keys = np.flatnonzero(seen[b, t])
        logits = key[b, keys, h] @ query[b, t, h] / np.sqrt(D)
        weights[b, h, t, keys] = np.exp(logits) / np.exp(logits).sum()
        mixed[b, t, h] = weights[b, h, t] @ value[b, :, h]
    return mixed, weights


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_is_decided_pair_by_pair(name):
    seen = np.broadcast_to(MASKS[name].dense(T, S), (B, 1, T, S))
    assert (seen[:, 0] == allowed(name)).all()


def test_a_causal_mask_over_a_longer_past_ends_at_the_last_position():
    seen = Mask(causal=True).dense(2, 5)[0, 0]
    assert seen.tolist() == [[True] * 4 + [False], [True] * 5]


@pytest.mark.smoke
@pytest.mark.parametrize("name", MASKS)
def test_attention_is_the_papers_formula(name):
    mixed, weights = attend_with_weights(*operands(), MASKS[name].dense(T, S))
    expected, expected_weights = by_numpy(*operands(), allowed(name))
    np.testing.assert_allclose(mixed, expected, atol=1e-5)
    np.testing.assert_allclose(weights, expected_weights, atol=1e-6)


@pytest.mark.parametrize("name", MASKS)
def test_weights_sum_to_one_and_are_zero_where_one_may_not_look(name):
    _, weights = attend_with_weights(*operands(), MASKS[name].dense(T, S))
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)
    assert (np.moveaxis(np.asarray(weights), 1, 0)[:, ~allowed(name)] == 0).all()


def test_a_query_that_sees_nothing_stays_finite():
    mixed, _ = attend_with_weights(*operands(), jnp.zeros((B, 1, T, S), bool))
    assert np.isfinite(mixed).all()


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("backend", ["einsum", "xla", "auto"])
def test_back_ends_agree_in_outputs_and_gradients(name, backend):
    target = normal(B, T, H, D, seed=9)

    def both(function):
        return jax.value_and_grad(lambda q, k, v: ((function(q, k, v) - target) ** 2).sum(), argnums=(0, 1, 2))

    mine = both(lambda *qkv: attend(*qkv, MASKS[name], backend))(*operands())
    plain = both(lambda *qkv: attend_with_weights(*qkv, MASKS[name].dense(T, S))[0])(*operands())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), mine, plain)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN's kernel runs on an NVIDIA GPU only")
@pytest.mark.parametrize("name", MASKS)
def test_cudnn_agrees(name):
    half = [x.astype(jnp.bfloat16) for x in operands()]
    plain = attend(*half, MASKS[name], "einsum")
    np.testing.assert_allclose(attend(*half, MASKS[name], "cudnn"), plain, atol=0.03)


@pytest.mark.parametrize("segments", [None, [1, 2], [1, 0]])
@pytest.mark.parametrize("causal", [False, True])
def test_the_kernel_for_tpu_agrees(causal, segments):
    """Interpreted, on one block of 128 positions; padding and packed documents as segments."""
    ids = None if segments is None else jnp.repeat(jnp.array(segments, jnp.int32), 64)[None]
    query, key, value = operands(128, 128, 64, batch=1)
    mask = Mask(ids, ids, causal)
    plain = attend_with_weights(query, key, value, mask.dense(128, 128))[0]
    np.testing.assert_allclose(_splash(query, key, value, mask, interpret=True), plain, atol=2e-3)


def layer_of(**changes):
    layer = MultiHeadAttention(Heads(width=16, heads=H, **changes))
    x = normal(B, T, 16)
    return layer, layer.init(jax.random.key(0), x, x, Mask()), x


def test_asking_for_weights_changes_nothing():
    layer, variables, x = layer_of()
    quiet, none = layer.apply(variables, x, x, MASKS["padded causal"])
    loud, weights = layer.apply(variables, x, x, MASKS["padded causal"], weights=True)
    assert none is None and weights.shape == (B, H, T, S)
    np.testing.assert_allclose(quiet, loud, atol=1e-6)


def test_attention_dropout_acts_in_training_only():
    layer, variables, x = layer_of(dropout=0.5)

    def run(train, seed):
        return layer.apply(variables, x, x, Mask(), train, rngs={"dropout": jax.random.key(seed)})[0]

    assert (run(False, 1) == run(False, 2)).all()
    assert (run(True, 1) == run(True, 1)).all()
    assert (run(True, 1) != run(True, 2)).any()


def test_looking_at_projected_keys_is_the_same_as_projecting_them_on_the_way():
    layer, variables, x = layer_of(bias=True)
    memory = normal(B, 4, 16, seed=3)
    whole, weights = layer.apply(variables, x, memory, Mask(), weights=True)
    pair = layer.apply(variables, memory, method="keys_values")
    cached, cached_weights = layer.apply(variables, x, pair, jnp.ones((B, 1, T, 4), bool), method="look")
    np.testing.assert_allclose(whole, cached, atol=1e-6)
    np.testing.assert_allclose(weights, cached_weights, atol=1e-6)


def test_writing_to_a_cache_fills_the_slots_and_no_others():
    cache = KeyValue.empty((B, 5, H, D), jnp.float32)
    new = KeyValue(normal(B, 2, H, D), normal(B, 2, H, D, seed=1))
    written = cache.write(new, jnp.int32(2))
    assert (written.key[:, 2:4] == new.key).all() and (written.value[:, 2:4] == new.value).all()
    assert (written.key[:, :2] == 0).all() and (written.value[:, 4:] == 0).all()
