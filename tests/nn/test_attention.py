"""The laws of attention: the formula, weights that sum to one where one may look, and the multi-head layer."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from zoo.nn import attention
from zoo.nn.attention import Heads, KeyValue, MultiHeadAttention
from zoo.nn.attention_backends import attend_with_weights
from zoo.nn.masks import Mask

B, T, S, H, D = 3, 6, 6, 2, 8
LENGTHS = np.array([6, 3, 0])
PACKED = np.array([[1, 1, 2, 2, 2, 3], [1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 2, 0]])
MASKS = {
    "everything": Mask(),
    "causal": Mask(causal=True),
    "padded": Mask.padded(np.arange(S) < LENGTHS[:, None]),
    "padded causal": Mask.padded(np.arange(S) < LENGTHS[:, None], causal=True),
    "packed causal": Mask(segments=jnp.asarray(PACKED), causal=True),
}


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng((seed, *shape)).normal(size=shape), jnp.float32)


def operands():
    return normal(B, T, H, D), normal(B, S, H, D, seed=1), normal(B, S, H, D, seed=2)


def allowed(name):
    """Who may look at whom, decided pair by pair; the first key of an empty row is one to look at."""

    def looks(b, t, s):
        if "padded" in name and s >= max(LENGTHS[b], 1):
            return False
        if "packed" in name and PACKED[b, t] != PACKED[b, s]:
            return False
        return s <= t or "causal" not in name

    return np.array([[[looks(b, t, s) for s in range(S)] for t in range(T)] for b in range(B)])


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


@pytest.mark.parametrize("bias", [True, False])
def test_queries_keys_and_values_of_one_product_are_those_of_three(monkeypatch, bias):
    layer = MultiHeadAttention(Heads(width=16, heads=H, bias=bias, dropout=0.3))
    x, cotangent, mask = normal(B, T, 16), normal(B, T, 16, seed=1), MASKS["padded causal"]
    params = nn.unbox(layer.init(jax.random.key(0), x, x, mask))

    def outcome(device):
        monkeypatch.setattr(attention, "platform", lambda: device)
        run = partial(layer.apply, train=True, rngs={"dropout": jax.random.key(1)})
        y, back = jax.vjp(jax.jit(lambda params, x: run(params, x, x, mask)[0]), params, x)
        return y, back(cotangent)

    one, three = outcome("gpu"), outcome("cpu")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, three)


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


@pytest.mark.parametrize("name", MASKS)
def test_every_query_sees_a_key(name):
    assert MASKS[name].dense(T, S).any(axis=-1).all()


@pytest.mark.parametrize("mask", [Mask(causal=True), Mask(segments=jnp.ones((B, 5), jnp.int32))])
def test_a_mask_refuses_numbers_with_which_a_query_would_see_nothing(mask):
    with pytest.raises(ValueError, match="5 queries, 3 keys"):
        mask.dense(5, 3)


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
    cache = KeyValue.empty((B, H, D, 5), jnp.float32)
    new = KeyValue(normal(B, H, D, 2), normal(B, H, 2, D, seed=1))
    written = cache.write(new, jnp.int32(2))
    assert (written.key[..., 2:4] == new.key).all() and (written.value[..., 2:4, :] == new.value).all()
    assert (written.key[..., :2] == 0).all() and (written.value[..., 4:, :] == 0).all()
    assert (written.with_room(6).key[..., :5] == written.key).all() and (
        written.with_room(6).value[..., 5, :] == 0
    ).all()
