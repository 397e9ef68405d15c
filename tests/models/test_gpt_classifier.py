"""The laws of the classifier: GPT's own parameters as its body, and scores that no padding or batch changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from zoo.data.batches.base import LabelledBatch, LanguageBatch
from zoo.data.batches.labelled import StoredExamples
from zoo.data.examples.labelled import Example
from zoo.data.tokenizers import Bytes
from zoo.models.gpt import GPT, GPTConfig
from zoo.models.gpt_classifier import GPTClassifier, GPTClassifierConfig, like_pretrained

SIZE = {"layers": 1, "width": 8, "ffn": 16, "heads": 2, "max_length": 40, "scan_layers": False}
TEXTS = [Example("aé b", ("cd", "efg", "h")), Example("one more", ("x", "y z", "longer")), Example("", ("u", "v", "w"))]


def batch_of(kind, rows=(0, 1, 2), length=40, examples=TEXTS):
    stored = StoredExamples(examples, np.zeros(len(examples), np.int32), kind, Bytes(), 40, "texts")
    return stored.take(list(rows), len(rows), length)


@pytest.fixture(scope="module")
def model_and_params():
    model = GPTClassifier(GPTClassifierConfig(vocabulary=263, outputs=1, **SIZE))
    params = jax.jit(lambda: nn.unbox(model.init(jax.random.key(0), LabelledBatch.example())))()["params"]
    return model, jax.tree.map(lambda x: 20 * x if x.ndim > 1 else x, params)


@pytest.fixture(scope="module")
def scores_of(model_and_params):
    model, params = model_and_params
    apply = jax.jit(lambda batch: model.apply({"params": params}, batch).scores)
    return lambda *args, **kwargs: np.asarray(apply(batch_of(*args, **kwargs)))


def test_neither_padding_nor_the_batch_changes_a_score(scores_of):
    together = scores_of("multiple_choice")
    assert together.shape == (3, 3)
    assert np.ptp(together) > 0.1
    np.testing.assert_allclose(scores_of("multiple_choice", length=24), together, atol=1e-5)
    np.testing.assert_allclose(scores_of("multiple_choice", rows=(2, 0, 1)), together[[2, 0, 1]], atol=1e-5)
    np.testing.assert_allclose(scores_of("multiple_choice", rows=(1,)), together[[1]], atol=1e-5)


def test_answers_that_change_places_take_their_scores_along(scores_of):
    turned = [Example(e.first, (e.seconds[2], e.seconds[0], e.seconds[1])) for e in TEXTS]
    expected = scores_of("multiple_choice")[:, [2, 0, 1]]
    np.testing.assert_allclose(scores_of("multiple_choice", examples=turned), expected, atol=1e-5)


def test_similarity_has_no_order_and_entailment_has(scores_of):
    turned = [Example(e.seconds[0], (e.first,)) for e in TEXTS]
    one, other = scores_of("similarity"), scores_of("similarity", examples=turned)
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.abs(scores_of("entailment") - scores_of("entailment", examples=turned)).max() > 0.1


def test_the_body_is_gpt_itself(model_and_params):
    model, params = model_and_params
    batch = batch_of("entailment")
    inputs, labels = (x.reshape(-1, 40) for x in (batch.inputs, batch.labels))
    gpt = GPT(GPTConfig(vocabulary=263, **SIZE))
    states = jax.jit(gpt.apply)({"params": params["body"]}, LanguageBatch(inputs, labels)).readout.states
    ends = batch.ends.reshape(-1)
    expected = states[np.arange(3), ends] @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(jax.jit(model.apply)({"params": params}, batch).scores, expected, atol=1e-4)


def test_a_pretrained_body_lacks_the_rows_of_the_three_added_tokens(model_and_params):
    _, params = model_and_params
    gpt = GPT(GPTConfig(vocabulary=260, **SIZE))
    body = jax.jit(lambda: nn.unbox(gpt.init(jax.random.key(7), LanguageBatch.example())))()["params"]
    assert jax.tree.map(jnp.shape, like_pretrained(params)) == jax.tree.map(jnp.shape, body)
