"""The laws of alignment: a model that copies looks where it copies from, an error rate between 0 and 1, and a word for
every <unk>."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.data.tokenizers import UNK, SentencePiece, WordVocabulary
from zoo.decoding.alignment import aligning, alignment_error_rate, forced_links, replace_unknown, word_links
from zoo.decoding.translator import Translation
from zoo.models.base import Output, Readout

WORDS = WordVocabulary([f"w{i}" for i in range(10)])
PAIRS = [("w1 w2 w3", "w3 w1 w2"), ("w5", "w5"), ("", "w1"), ("w1", ""), (" ".join(f"w{i}" for i in range(10)), "w9")]


class Blind(nn.Module):
    """A model that is only ever made to say what it is given, and looks nowhere."""

    def __call__(self, batch, train=False, weights=False):
        return Output(Readout(jnp.zeros((1, 1, 1)), jnp.zeros((1, 1))))

    prefill = decode_step = grow = reorder = __call__


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


SOURCE = WordVocabulary(["the", "house"])
TARGET = WordVocabulary(["la", "maison"])


def attended(positions: list[int], pieces: int) -> np.ndarray:
    """Most of the attention of each token, EOS last, at these of `pieces` source positions and EOS."""
    looked = np.full((len(positions) + 1, pieces + 1), 0.1)
    looked[np.arange(len(positions)), positions] = 1
    looked[-1, -1] = 1
    return looked / looked.sum(axis=1, keepdims=True)


def translation(target, tokens: list[int], positions: list[int], pieces: int) -> Translation:
    return Translation(target.decode([tokens])[0], -1.0, tokens, attended(positions, pieces))


@pytest.mark.parametrize(
    ("dictionary", "expected"), [({}, "la Berlin Paris"), ({"Berlin": "Berline", "the": "no"}, "la Berline Paris")]
)
def test_an_unknown_word_becomes_the_word_it_is_aligned_to_or_its_entry(dictionary, expected):
    line = "Paris the Berlin"
    given = translation(TARGET, [4, UNK, UNK], [1, 2, 0], 3)
    assert given.text == "la <unk> <unk>"
    replaced = replace_unknown(line, given, SOURCE, TARGET, dictionary)
    assert replaced.text == expected
    assert (replaced.tokens, replaced.score) == (given.tokens, given.score)
    assert word_links(line, replaced, SOURCE, TARGET) == [(1, 0), (2, 1), (0, 2)]


def test_what_holds_no_unknown_word_stays():
    given = translation(TARGET, [4, 5], [0, 1], 2)
    assert replace_unknown("the house", given, SOURCE, TARGET, {"the": "a", "house": "b"}) == given


@pytest.fixture(scope="module")
def pieces():
    return SentencePiece.train([f"in {n} days, dans {n} jours." for n in range(200)], 28, "unigram")


def test_an_unknown_character_inside_a_word_becomes_its_own_piece(pieces):
    line = "in 5 \u0141days."
    (tokens,) = pieces.encode(["dans \u0141jours."])
    surfaces = pieces.pieces(line)
    at, there = tokens.index(UNK), surfaces.index("\u0141")
    positions = [0] * len(tokens)
    positions[at] = there
    given = translation(pieces, tokens, positions, len(surfaces))
    assert given.text == "dans <unk>jours."
    assert replace_unknown(line, given, pieces, pieces, {}).text == "dans \u0141jours."


def test_a_whole_unknown_word_of_pieces_becomes_the_whole_source_word(pieces):
    line = "in \u0141days"
    (tokens,) = pieces.encode(["dans \u0141 jours"])
    surfaces = pieces.pieces(line)
    positions = [0] * len(tokens)
    positions[tokens.index(UNK)] = len(surfaces) - 1
    replaced = replace_unknown(line, translation(pieces, tokens, positions, len(surfaces)), pieces, pieces, {})
    assert replaced.text == "dans \u0141days jours"


def test_without_attention_nothing_can_be_read_off():
    for read in (word_links, lambda *given: replace_unknown(*given, {})):
        with pytest.raises(ValueError, match="without attention"):
            read("the", Translation("<unk>", 0.0, [UNK]), SOURCE, TARGET)
