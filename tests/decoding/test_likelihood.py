"""The laws of likelihood: what a token is scored by is the full forward pass over what stands before it."""

import logging

import jax
import numpy as np
import pytest
from flax import linen as nn

from zoo.data.batches.base import LanguageBatch
from zoo.data.batches.packing import HeldTokens, Rows, evaluation_rows
from zoo.data.specials import NOTHING
from zoo.data.tokenizers import BOS, EOS, Bytes
from zoo.decoding.likelihood import Likelihood, Span, windows
from zoo.errors import UserError
from zoo.models.gpt import GPT, GPTConfig
from zoo.tasks.losses import cross_entropy

CONTEXT = 16
MODEL = GPT(
    GPTConfig(
        vocabulary=Bytes().size,
        layers=1,
        width=16,
        ffn=32,
        heads=2,
        max_length=CONTEXT,
        dropout=0.0,
        attention_dropout=0.0,
        norm="pre",
        scan_layers=False,
    )
)
TEXT = "The window slides over a text, and each byte is predicted once."


@pytest.fixture(scope="module")
def params():
    """Never trained, at several times their size, so that predictions differ."""
    made = jax.jit(lambda: nn.unbox(MODEL.init(jax.random.key(0), LanguageBatch.example())))()["params"]
    return jax.tree.map(lambda x: 8 * x, made)


@pytest.fixture(scope="module")
def likelihood(params):
    return Likelihood(MODEL, params, Bytes(), CONTEXT, lambda blank: [BOS], batch_tokens=4 * CONTEXT)


@pytest.fixture(scope="module")
def naive(params):
    """The log-probability of the last of at most 17 ids behind the others, in double precision."""
    forward = jax.jit(lambda inputs: MODEL.apply({"params": params}, LanguageBatch(inputs, inputs)).logits)

    def of_last(ids):
        inputs = np.zeros((1, CONTEXT), np.int32)
        inputs[0, : len(ids) - 1] = ids[:-1]
        logits = np.asarray(forward(inputs)[0, len(ids) - 2], np.float64)
        return logits[ids[-1]] - np.log(np.exp(logits).sum()), logits.argmax() == ids[-1]

    return of_last


@pytest.mark.smoke
def test_a_continuation_is_scored_as_by_a_full_pass_over_each_beginning_whatever_is_beside_it(likelihood, naive):
    pairs = [("ab", "c"), ("", "abc"), ("long con", "text"), ("b", "cdefghijklmno"), ("é", "ß")]
    for (context, text), scored in zip(pairs, likelihood.continuations(pairs, ["x"] * 5), strict=True):
        before, whole = ([BOS, *Bytes().encode([part])[0]] for part in (context, context + text))
        expected = [naive(whole[: end + 1]) for end in range(len(before), len(whole))]
        np.testing.assert_allclose(scored.log_probabilities, [p for p, _ in expected], atol=1e-5)
        assert scored.most_likely.tolist() == [best for _, best in expected]
        assert scored.log_probability == pytest.approx(sum(p for p, _ in expected), abs=1e-4)


def test_the_most_likely_continuation_is_known_as_such(likelihood, naive):
    ids = [BOS, *Bytes().encode(["ab"])[0]]
    best = max(range(Bytes().size), key=lambda token: naive([*ids, token])[0])
    one, other = likelihood.spans([Span(np.array([*ids, token], np.int32), 1) for token in (best, best - 1)])
    assert (one.most_likely.tolist(), other.most_likely.tolist()) == ([True], [False])


@pytest.mark.parametrize("stride", [1, 3, 8])
def test_windows_score_every_id_but_the_first_once_and_from_enough_before_it(stride):
    for size in range(2, 40):
        ids = np.arange(size, dtype=np.int32)
        spans = list(windows(ids, 8, stride))
        assert np.concatenate([span.ids[len(span.ids) - span.scored :] for span in spans]).tolist() == [*range(1, size)]
        assert all(span.scored >= 1 and len(span.ids) <= 8 + 1 for span in spans)
        assert all(len(span.ids) - span.scored > 8 - stride for span in spans[1:])


@pytest.mark.parametrize("stride", [1, 5, CONTEXT])
def test_a_sliding_window_predicts_each_token_as_a_loop_would(likelihood, naive, stride):
    ids = [BOS, *Bytes().encode([TEXT])[0], EOS]
    expected, start = [], 0
    for place in range(1, len(ids)):
        if place - start > CONTEXT:
            start += stride
        expected.append(naive(ids[start : place + 1])[0])
    scored = np.concatenate([part.log_probabilities for part in likelihood.documents([TEXT], stride)])
    np.testing.assert_allclose(scored, expected, atol=1e-5)


def test_a_window_that_slides_by_its_length_predicts_what_the_packed_rows_do(likelihood, params):
    rows = Rows(HeldTokens([np.array(Bytes().encode([TEXT])[0], np.int32)]), CONTEXT, "segments")
    readout = jax.jit(lambda batch: MODEL.apply({"params": params}, batch).readout)
    packed = [
        cross_entropy(readout(batch), batch.labels, padding=NOTHING) for batch in evaluation_rows(rows, len(rows))
    ]
    parts = likelihood.documents([TEXT], CONTEXT)
    assert sum(len(part.log_probabilities) for part in parts) == sum(int(sums.tokens) for sums in packed)
    loss = sum(float(sums.loss) for sums in packed)
    assert -sum(part.log_probability for part in parts) == pytest.approx(loss, rel=1e-5)
    assert sum(part.most_likely.sum() for part in parts) == sum(int(sums.correct) for sums in packed)


def test_a_context_beyond_what_the_model_sees_loses_its_beginning_and_says_so(likelihood, naive, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("zoo"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="zoo"):
        (scored,) = likelihood.continuations([(TEXT, "!?")], ["x"])
    ids = Bytes().encode([f"{TEXT}!?"])[0][-CONTEXT - 1 :]
    np.testing.assert_allclose(scored.log_probabilities, [naive(ids[:-1])[0], naive(ids)[0]], atol=1e-5)
    assert "1 of 1 texts lose their beginning: the model sees 16 tokens" in caplog.text


@pytest.mark.parametrize(
    ("measure", "told"),
    [
        (lambda it: it.continuations([("a", "b"), ("a", "x" * 17)], ["f:1", "f:2"]), "f:2: 17 tokens.* sees 16"),
        (lambda it: it.continuations([("a", "")], ["f:1"]), "f:1: an empty text"),
        (lambda it: it.documents(["a"], 17), "stride=17: use 1 to 16"),
    ],
)
def test_what_cannot_be_scored_is_reported(likelihood, measure, told):
    with pytest.raises(UserError, match=told):
        measure(likelihood)
