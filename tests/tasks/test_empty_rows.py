"""The laws of rows that hold nothing, which fill a batch up: every query has a key, and no other row takes notice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import zoo.nn.attention
from zoo.data.batches.base import LabelledBatch, LanguageBatch, Seq2SeqBatch
from zoo.data.batches.buckets import padded
from zoo.data.batches.packing import HeldTokens, Rows, evaluation_rows
from zoo.data.specials import NOTHING
from zoo.models import build
from zoo.tasks.label_losses import fine_tuning_loss
from zoo.tasks.losses import cross_entropy

LENGTH = 8
RANDOM = np.random.default_rng(0)
ATTENTION = {"layers": 1, "width": 16, "ffn": 16, "heads": 2, "scan_layers": False, "attention_dropout": 0.2}
RECURRENT = {"width": 8, "embedding": 8, "dropout": 0.0}
GPT = {"size": "gpt1", "vocabulary": 16, "max_length": 64} | ATTENTION
TRANSLATOR = {"size": "tiny", "source_vocabulary": 16, "target_vocabulary": 16}
FAMILIES = {
    "transformer": TRANSLATOR | ATTENTION,
    "rnnsearch": TRANSLATOR | RECURRENT | {"alignment": 8, "maxout": 8},
    "cho": TRANSLATOR | RECURRENT | {"maxout": 8},
    "seq2seq": TRANSLATOR | RECURRENT,
    "gpt": GPT,
    "gpt_classifier": GPT,
}


def pairs(count, length):
    """Of 1 to `length - 1` tokens a side."""
    return [tuple(RANDOM.integers(4, 16, n) for n in RANDOM.integers(1, length, 2)) for _ in range(count)]


PAIRS, OTHERS = pairs(2, LENGTH), pairs(2, LENGTH)


def batch_of(name, others):
    """Two rows, and two that predict nothing: they are the pairs `others`, or hold nothing at all, as the rows do that
    the task of this model fills its batches up with."""
    batch, labelled = padded([*PAIRS, *others], 4, LENGTH), np.arange(4) < 2
    inputs, labels = batch.inputs, np.where(labelled[:, None] & (batch.labels > 0), batch.labels, 0)
    if not name.startswith("gpt"):
        return Seq2SeqBatch(batch.source, inputs, labels)
    labels = np.where(labels > 0, labels, NOTHING)
    if name == "gpt":
        places = np.broadcast_to(np.arange(LENGTH), inputs.shape)
        return LanguageBatch(inputs, labels, (inputs > 0).astype(np.int32), places)
    ends = np.maximum((inputs > 0).sum(axis=1) - 1, 0)
    sequences = (x[:, None, None] for x in (inputs, labels, ends))
    return LabelledBatch(*sequences, np.array([0, 1, 0, 0], np.int32), labelled)


def objective(model, params, batch):
    output = model.apply({"params": params}, batch, train=True, rngs={"dropout": jax.random.key(1)})
    if isinstance(batch, LabelledBatch):
        return fine_tuning_loss(output, batch, False, 0.0, 0.5).objective
    return cross_entropy(
        output.readout, batch.labels, 0.1, NOTHING if isinstance(batch, LanguageBatch) else 0
    ).objective


def shaped(name, **changes):
    """A model, and the shapes of its parameters."""
    model = build(name, **(FAMILIES[name] | changes))
    return model, nn.unbox(jax.eval_shape(model.init, jax.random.key(0), batch_of(name, [])))["params"]


def wild(name, **changes):
    """A model with parameters drawn at random, and these."""
    model, shapes = shaped(name, **changes)
    return model, jax.tree.map(lambda x: jnp.asarray(RANDOM.normal(size=x.shape), x.dtype) * 0.3, shapes)


REST = [("transformer", "blockwise"), ("transformer", "triton"), *((name, "") for name in [*FAMILIES][1:])]


@pytest.mark.parametrize(
    ("name", "backend"), [("transformer", ""), *(pytest.param(*case, marks=pytest.mark.slow) for case in REST)]
)
def test_a_row_without_labels_is_the_same_as_one_that_holds_nothing(name, backend):
    model, params = wild(name, **({"attention_backend": backend} if backend else {}))
    gradient = jax.jit(jax.value_and_grad(lambda params, batch: objective(model, params, batch)))
    some, none = (gradient(params, batch_of(name, others)) for others in (OTHERS, []))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(none))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), some, none)


def masks_of(name, batch, monkeypatch):
    """The tables of who may look at whom, of every attention in a forward pass. Nothing else of it is computed."""
    attend, (model, params) = zoo.nn.attention.attend, shaped(name)

    def tables(batch):
        seen = []

        def spy(query, key, value, mask, *others):
            seen.append(mask.dense(query.shape[1], key.shape[1]))
            return attend(query, key, value, mask, *others)

        with monkeypatch.context() as patch:
            patch.setattr(zoo.nn.attention, "attend", spy)
            model.apply({"params": zeros(params)}, batch)
        return seen

    return jax.jit(tables)(batch)


def zeros(shapes):
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def of_translation():
    """What the last batch of an epoch looks like: 47 pairs, and 17 rows that hold nothing."""
    return padded(pairs(47, 32), 64, 32)


def of_language_modeling(packing):
    rows = Rows(HeldTokens([RANDOM.integers(4, 16, n) for n in (5, 1, 30, 2)]), 16, packing)
    return list(evaluation_rows(rows, 2))[-1]


@pytest.mark.parametrize(
    ("name", "batch", "attentions"),
    [
        ("transformer", of_translation(), 3),
        ("gpt", of_language_modeling("segments"), 1),
        ("gpt", of_language_modeling("stream"), 1),
        ("gpt_classifier", batch_of("gpt_classifier", []), 1),
    ],
    ids=["translation", "documents", "stream", "classification"],
)
def test_no_query_is_without_a_key(name, batch, attentions, monkeypatch):
    seen = masks_of(name, batch, monkeypatch)
    assert len(seen) == attentions
    assert all(table.any(axis=-1).all() for table in seen)


@pytest.mark.parametrize(("name", "method"), [("rnnsearch", "encode"), ("transformer", "prefill")])
def test_no_step_of_decoding_is_without_a_key(name, method):
    model, params = shaped(name)

    @jax.jit
    def seen(source):
        arguments = (4,) if method == "prefill" else ()
        found = model.apply({"params": zeros(params)}, source, *arguments, method=method)
        return found.source_seen if method == "prefill" else found[0].aligned.seen

    assert seen(of_translation().source).any(axis=-1).all()
