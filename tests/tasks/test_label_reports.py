"""The laws of what stands beside a score: as scikit-learn counts, and intervals that hold what they say."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from zoo.tasks import metrics
from zoo.tasks.label_reports import Predictions, baselines, bootstrap, confusion, per_class, report, rows


@pytest.fixture
def labelled():
    random = np.random.default_rng(0)
    true = random.choice(3, 200, p=(0.6, 0.3, 0.1))
    predicted = np.where(random.random(200) < 0.5, true, random.integers(0, 2, 200))  # the last one is never guessed
    return predicted, true


def test_the_confusion_and_the_classes_are_those_of_scikit_learn(labelled):
    predicted, true = labelled
    table = confusion(predicted, true, 3)
    assert (table == sklearn_metrics.confusion_matrix(true, predicted)).all()
    expected = sklearn_metrics.precision_recall_fscore_support(true, predicted, zero_division=0)
    found = per_class(table)
    for name, column in zip(("precision", "recall", "f1", "examples"), expected, strict=True):
        np.testing.assert_allclose([each[name] for each in found], column)


@pytest.mark.parametrize("name", ["accuracy", "f1", "matthews"])
def test_baselines_are_what_constant_and_random_answers_score(name):
    random = np.random.default_rng(0)
    true = (random.random(2000) < 0.7).astype(int)
    found = baselines(name, true, 2)
    score = metrics.LABEL_SCORES[name]
    assert found["majority"] == score(np.ones_like(true), true)
    guessed = [score(random.integers(0, 2, 2000), true) for _ in range(200)]
    assert found["random"] == pytest.approx(np.mean(guessed), abs=0.01)


def test_an_interval_holds_the_true_score_as_often_as_it_says():
    """Classifiers that are right with probability 0.75 on 120 examples of two labels."""
    random, score = np.random.default_rng(1), metrics.accuracy

    def drawn(count):
        true = random.integers(0, 2, count)
        return np.where(random.random(count) < 0.75, true, 1 - true), true

    truth = score(*drawn(1_000_000))
    held = 0
    for seed in range(150):
        low, high = bootstrap(score, *drawn(120), seed=seed, draws=150)
        held += low <= truth <= high
    assert 0.89 <= held / 150 <= 0.985  # 0.95, within three standard deviations and the percentiles' own error


def test_what_has_no_label_is_left_out_of_scores_and_kept_in_rows():
    predictions = Predictions(
        ("a", "b"), np.array([0, 1, 1]), np.array([0, -1, 0]), np.array([[0.9, 0.1]] + [[0.2, 0.8]] * 2)
    )
    found = report(predictions, ("accuracy",))
    assert found["confusion"] == [[1, 1], [0, 0]]
    assert [line.split("\t") for line in rows(predictions).splitlines()[1:]] == [
        *(["0", "a", "a", "0.9000"], ["1", "b", "", "0.8000"], ["2", "b", "a", "0.8000"])
    ]
    assert report(Predictions(("a", "b"), np.array([0]), np.array([-1]), np.ones((1, 2))), ("accuracy",)) == {}


def test_values_are_written_within_the_bounds_of_stsb_for_glue():
    predictions = Predictions((), np.array([-0.5, 2.25, 6.0]), np.array([1.0, np.nan, 5.0]))
    assert [line.split("\t")[1] for line in rows(predictions, glue=True).splitlines()[1:]] == [
        "0.000",
        "2.250",
        "5.000",
    ]
    assert set(report(predictions, ("pearson",))) == {"intervals", "baselines"}
