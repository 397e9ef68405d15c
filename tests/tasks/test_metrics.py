"""The laws of scores: by length, every sentence in one bin and a bin's score that of its sentences; of labels, counted
by hand."""

from itertools import pairwise

import numpy as np
import pytest
from sacrebleu.metrics import BLEU

from zoo.errors import UserError
from zoo.tasks import metrics
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
    (short, long), signature = bleu_of_bins(samples, bins, "13a")
    assert short == pytest.approx(100)  # though no sentence of it has a 4-gram
    assert long == pytest.approx(BLEU().corpus_score(outputs[30:], [references[30:]]).score)
    effective = BLEU(effective_order=True)
    effective.corpus_score(outputs, [references])
    assert signature == str(effective.get_signature())


@pytest.mark.parametrize("code", ["zh", "zh-Hans", "zh_TW", "ZH", "zho", "cmn_Hans"])
def test_chinese_is_scored_by_its_own_characters_and_the_signature_says_so(code):
    samples = [("a dog runs across the grass", "一只狗跑过草地。", "一只狗跑在草地上。")] * 3
    scores = metrics.translation(samples, metrics.bleu_tokenizer(code))
    outputs, references = [o for *_, o in samples], [[r for _, r, _ in samples]]
    assert scores["bleu"] == BLEU(tokenize="zh").corpus_score(outputs, references).score > 10
    assert "tok:zh" in scores["bleu_signature"] and "tok:zh" in scores["bleu_lowercase_signature"]
    _, signature = bleu_of_bins(samples, length_bins([s for s, *_ in samples]), metrics.bleu_tokenizer(code))
    assert "tok:zh" in signature
    assert "tok:char" in metrics.translation(samples, metrics.bleu_tokenizer(code, "char"))["bleu_signature"]


def test_other_languages_are_scored_as_ever():
    assert {metrics.bleu_tokenizer(code) for code in ("de", "fr", "en-GB", "th", "xx", "")} == {"13a"}


@pytest.mark.parametrize(("code", "name"), [("ja", "ja-mecab"), ("jpn", "ja-mecab"), ("ko-KR", "ko-mecab")])
def test_a_tokenizer_that_lacks_its_package_is_reported_with_the_package(monkeypatch, code, name):
    class Lacking(BLEU):
        def __init__(self, tokenize):
            assert tokenize == name
            raise RuntimeError("no MeCab")

    monkeypatch.setattr("sacrebleu.metrics.BLEU", Lacking)
    with pytest.raises(UserError, match=rf"{name}: pip install 'sacrebleu\[{name[:2]}\]'.*bleu_tokenizer"):
        metrics.bleu_tokenizer(code)


def test_an_unknown_tokenizer_is_reported_with_the_known_ones():
    with pytest.raises(UserError, match=r"data\.bleu_tokenizer='13b'.*13a"):
        metrics.bleu_tokenizer("de", "13b")


PREDICTED, TRUE = np.array([1, 1, 0, 1, 0, 0, 0]), np.array([1, 0, 0, 1, 1, 0, 0])  # 2 found, 1 too many, 1 missed


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", 5 / 7),
        ("f1", 2 * 2 / (2 * 2 + 1 + 1)),
        ("matthews", (2 * 3 - 1 * 1) / (3 * 3 * 4 * 4) ** 0.5),
    ],
)
def test_scores_of_labels_counted_by_hand(name, expected):
    assert metrics.LABEL_SCORES[name](PREDICTED, TRUE) == pytest.approx(expected)


def test_pearson_measures_a_line_and_spearman_an_order():
    x, y = np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.0, 1.0, 8.0, 27.0])
    # Means 1.5 and 9: the products of the deviations add up to 44, their squares to 5 and 470.
    assert metrics.pearson(x, y) == pytest.approx(44 / (5 * 470) ** 0.5)
    assert metrics.spearman(x, y) == pytest.approx(1.0)
    assert metrics.spearman(x, -y) == pytest.approx(-1.0)


def test_where_one_label_is_always_said_there_is_no_correlation():
    assert [metrics.LABEL_SCORES[name](np.zeros(7), TRUE) for name in ("matthews", "pearson", "spearman", "f1")] == [
        0
    ] * 4


def test_matthews_of_three_labels_is_gorodkins_and_knows_no_order_of_them():
    true, predicted = np.array([0, 0, 1, 1, 2, 2, 2]), np.array([0, 1, 1, 1, 2, 0, 2])
    # 5 of 7 right; said 2, 3, 2 times, true 2, 2, 3 times.
    expected = (5 * 7 - (2 * 2 + 3 * 2 + 2 * 3)) / ((49 - 4 - 9 - 4) * (49 - 4 - 4 - 9)) ** 0.5
    assert metrics.matthews(predicted, true) == pytest.approx(expected)
    renamed = np.array([2, 0, 1])
    assert metrics.matthews(renamed[predicted], renamed[true]) == pytest.approx(expected)
    assert metrics.matthews(true, true) == pytest.approx(1)


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_predictions_that_are_not_a_number_have_no_correlation(name):
    predicted, true = np.array([0.1, np.nan, 0.3]), np.array([1.0, 2.0, 3.0])
    assert np.isnan(metrics.LABEL_SCORES[name](predicted, true))
