"""The laws of scoring: what beam search says of its own translations, and a whole that is the sum of its tokens."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from zoo.data.batching import Seq2SeqBatch
from zoo.data.tokenizers import WordVocabulary
from zoo.decoding.beam import BeamConfig
from zoo.decoding.scoring import Scorer
from zoo.decoding.translator import Translator
from zoo.models import registry

WORDS = WordVocabulary([f"w{i}" for i in range(10)])
CONFIG = BeamConfig(beam_size=3, max_length=10, max_extra=4)
LINES = ["w1 w2 w3", "w9", "w4 w5 w6 w7 w8 w9 w0 w1 w2 w3", "w2 w2 unheard-of w2 w2 w2 w2", "w5 w6"]
SHAPES = {
    "seq2seq": {"layers": 1, "width": 16, "embedding": 16},
    "cho": {"width": 16, "embedding": 16, "maxout": 8},
    "rnnsearch": {"width": 16, "embedding": 16, "alignment": 16, "maxout": 8},
    "transformer": {"layers": 2, "width": 16, "ffn": 16, "heads": 2},
}


def wild(name):
    """A model that was never trained, at three times its size, so that tokens differ in likelihood."""
    model = registry.build(name, "tiny", source_vocabulary=14, target_vocabulary=14, **SHAPES[name])
    nothing = Seq2SeqBatch(*(np.ones((1, 2), np.int32) for _ in range(3)))
    params = nn.unbox(jax.jit(model.init)(jax.random.key(0), nothing))["params"]
    return model, jax.tree.map(lambda x: 3 * x, params)


@pytest.fixture(scope="module")
def scorer():
    return Scorer(*wild("transformer"), WORDS, WORDS, CONFIG)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.smoke
def test_what_beam_search_found_has_the_score_that_it_gave(name):
    parts = *wild(name), WORDS, WORDS, CONFIG
    found = [(line, t) for line, best in zip(LINES, Translator(*parts)(LINES), strict=True) for t in best]
    pairs = [(np.array(WORDS.encode([line])[0]), np.array(t.tokens, int)) for line, t in found]
    scores = [scored.score for scored in Scorer(*parts).of_ids(pairs)]
    np.testing.assert_allclose(scores, [t.score for _, t in found], atol=1e-4)
    assert np.ptp(scores) > 0.1


def test_the_probabilities_of_all_first_tokens_sum_to_one_and_an_empty_target_is_eos_alone():
    scorer = Scorer(*wild("rnnsearch"), WORDS, WORDS, CONFIG)
    source = np.array([5, 6])
    first = [scored.log_probabilities[0] for scored in scorer.of_ids([(source, np.array([t])) for t in range(14)])]
    (empty,) = scorer.of_ids([(source, np.array([], int))])
    assert np.exp(first).sum() == pytest.approx(1, abs=1e-5)
    assert empty.log_probabilities == pytest.approx([first[2]], abs=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_the_tokens_sum_to_the_whole_and_the_score_divides_it(alpha):
    config = BeamConfig(length_penalty=alpha)
    for scored in Scorer(*wild("transformer"), WORDS, WORDS, config)([("w1 w2", "w3 w4 w5"), ("w1", "")]):
        whole = scored.log_probabilities.sum()
        assert scored.log_probability == pytest.approx(whole)
        # Wu et al. 2016, eq. 14
        assert scored.score == pytest.approx(whole / ((5 + len(scored.log_probabilities)) / 6) ** alpha)


def test_a_pair_has_one_score_whatever_it_is_batched_with(scorer):
    pairs = [(line, other) for line in LINES for other in (*LINES, "", " ")] + [("", "w1"), ("", "")]
    together = scorer(pairs)
    small = Scorer(scorer.model, scorer.params, WORDS, WORDS, CONFIG, batch_tokens=1)(pairs)
    for (_, target), one, other in zip(pairs, together, small, strict=True):
        assert len(one.log_probabilities) == len(target.split()) + 1
        np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, atol=5e-4)
    assert scorer([]) == []


def test_a_source_that_is_too_long_is_cut_as_for_its_translation_and_a_target_never(scorer, caplog):
    long = " ".join(["w1", "w2"] * 12)
    (cut,) = scorer([(long, long)], first=7)
    assert [record.getMessage() for record in caplog.records] == [
        "line 7 has 24 tokens: only the first 10 are translated (--max-length)"
    ]
    (short,) = scorer([(" ".join(long.split()[:10]), long)])
    assert len(cut.log_probabilities) == 25
    np.testing.assert_allclose(cut.log_probabilities, short.log_probabilities, rtol=1e-5, atol=1e-5)
