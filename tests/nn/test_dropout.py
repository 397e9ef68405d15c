"""The laws of dropout: its share of zeros, the same bits in both passes, and none of them kept in between."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.nn.dropout import RowDropout, keep

KEY, SHAPE = jax.random.key(3), (64, 40)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_it_drops_its_share_and_keeps_the_mean(rate):
    y = RowDropout.of(KEY, rate).apply(jnp.ones(SHAPE))
    assert abs(float((y == 0).mean()) - rate) < 0.03
    assert jnp.allclose(y, keep(KEY, rate, SHAPE) / (1 - rate))


@pytest.mark.parametrize("width", [40, 512])
def test_elements_near_each_other_are_dropped_independently(width):
    """Also where rows are a power of two apart; and those of two keys, however near the keys."""
    rate, shape = 0.3, (512, width)
    keys = [jax.random.wrap_key_data(jnp.array(words, jnp.uint32)) for words in ((5, 6), (5, 8), (4, 6), (0, 1))]
    one, *others = (np.asarray(keep(key, rate, shape), np.float64) - (1 - rate) for key in keys)
    pairs = [(one, other) for other in others]
    for down, right in ((0, 1), (1, 0), (1, 1), (0, 8), (0, 32), (8, 0), (128, 0)):
        pairs.append((one[down:, right:], one[: 512 - down, : width - right]))
    for left, right in pairs:
        assert abs((left * right).sum()) < 5 * rate * (1 - rate) * left.size**0.5


def test_the_gradient_passes_where_the_value_passed():
    y, back = jax.vjp(lambda x: RowDropout.of(KEY, 0.3).apply(x), jnp.ones(SHAPE))
    assert (back(jnp.ones(SHAPE))[0] == y).all()


def test_no_mask_is_kept_for_the_backward_pass():
    _, back = jax.vjp(lambda x: RowDropout.of(KEY, 0.3).apply(x), jnp.ones(SHAPE))
    assert max(leaf.size for leaf in jax.tree.leaves(back)) < SHAPE[0]
