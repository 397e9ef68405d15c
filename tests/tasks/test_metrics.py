"""The laws of scores by length: every sentence in one bin, and a bin's score that of its sentences."""

from itertools import pairwise

import pytest
from sacrebleu.metrics import BLEU

from zoo.tasks.metrics import BINS, LEAST_SENTENCES, bleu_of_bins, length_bins


def sources(lengths):
    return [" ".join("w" * length) for length in lengths]


@pytest.mark.parametrize(
    "lengths",
    [[5], [3] * 50, [*range(1, 31)] * 4, [1] * 100 + [200], [1] + [9] * 100 + [10] * 19, [0] * 20 + [7] * 20],
)
def test_every_sentence_is_in_the_one_bin_of_its_length_and_no_bin_is_too_small(lengths):
    bins = length_bins(sources(lengths))
    assert sorted(i for b in bins for i in b.sentences) == list(range(len(lengths)))
    assert all(b.first <= lengths[i] <= b.last for b in bins for i in b.sentences)
    assert all(one.last < other.first for one, other in pairwise(bins))
    assert len(bins) == 1 or all(len(b.sentences) >= LEAST_SENTENCES for b in bins)
    assert len(bins) <= BINS


def test_a_bin_is_scored_by_its_own_sentences_alone():
    lengths = [2] * 30 + [12] * 30
    outputs = ["x y"] * 30 + ["a b c d e f g h i j k l"] * 30
    references = ["x y"] * 30 + ["a b c d e f g h z z z z"] * 30
    samples = list(zip(sources(lengths), references, outputs, strict=True))
    bins = length_bins(sources(lengths))
    (short, long), signature = bleu_of_bins(samples, bins)
    assert short == pytest.approx(100)  # though no sentence of it has a 4-gram
    assert long == pytest.approx(BLEU().corpus_score(outputs[30:], [references[30:]]).score)
    assert "eff:yes" in signature
