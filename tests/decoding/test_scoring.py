"""The laws of scoring: a whole that is the sum of its tokens, whatever is beside it; `test_laws.py` compares its scores
with those of beam search."""

import numpy as np
import pytest
from toys import WORDS, untrained

from zoo.decoding.beam import BeamConfig
from zoo.decoding.scoring import Scorer

CONFIG = BeamConfig(beam_size=3, max_length=10, max_extra=4)
LINES = ["w1 w2 w3", "w9", "w4 w5 w6 w7 w8 w9 w0 w1 w2 w3", "w2 w2 unheard-of w2 w2 w2 w2", "w5 w6"]


@pytest.fixture(scope="module")
def scorer():
    return Scorer(*untrained("transformer"), WORDS, WORDS, CONFIG)


def test_the_probabilities_of_all_first_tokens_sum_to_one_and_an_empty_target_is_eos_alone():
    scorer = Scorer(*untrained("rnnsearch"), WORDS, WORDS, CONFIG)
    source = np.array([5, 6])
    first = [scored.log_probabilities[0] for scored in scorer.of_ids([(source, np.array([t])) for t in range(14)])]
    (empty,) = scorer.of_ids([(source, np.array([], int))])
    assert np.exp(first).sum() == pytest.approx(1, abs=1e-5)
    assert empty.log_probabilities == pytest.approx([first[2]], abs=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_the_tokens_sum_to_the_whole_and_the_score_divides_it(alpha):
    config = BeamConfig(length_penalty=alpha)
    for scored in Scorer(*untrained("transformer"), WORDS, WORDS, config)([("w1 w2", "w3 w4 w5"), ("w1", "")]):
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
