"""The laws of alignment: a model that copies looks where it copies from, and an error rate between 0 and 1."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.data.tokenizers import SentencePiece, WordVocabulary
from zoo.decoding.alignment import aligning, alignment_error_rate, forced_links
from zoo.models.base import Output, Readout

WORDS = WordVocabulary([f"w{i}" for i in range(10)])
PAIRS = [("w1 w2 w3", "w3 w1 w2"), ("w5", "w5"), ("", "w1"), ("w1", ""), (" ".join(f"w{i}" for i in range(10)), "w9")]


class Blind(nn.Module):
    """A model that is only ever made to say what it is given, and looks nowhere."""

    def __call__(self, batch, train=False, weights=False):
        return Output(Readout(jnp.zeros((1, 1, 1)), jnp.zeros((1, 1))))

    prefill = decode_step = reorder = __call__


class Copying(Blind):
    """Before it says a label, it looks at where that stands in the source; the last layer looks elsewhere."""

    def __call__(self, batch, train=False, weights=False):
        same = jnp.float32(batch.labels[:, :, None] == batch.source[:, None, :])
        cross = jnp.stack([same, jnp.ones_like(same)])[:, :, None]
        return Output(Readout(jnp.zeros((1, 1, 1)), jnp.zeros((1, 1))), {"cross": cross})


@pytest.mark.parametrize("batch_tokens", [1, 2048])
def test_each_word_of_a_forced_target_is_linked_to_the_word_looked_at_before_it_was_said(batch_tokens):
    links = forced_links(Copying(), {}, PAIRS, WORDS, WORDS, batch_tokens)
    assert links == [[(2, 0), (0, 1), (1, 2)], [(0, 0)], [], [], [(9, 0)]]


def test_pieces_are_joined_to_words():
    lines = [f"{one}{other}" for one in ("ab", "cd", "ef") for other in ("gh", "ij", "kl")]
    pieces = SentencePiece.train(lines * 5, 18, "bpe")
    source, target = "abgh cdij efkl", "efkl abgh cdij"
    assert len(pieces.encode([source])[0]) > 3
    assert forced_links(Copying(), {}, [(source, target)], pieces, pieces) == [[(2, 0), (0, 1), (1, 2)]]


def test_a_model_that_looks_nowhere_has_no_links():
    assert forced_links(Blind(), {}, PAIRS, WORDS, WORDS) is None


def test_the_heads_of_the_layer_before_the_last_are_averaged():
    weights = np.random.default_rng(0).random((3, 2, 4, 5, 6))
    np.testing.assert_allclose(aligning(weights), weights[1].mean(axis=1))
    np.testing.assert_allclose(aligning(weights[:, 0]), weights[1, 0].mean(axis=0))
    np.testing.assert_allclose(aligning(weights[:1]), weights[0].mean(axis=1))


def test_the_error_rate_counts_links_over_all_sentences():
    """Och & Ney 2003, with every link sure."""
    true = [{(0, 0), (1, 1)}, {(2, 0)}]
    assert alignment_error_rate(true, true) == 0
    assert alignment_error_rate([[(0, 1)], [(0, 0)]], true) == 1
    assert alignment_error_rate([[(0, 0), (0, 1)], [(2, 0), (3, 1), (4, 2)]], true) == pytest.approx(1 - 4 / 8)
