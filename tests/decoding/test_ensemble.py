"""The laws of ensembles: probabilities are the mean of the members', and a search does not know of them."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from zoo.data.batches.base import Seq2SeqBatch
from zoo.data.tokenizers import BOS, EOS
from zoo.decoding.beam import BeamConfig, Request, beam_search
from zoo.decoding.ensemble import Ensemble
from zoo.models import build

SMALL = {"source_vocabulary": 12, "target_vocabulary": 12, "width": 8}
OWN = {"rnnsearch": {"embedding": 8, "alignment": 8, "maxout": 8}, "cho": {"embedding": 8, "maxout": 8}}
SOURCE = np.array([[5, 6, 7, EOS, 0], [9, EOS, 0, 0, 0], [4, 11, 4, 8, EOS]], np.int32)
LIMITS = np.array([5, 4, 3])
CONFIG = BeamConfig(beam_size=2)


@pytest.fixture(scope="module")
def members():
    """Two models of different families and their parameters, drawn large, so that hypotheses differ."""
    made = []
    for seed, (name, own) in enumerate(OWN.items()):
        model, nothing = build(name, "tiny", **SMALL, **own), np.ones((1, 1), np.int32)
        batch = Seq2SeqBatch(nothing, nothing, nothing)
        params = nn.unbox(jax.jit(model.init)(jax.random.key(seed), batch))["params"]
        made.append((model, jax.tree.map(lambda x: 4 * x, params)))
    return made


def first_step(model, params):
    @jax.jit
    def step(params):
        cache = model.apply({"params": params}, SOURCE, 4, 2, method="prefill")
        return model.apply({"params": params}, cache, np.full((3, 2), BOS), method="decode_step")[1:]

    logits, attention = step(params)
    return np.asarray(jax.nn.softmax(logits)), np.asarray(logits), np.asarray(attention)


def test_probabilities_and_attention_are_the_means_of_the_members(members):
    mean, logits, attention = first_step(*Ensemble.of(*zip(*members, strict=True)))
    (one, _, here), (other, _, there) = (first_step(*member) for member in members)
    np.testing.assert_allclose(mean, (one + other) / 2, rtol=1e-5)
    np.testing.assert_allclose(np.exp(logits).sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(attention, (here + there) / 2, atol=1e-6)
    assert np.abs(one - other).max() > 0.01


def test_an_ensemble_of_a_model_with_itself_is_the_model(members):
    model, params = members[0]
    request = Request(SOURCE, LIMITS, 6)
    alone = beam_search(model, params, request, CONFIG, True)
    twice = beam_search(*Ensemble.of([model, model], [params, params]), request, CONFIG, True)
    assert (alone.tokens == twice.tokens).all()
    np.testing.assert_allclose(alone.scores, twice.scores, rtol=1e-4)
    np.testing.assert_allclose(alone.attention, twice.attention, atol=1e-5)


def test_the_batch_never_changes_a_rows_result(members):
    ensemble = Ensemble.of(*zip(*members, strict=True))
    together = beam_search(*ensemble, Request(SOURCE, LIMITS, 6), CONFIG)
    order = np.array([2, 0, 1])
    again = beam_search(*ensemble, Request(np.pad(SOURCE[order], ((0, 0), (0, 3))), LIMITS[order], 6), CONFIG)
    assert (np.asarray(together.tokens)[order] == again.tokens).all()
    np.testing.assert_allclose(np.asarray(together.scores)[order], again.scores, rtol=1e-4)
