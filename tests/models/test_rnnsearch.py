"""What is Bahdanau's own; the laws that RNNsearch shares with the other models of 2014 are in `test_seq2seq`."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from zoo.data.batches.base import Seq2SeqBatch
from zoo.models import build
from zoo.parallel.rules import parameter_count

BATCH = Seq2SeqBatch(np.array([[5, 3, 9, 2]], np.int32), *[np.array([[1, 6, 4]], np.int32)] * 2)


@lru_cache
def small():
    model = build("rnnsearch", "tiny", source_vocabulary=13, target_vocabulary=11, width=6, embedding=5, maxout=4)
    params = nn.unbox(jax.jit(model.init)(jax.random.key(0), BATCH))["params"]
    return model, jax.tree.map(lambda leaf: leaf * 3, params)


def test_bahdanau_2014_is_counted_by_hand():
    n, m, align, maxout, v = 1000, 620, 1000, 500, 30_000  # A.2.3
    gru = 3 * (m * n + n * n + n)
    alignment = align + align * n + align * 2 * n
    features = 2 * maxout * (n + m + 2 * n) + 2 * maxout
    rest = (n * n + n) + 3 * 2 * n * n + alignment + features + maxout * v + v
    published = build("rnnsearch", "bahdanau2014")
    born = nn.unbox(jax.eval_shape(published.init, jax.random.key(0), BATCH))
    assert parameter_count(born) == 2 * v * m + 3 * gru + rest


def test_the_first_word_is_read_from_the_state_before_it():
    """A.2.2: the read-out takes s_{i-1}, so the first prediction needs no step of the decoder, and the second does."""
    model, params = small()

    @jax.jit
    def logits(decoder):
        return model.apply({"params": params | {"decoder": decoder}}, BATCH).logits

    one, other = logits(params["decoder"]), logits(jax.tree.map(jnp.negative, params["decoder"]))
    np.testing.assert_array_equal(one[:, 0], other[:, 0])
    assert not np.allclose(one[:, 1], other[:, 1])


def test_the_first_state_is_of_the_backward_layer_alone():
    """A.2.2: s_0 = tanh(W_s · the backward state at the first word)."""
    model, params = small()

    @jax.jit
    def first_state(forward, backward):
        encoder = {"forward": forward, "backward": backward}
        return model.apply({"params": params | {"encoder": encoder}}, BATCH.source, method="encode")[1][0]

    forward, backward = params["encoder"]["forward"], params["encoder"]["backward"]
    negated = [jax.tree.map(jnp.negative, side) for side in (forward, backward)]
    np.testing.assert_array_equal(first_state(forward, backward), first_state(negated[0], backward))
    assert not np.allclose(first_state(forward, backward), first_state(forward, negated[1]))
