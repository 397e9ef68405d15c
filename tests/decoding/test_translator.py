"""The laws of translating text: a line for every line, in its order, whatever it is batched with."""

import logging
import re

import numpy as np
import pytest
from toys import Bigrams

from zoo.data.tokenizers import EOS, SPECIALS, WordVocabulary
from zoo.decoding.ancestral import Draws
from zoo.decoding.beam import BeamConfig, Request, beam_search
from zoo.decoding.sampling import SamplingConfig
from zoo.decoding.translator import Translator
from zoo.errors import UserError

WORDS = WordVocabulary([f"w{i}" for i in range(10)])
CONFIG = BeamConfig(beam_size=2, max_length=20, max_extra=5)
LINES = [
    "w1 w2 w3",
    "",
    "w9",
    "w4 w5 w6 w7 w8 w9 w0 w1 w2 w3 w4 w5 w6 w7 w8 w9 w0 w1",
    "   ",
    "w2 w2 unheard-of w2 w2 w2 w2",
    "w5 w6",
]
"""Of 0, 1, 2, 7 and 18 words."""


@pytest.fixture(scope="module")
def translator(wild):
    return Translator(*wild, WORDS, WORDS, CONFIG, batch_tokens=32)


@pytest.fixture(scope="module")
def translated(translator):
    return translator(LINES)


def assert_same(one, other):
    assert [(t.text, t.tokens) for t in one] == [(t.text, t.tokens) for t in other]
    np.testing.assert_allclose([t.score for t in one], [t.score for t in other], rtol=1e-4)


def test_the_vocabulary_is_the_models(wild):
    assert len(SPECIALS) + 10 == WORDS.size == wild[0].config.source_vocabulary


def test_every_line_has_its_own_translations_in_its_place(translator, translated):
    assert len(translated) == len(LINES)
    for line, translations in zip(LINES, translated, strict=True):
        assert_same(translator([line])[0], translations)


def test_the_order_of_lines_is_the_order_of_translations(translator, translated):
    for one, other in zip(translator(LINES[::-1]), translated[::-1], strict=True):
        assert_same(one, other)


def test_an_empty_or_blank_line_has_one_empty_translation(translated):
    for i in (1, 4):
        assert [(t.text, t.tokens, t.score) for t in translated[i]] == [("", [], 0.0)]


def test_other_lines_have_as_many_as_beams_best_first(translated):
    for i in (0, 2, 3, 5, 6):
        assert len(translated[i]) == CONFIG.beam_size
        assert translated[i][0].score >= translated[i][1].score
        assert translated[i][0].tokens != translated[i][1].tokens
        assert all(t.text == WORDS.decode([t.tokens])[0] for t in translated[i])


def test_nothing_is_translated_into_nothing(translator):
    assert translator([]) == []
    assert [len(t) for t in translator(["", " "])] == [1, 1]


def test_a_translation_is_what_beam_search_finds(wild, translated):
    source = np.array([[*WORDS.encode([LINES[0]])[0], EOS]], np.int32)
    found = beam_search(*wild, Request(source, np.array([3 + 5]), 9), CONFIG)
    for beam, translation in enumerate(translated[0]):
        tokens = found.tokens[0, beam].tolist()
        assert translation.tokens == tokens[: tokens.index(EOS)]
        assert translation.score == pytest.approx(float(found.scores[0, beam]), rel=1e-4)


@pytest.mark.parametrize("batch_tokens", [1, 100])
def test_the_size_of_batches_changes_nothing(wild, translated, batch_tokens):
    for one, other in zip(Translator(*wild, WORDS, WORDS, CONFIG, batch_tokens)(LINES), translated, strict=True):
        assert_same(one, other)


def test_a_line_that_is_too_long_is_cut_and_named(translator, caplog):
    long = " ".join(["w1", "w2"] * 12)
    with caplog.at_level(logging.WARNING, "zoo"):
        cut = translator(["w3", long, "w4"])[1]
    assert [record.getMessage() for record in caplog.records] == [
        "line 2 has 24 tokens: only the first 20 are translated (--max-length)"
    ]
    assert_same(cut, translator([" ".join(long.split()[:20])])[0])


def test_attention_is_cut_to_the_tokens_and_the_pieces(translator, translated):
    for line, quiet, translations in zip(LINES, translated, translator(LINES, attention=True), strict=True):
        assert_same(translations, quiet)
        if line.strip():
            for t in translations:
                assert t.attention.shape == (len(t.tokens) + 1, len(line.split()) + 1)
                np.testing.assert_allclose(t.attention.sum(axis=-1), 1, atol=1e-5)


TABLE = np.random.default_rng(0).normal(size=(5, WORDS.size, WORDS.size)).astype(np.float32)
PREFIXES = ["w3", "w1 w1", "", "w7 w8 w9", "w2", "w1", "w1 w2 w3 w4"]


def toy(batch_tokens=64, draws=None, **changes):
    """A translator that compiles in no time."""
    config = BeamConfig(**{"beam_size": 2, "max_length": 20, "max_extra": 5} | changes)
    return Translator(Bigrams(), TABLE, WORDS, WORDS, config, batch_tokens, draws)


@pytest.mark.parametrize("draws", [None, Draws(SamplingConfig(), 3)])
def test_neither_the_batch_nor_the_prefixes_of_others_change_a_line(draws):
    together = toy(draws=draws)(LINES, prefixes=PREFIXES)
    for batch_tokens in (1, 1000):
        for one, other in zip(toy(batch_tokens, draws)(LINES, prefixes=PREFIXES), together, strict=True):
            assert_same(one, other)
    for number, (line, prefix, expected) in enumerate(zip(LINES, PREFIXES, together, strict=True), 1):
        assert_same(toy(draws=draws)([line], first=number, prefixes=[prefix])[0], expected)
        if line.strip():
            assert all(t.text.startswith(prefix) for t in expected)


class Halved(WordVocabulary):
    """Spells every word in two ways: w5 to w9 read as w0 to w4."""

    def decode(self, rows):
        return [re.sub("[5-9]", lambda digit: str(int(digit[0]) - 5), text) for text in super().decode(rows)]


def test_a_list_holds_every_text_once_by_its_best_spelling_unless_all_are_asked_for():
    halved = Halved([f"w{i}" for i in range(10)])
    translate = Translator(Bigrams(), TABLE, WORDS, halved, BeamConfig(beam_size=6, max_length=20, max_extra=2))
    for once, every in zip(translate(LINES), translate(LINES, all_segmentations=True), strict=True):
        assert len({t.text for t in once}) == len(once)
        assert len({tuple(t.tokens) for t in every}) == len(every)
        firsts = [next(t for t in every if t.text == text) for text in dict.fromkeys(t.text for t in every)]
        assert_same(once, firsts)
    assert any(len(t) > len({each.text for each in t}) for t in translate(LINES, all_segmentations=True))


def test_as_many_are_drawn_as_asked_for_best_first():
    drawn = toy(draws=Draws(SamplingConfig(), 5))(LINES)
    for line, translations in zip(LINES, drawn, strict=True):
        assert len(translations) == (5 if line.strip() else 1)
        assert (np.diff([t.score for t in translations]) <= 0).all()
    assert len({t.text for t in drawn[0]}) > 1


def test_the_own_greedy_translation_is_what_its_prefix_leads_to():
    greedy = [best[0].text for best in toy(beam_size=1)(LINES)]
    for cut in (1, 2, 99):
        prefixes = [" ".join(text.split()[:cut]) for text in greedy]
        assert [best[0].text for best in toy(beam_size=1)(LINES, prefixes=prefixes)] == greedy


def test_a_prefix_longer_than_its_translation_may_be_names_its_line():
    with pytest.raises(UserError, match="line 12: its prefix of 7 tokens is longer than the 6 that") as error:
        toy()(["w1 w2", "", "w3"], first=10, prefixes=["w1 " * 7, "w1 " * 90, "w1 " * 7])
    assert "\n" not in str(error.value)


def test_an_unknown_word_that_is_forbidden_is_never_said():
    table = TABLE.copy()
    table[:, :, 3] += 4
    every = Translator(Bigrams(), table, WORDS, WORDS, CONFIG)(LINES)
    assert any("<unk>" in t.text for translations in every for t in translations)
    forbidden = BeamConfig(beam_size=2, max_length=20, max_extra=5, forbid_unknown=True)
    for draws in (None, Draws(SamplingConfig(), 3)):
        for translations in Translator(Bigrams(), table, WORDS, WORDS, forbidden, draws=draws)(LINES):
            assert not any("<unk>" in t.text for t in translations)
