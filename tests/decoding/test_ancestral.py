"""The laws of drawing translations: the model's own frequencies and scores, and a draw for each line by itself."""

from itertools import pairwise, product

import jax
import numpy as np
import pytest
from scipy.stats import chisquare
from toys import Bigrams

from zoo.data.tokenizers import BOS, EOS, PAD, UNK
from zoo.decoding.ancestral import Draws, sample
from zoo.decoding.beam import BeamConfig, Request, beam_search
from zoo.decoding.sampling import SamplingConfig

TOY, CONFIG, AS_IS = Bigrams(), BeamConfig(beam_size=1), SamplingConfig()
TABLE = np.random.default_rng(0).normal(size=(5, 7, 7)).astype(np.float32)
LOG_PROBS = np.asarray(jax.nn.log_softmax(TABLE), np.float64)
WORDS = (UNK, 4, 5, 6)
SOURCE = np.array([[4, 5, EOS, PAD], [6, EOS, PAD, PAD], [5, 5, 5, EOS]], np.int32)
REQUEST = Request(SOURCE, np.array([5, 2, 4]), 6)


def draw(request=REQUEST, config=CONFIG, sampling=AS_IS, count=64, lines=(1, 2, 3)):
    keys = Draws(sampling, count, seed=3).keys(np.array(lines))
    return jax.device_get(sample(TOY, TABLE, request, keys, config, sampling, keep_attention=True))


def texts(tokens):
    return [tuple(t for t in row if t != PAD) for row in tokens.tolist()]


def normalized(text, row):
    """The length-normalized log-probability of `text` with its EOS, for a row of `SOURCE`."""
    table = LOG_PROBS[SOURCE[row].sum() % 5]
    return sum(table[pair] for pair in pairwise((BOS, *text))) / ((5 + len(text)) / 6) ** 0.6


def test_frequencies_follow_the_model():
    """Of all translations of at most two tokens: BOS and padding can't come, and at the limit nothing but EOS."""
    request = Request(SOURCE[:1], np.array([2]), 3)
    table = np.exp(LOG_PROBS[SOURCE[0].sum() % 5])
    table[:, [PAD, BOS]] = 0
    table /= table.sum(axis=1, keepdims=True)
    expected = {(EOS,): table[BOS, EOS]}
    expected |= {(a, EOS): table[BOS, a] * table[a, EOS] for a in WORDS}
    expected |= {(a, b, EOS): table[BOS, a] * table[a, b] for a, b in product(WORDS, WORDS)}
    drawn = texts(draw(request, count=8000, lines=(1,)).tokens[0])
    assert set(drawn) <= expected.keys()
    counts = [drawn.count(text) for text in expected]
    assert chisquare(counts, 8000 * np.array(list(expected.values()))).pvalue > 1e-3


@pytest.mark.parametrize("sampling", [AS_IS, SamplingConfig(temperature=0.5, top_k=2)])
def test_a_score_is_the_models_own_normalized_log_probability_best_first(sampling):
    found = draw(sampling=sampling)
    assert (np.diff(found.scores, axis=1) <= 0).all()
    for row in range(3):
        expected = [normalized(t, row) for t in texts(found.tokens[row])]
        np.testing.assert_allclose(found.scores[row], expected, rtol=1e-5)


def test_every_draw_ends_within_its_limit():
    for row, limit in zip(draw().tokens, REQUEST.limits, strict=True):
        assert all(text[-1] == EOS and len(text) - 1 <= limit for text in texts(row))
        assert len(set(texts(row))) > 5


def test_at_temperature_zero_a_draw_is_greedy_search():
    greedy = beam_search(TOY, TABLE, REQUEST, CONFIG)
    found = draw(sampling=SamplingConfig(temperature=0), count=2)
    for i in range(2):
        assert (found.tokens[:, i] == greedy.tokens[:, 0]).all()
        np.testing.assert_allclose(found.scores[:, i], greedy.scores[:, 0], rtol=1e-5)


def test_the_batch_never_changes_what_a_line_draws():
    together = draw()
    for row in range(3):
        request = Request(np.pad(SOURCE[row : row + 1], ((0, 1), (0, 2))), np.array([REQUEST.limits[row], 0]), 9)
        alone = draw(request, lines=(row + 1, 0))
        assert texts(alone.tokens[0]) == texts(together.tokens[row])
        np.testing.assert_allclose(alone.scores[0], together.scores[row], rtol=1e-5)


def test_other_lines_and_other_seeds_draw_otherwise():
    assert texts(draw(lines=(4, 5, 6)).tokens[0]) != texts(draw().tokens[0])
    assert not np.array_equal(
        jax.random.key_data(Draws(AS_IS, 2, seed=1).keys(np.arange(3))),
        jax.random.key_data(Draws(AS_IS, 2, seed=2).keys(np.arange(3))),
    )


def test_more_draws_begin_with_the_same_ones():
    few, many = texts(draw(count=8).tokens[0]), texts(draw(count=64).tokens[0])
    assert all(few.count(text) <= many.count(text) for text in few)


def test_what_beam_search_forbids_and_forces_holds_for_draws():
    prefix = np.array([[UNK, 4, 0, 0, 0, 0], [0] * 6, [5, 0, 0, 0, 0, 0]])
    found = draw(REQUEST.replace(prefix=prefix), BeamConfig(forbid_unknown=True, min_length=1))
    assert all(text[:2] == (UNK, 4) for text in texts(found.tokens[0]))
    assert all(text[0] == 5 for text in texts(found.tokens[2]))
    for row, forced in zip(found.tokens, (2, 0, 0), strict=True):
        assert all(len(text) > 1 and UNK not in text[forced:] for text in texts(row))
    expected = [normalized(t, 0) for t in texts(found.tokens[0])]
    np.testing.assert_allclose(found.scores[0], expected, rtol=1e-5)


def test_attention_is_one_for_each_token_and_covers_as_in_beam_search():
    found = draw(config=BeamConfig(coverage_penalty=0.5))
    for row, source in enumerate(SOURCE):
        spoken = found.tokens[row] != PAD
        np.testing.assert_allclose(found.attention[row].sum(axis=-1), spoken, atol=1e-5)
        words = found.attention[row][:, :, : (source != PAD).sum() - 1].sum(axis=1)
        for text, score, covered in zip(texts(found.tokens[row]), found.scores[row], words, strict=True):
            penalty = 0.5 * np.log(np.minimum(covered, 1)).sum()
            assert score == pytest.approx(normalized(text, row) + penalty, rel=1e-4)


def test_a_heavy_repetition_penalty_says_nothing_twice():
    table = LOG_PROBS.astype(np.float32)  # all below 0, so a penalty makes each less likely
    sampling = SamplingConfig(repetition_penalty=1e4)
    keys = Draws(sampling, 64).keys(np.arange(3))
    found = sample(TOY, table, Request(SOURCE, np.full(3, 4), 5), keys, CONFIG, sampling)
    said = [text for row in np.asarray(found.tokens) for text in texts(row)]
    assert all(len(set(text)) == len(text) for text in said)
    assert max(map(len, said)) > 3
