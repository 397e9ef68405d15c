"""What is read off the attention: words linked to words, and a word for every <unk>."""

import numpy as np
import pytest

from zoo.data.tokenizers import UNK, SentencePiece, WordVocabulary
from zoo.decoding.alignment import replace_unknown, word_links
from zoo.decoding.translator import Translation

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
