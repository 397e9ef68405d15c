"""The laws of the losses: the papers' formula, sums that add up over any split, and padding that weighs nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.models.base import Readout
from zoo.nn import fused_softmax
from zoo.tasks import losses
from zoo.tasks.losses import Sums, cross_entropy, total

B, T, V, E = 6, 4, 11, 8


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng((seed, *shape)).normal(size=shape), jnp.float32)


def readout_of(contract=0, bias=True, dtype=jnp.float32):
    matrix = normal(*((E, V) if contract == 0 else (V, E)))
    return Readout(normal(B, T, E), matrix, 3 * normal(V) if bias else None, contract, dtype)


LABELS = np.where(np.arange(T) < T - np.arange(B)[:, None], np.random.default_rng(1).integers(1, V, (B, T)), 0).astype(
    np.int32
)  # rows of 4, 3, ... tokens, and padding
REAL = LABELS != 0

kinds = pytest.mark.parametrize(("contract", "bias"), [(0, True), (0, False), (1, True), (1, False)])
smoothings = pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5, 1.0])


parts = pytest.mark.parametrize(
    "chunk", [1, 2 * B * V, 10**6], ids=["a column at a time", "two columns", "all at once"]
)


def by_numpy(readout, smoothing):
    """Cross-entropy with the target `(1 - ε)·onehot + ε/V` (Szegedy et al. 2016, section 7), in float64.

    Gives the sum and its gradients with respect to the states, the matrix and the bias.
    """
    states, matrix = (np.asarray(x, np.float64) for x in (readout.states, readout.matrix))
    matrix = matrix if readout.contract == 0 else matrix.T
    logits = states @ matrix + (0 if readout.bias is None else np.asarray(readout.bias, np.float64))
    log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    target = (1 - smoothing) * np.eye(V)[LABELS] + smoothing / V
    errors = (np.exp(log_probs) - target) * REAL[..., None]
    to_matrix = np.einsum("bte,btv->ev", states, errors)
    to_matrix = to_matrix if readout.contract == 0 else to_matrix.T
    return -(target * log_probs * REAL[..., None]).sum(), errors @ matrix.T, to_matrix, errors.sum(axis=(0, 1))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_kernel_gives_the_sums_and_gradients_of_the_plain_form(monkeypatch, smoothing):
    """From rows in one block and a part of another."""
    monkeypatch.setattr(fused_softmax, "BLOCK", 8)

    def outcome(device):
        monkeypatch.setattr(losses, "platform", lambda: device)
        readout = readout_of().replace(bias=100 * normal(V), excluded=(3,))  # as far apart as exp can tell, and one out
        labels = jnp.where(LABELS == 3, 4, LABELS)
        gradient = jax.grad(lambda r: cross_entropy(r, labels, smoothing).objective)(readout)
        return gradient, cross_entropy(readout, labels, smoothing)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), outcome("gpu"), outcome("cpu"))


@kinds
@smoothings
def test_the_objective_is_the_smoothed_cross_entropy(contract, bias, smoothing):
    readout = readout_of(contract, bias)
    sums = cross_entropy(readout, LABELS, smoothing)
    assert sums.objective == pytest.approx(by_numpy(readout, smoothing)[0], rel=1e-5)
    assert sums.loss == pytest.approx(by_numpy(readout, 0.0)[0], rel=1e-5)


@kinds
@pytest.mark.parametrize("device", ["cpu", "gpu"])
@parts
def test_its_value_and_gradient_are_those_of_the_formula_in_any_parts(monkeypatch, contract, bias, chunk, device):
    monkeypatch.setattr(losses, "CHUNK", {device: chunk})
    monkeypatch.setattr(losses, "TOKENS_OF_A_UNIT", {})
    monkeypatch.setattr(losses, "platform", lambda: device)
    readout = readout_of(contract, bias)
    value, gradient = jax.value_and_grad(lambda r: cross_entropy(r, LABELS, 0.1).objective)(readout)
    expected, *gradients = by_numpy(readout, 0.1)
    assert value == pytest.approx(expected, rel=1e-5)
    sums = cross_entropy(readout, LABELS, 0.1)
    assert sums.objective == pytest.approx(expected, rel=1e-5)
    assert sums.sentences == REAL.any(axis=1).sum()  # a sentence in two parts is one
    for ours, theirs in zip((gradient.states, gradient.matrix, gradient.bias), gradients, strict=True):
        if ours is not None:
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert (gradient.bias is not None) == bias


@pytest.mark.parametrize(
    ("shape", "vocabulary", "width", "columns"),
    [((2, 512), 40_478, 768, 512), ((2048, 512), 40_478, 768, 1), ((16, 256), 8192, 384, 32)],
)
def test_a_part_on_a_cpu_is_worth_its_pass_over_the_gradient_of_the_matrix(shape, vocabulary, width, columns):
    assert losses._columns(shape, vocabulary, width) == columns


@pytest.mark.parametrize("contract", [0, 1])
def test_bfloat16_is_close_and_its_gradients_keep_their_dtypes(contract):
    readout = readout_of(contract, dtype=jnp.bfloat16)
    value, gradient = jax.value_and_grad(lambda r: cross_entropy(r, LABELS, 0.1).objective)(readout)
    expected, *gradients = by_numpy(readout, 0.1)
    assert value == pytest.approx(expected, rel=0.01)
    for ours, theirs in zip((gradient.states, gradient.matrix, gradient.bias), gradients, strict=True):
        assert ours.dtype == jnp.float32
        assert np.abs(ours - theirs).max() < 0.03 * np.abs(theirs).max()


def test_without_smoothing_the_objective_is_the_loss():
    sums = cross_entropy(readout_of(), LABELS)
    assert sums.objective == sums.loss


def test_large_logits_stay_finite():
    readout = readout_of().replace(bias=1e4 * normal(V))
    sums, gradient = jax.value_and_grad(lambda r: cross_entropy(r, LABELS, 0.1).objective)(readout)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((sums, gradient)))


@pytest.mark.smoke
def test_right_predictions_tokens_and_sentences_are_counted():
    readout = readout_of()
    sums = cross_entropy(readout, LABELS)
    assert sums.tokens == REAL.sum()
    assert sums.sentences == REAL.any(axis=1).sum() == T < B
    assert 0 < sums.correct == (np.asarray(readout.logits()).argmax(axis=-1) == LABELS)[REAL].sum()


def test_of_equal_logits_the_first_is_the_prediction():
    """As greedy decoding has it: a model that says nothing is right only where the label is the first token."""
    silent = Readout(jnp.zeros((B, T, E)), jnp.zeros((E, V)), None, 0, jnp.float32)
    assert cross_entropy(silent, LABELS).correct == 0
    labels = np.where(np.arange(T) % 2, LABELS, 0)
    assert cross_entropy(silent, labels, padding=-1).correct == (labels == 0).sum()
    pair = silent.replace(bias=jnp.zeros(V).at[jnp.array([3, 5])].set(2.0))
    assert cross_entropy(pair, np.tile([3, 5, 5, 3], (B, 1))).correct == 2 * B


@pytest.mark.parametrize("cuts", [(3,), (1, 2, 5)])
def test_sums_add_up_over_any_split_of_a_batch(cuts):
    readout = readout_of()
    states, labels = np.split(readout.states, cuts), np.split(LABELS, cuts)
    parts = [cross_entropy(readout.replace(states=s), y, 0.1) for s, y in zip(states, labels, strict=True)]
    whole = cross_entropy(readout, LABELS, 0.1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), sum(parts[1:], parts[0]), whole)


def test_padding_weighs_nothing():
    readout = readout_of()
    noise = readout.replace(states=jnp.where(REAL[..., None], readout.states, 50 * normal(B, T, E, seed=2)))
    one, other = (cross_entropy(r, LABELS, 0.1) for r in (readout, noise))
    assert jax.tree.map(float, one) == jax.tree.map(float, other)
    to_states = jax.grad(lambda r: cross_entropy(r, LABELS, 0.1).objective)(noise).states
    assert ((np.abs(to_states).sum(axis=-1) > 0) == REAL).all()


def test_another_padding_id_can_be_named():
    readout = readout_of()
    assert cross_entropy(readout, np.where(REAL, LABELS, -1), padding=-1) == cross_entropy(readout, LABELS)


def test_means_are_sums_by_tokens_and_nothing_has_none():
    means = Sums(*(np.float32(x) for x in (9, 6, 2, 4, 3))).means()
    assert means == pytest.approx({"loss": 1.5, "perplexity": np.exp(1.5), "accuracy": 0.5})
    nothing = Sums.zero().means()
    assert nothing == {"loss": 0.0, "perplexity": 1.0, "accuracy": 0.0}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_excluded_rows_are_as_if_the_vocabulary_did_not_have_them(smoothing):
    labels, kept = np.where(LABELS, np.maximum(LABELS, 3), 0), np.r_[0, 3:V]
    whole = readout_of().replace(excluded=(1, 2))
    part = whole.replace(matrix=whole.matrix[:, kept], bias=whole.bias[kept], excluded=())
    sums = [
        jax.value_and_grad(lambda r, y=y: cross_entropy(r, y, smoothing).objective)(r)
        for r, y in ((whole, labels), (part, np.where(labels, labels - 2, 0)))
    ]
    (value, gradient), (expected, its) = sums
    assert np.isclose(value, expected, rtol=1e-6)
    assert np.allclose(gradient.states, its.states, atol=1e-5)
    assert np.allclose(gradient.matrix[:, kept], its.matrix, atol=1e-5) and not gradient.matrix[:, [1, 2]].any()


def test_a_total_is_the_sum_and_waits_before_too_many_batches_are_queued(monkeypatch):
    """Some 3,000 queued programs of eight simulated devices waited for each other for ever."""
    queued, most = 0, 0
    each = [Sums(*jnp.float32([n, n / 3, n / 7, 1, 1])) for n in range(30)]

    def computed():
        nonlocal queued, most
        for one in each:
            queued += 1
            most = max(most, queued)
            yield one

    def wait(found):
        nonlocal queued
        queued = 0
        return found

    monkeypatch.setattr(losses.jax, "block_until_ready", wait)
    assert jax.tree.map(float, total(computed())) == jax.tree.map(float, sum(each[1:], start=each[0]))
    assert most == losses.QUEUED
    assert jax.tree.map(float, total(iter(()))) == jax.tree.map(float, Sums.zero())
