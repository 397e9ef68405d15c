"""The laws of the losses: the papers' formula, sums that add up over any split, and padding that weighs nothing."""

import jax
import numpy as np
import pytest

from zoo.tasks.losses import Sums, cross_entropy

B, T, V = 6, 5, 11


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def logits():
    return 3 * normal(B, T, V)


@pytest.fixture(scope="module")
def labels():
    """Rows of 5, 4, ... 0 tokens, and padding."""
    drawn = np.random.default_rng(1).integers(1, V, (B, T))
    return np.where(np.arange(T) < T - np.arange(B)[:, None], drawn, 0).astype(np.int32)


def by_numpy(logits, labels, smoothing):
    """Cross-entropy with the target `(1 - ε)·onehot + ε/V` (Szegedy et al. 2016, section 7), token by token."""
    total = 0.0
    for b, t in np.argwhere(labels != 0):
        row = logits[b, t].astype(np.float64)
        log_probs = row - row.max() - np.log(np.exp(row - row.max()).sum())
        target = np.full(V, smoothing / V)
        target[labels[b, t]] += 1 - smoothing
        total -= target @ log_probs
    return total


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_the_objective_is_the_smoothed_cross_entropy(logits, labels, smoothing, offset):
    sums = cross_entropy(logits + np.float32(offset), labels, smoothing)
    assert sums.objective == pytest.approx(by_numpy(logits, labels, smoothing), rel=1e-5)
    assert sums.loss == pytest.approx(by_numpy(logits, labels, 0.0), rel=1e-5)


def test_without_smoothing_the_objective_is_the_loss(logits, labels):
    sums = cross_entropy(logits, labels)
    assert sums.objective == sums.loss


def test_right_predictions_and_tokens_are_counted(logits, labels):
    sums = cross_entropy(logits, labels)
    real = labels != 0
    assert sums.tokens == real.sum()
    assert sums.correct == (logits.argmax(axis=-1) == labels)[real].sum()


@pytest.mark.parametrize("cuts", [(3,), (1, 2, 5), (2, 2, 4), range(1, B)])
def test_sums_add_up_over_any_split_of_a_batch(logits, labels, cuts):
    whole = cross_entropy(logits, labels, 0.1)
    parts = [
        cross_entropy(x, y, 0.1) for x, y in zip(np.split(logits, cuts), np.split(labels, cuts), strict=True) if len(x)
    ]
    together = sum(parts[1:], parts[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), together, whole)


def test_padding_weighs_nothing(logits, labels):
    noise = np.where((labels != 0)[..., None], logits, 50 * normal(B, T, V, seed=2))
    one, other = cross_entropy(logits, labels, 0.1), cross_entropy(noise, labels, 0.1)
    assert all(a == b for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))
    gradient = jax.grad(lambda x: cross_entropy(x, labels, 0.1).objective)(noise)
    assert (np.asarray(gradient)[labels == 0] == 0).all()
    assert (np.abs(np.asarray(gradient)[labels != 0]).sum(axis=-1) > 0).all()


def test_another_padding_id_can_be_named(logits, labels):
    moved = np.where(labels == 0, -1, labels)
    assert cross_entropy(logits, moved, padding=-1).loss == cross_entropy(logits, labels).loss


def test_the_gradient_is_that_of_the_formula(logits, labels):
    gradient = jax.grad(lambda x: cross_entropy(x, labels, 0.1).objective)(logits)
    probabilities = np.exp(logits.astype(np.float64))
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    target = 0.9 * np.eye(V)[labels] + 0.1 / V
    expected = np.where((labels != 0)[..., None], probabilities - target, 0)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_means_are_sums_by_tokens_and_nothing_has_none():
    means = Sums(*(np.float32(x) for x in (9, 6, 2, 4))).means()
    assert means == pytest.approx({"loss": 1.5, "perplexity": np.exp(1.5), "accuracy": 0.5})
    nothing = Sums(*(np.float32(0) for _ in range(4))).means()
    assert nothing == {"loss": 0.0, "perplexity": 1.0, "accuracy": 0.0}
