"""The laws of dropout: its share of zeros, the same bits in both passes, and none of them kept in between."""

import jax
import jax.numpy as jnp
import pytest

from zoo.nn.dropout import RowDropout, keep

KEY, SHAPE = jax.random.key(3), (64, 40)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_it_drops_its_share_and_keeps_the_mean(rate):
    y = RowDropout.of(KEY, rate).apply(jnp.ones(SHAPE))
    assert abs(float((y == 0).mean()) - rate) < 0.03
    assert jnp.allclose(y, keep(KEY, rate, SHAPE) / (1 - rate))


def test_the_gradient_passes_where_the_value_passed():
    y, back = jax.vjp(lambda x: RowDropout.of(KEY, 0.3).apply(x), jnp.ones(SHAPE))
    assert (back(jnp.ones(SHAPE))[0] == y).all()


def test_no_mask_is_kept_for_the_backward_pass():
    _, back = jax.vjp(lambda x: RowDropout.of(KEY, 0.3).apply(x), jnp.ones(SHAPE))
    assert max(leaf.size for leaf in jax.tree.leaves(back)) < SHAPE[0]
