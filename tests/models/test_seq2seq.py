"""The laws of the models of 2014, and what is Sutskever's and Cho's own."""

from functools import lru_cache, partial

import equations_2014 as paper
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from zoo.data.batches.base import Seq2SeqBatch
from zoo.decoding.beam import BeamConfig, Request, beam_search
from zoo.errors import UserError
from zoo.models import build
from zoo.models.registry import FAMILIES
from zoo.models.seq2seq import reversed_words
from zoo.parallel.rules import parameter_count
from zoo.tasks.losses import cross_entropy

EOS = paper.EOS
SMALL = {"source_vocabulary": 13, "target_vocabulary": 11, "width": 6, "embedding": 5, "dropout": 0.0}
OWN = {
    "seq2seq": {"layers": 2},
    "cho": {"maxout": 4, "rank": 3},
    "rnnsearch": {"maxout": 4, "alignment": 7},
}
EQUATIONS = {"seq2seq": paper.seq2seq, "cho": paper.cho, "rnnsearch": paper.rnnsearch}
models = pytest.mark.parametrize("name", OWN)

SOURCES = [[5, 3, 9, 7, EOS], [4, 8, EOS], [6, EOS]]
INPUTS = [[1, 6, 4], [1, 9, 3, 8], [1, 5]]
LABELS = [9, 3, 8, EOS]


def padded(rows, length):
    return np.array([row + [0] * (length - len(row)) for row in rows], np.int32)


def batch(extra=0):
    inputs = padded(INPUTS, 4 + extra)
    return Seq2SeqBatch(padded(SOURCES, 5 + extra), inputs, np.where(inputs > 0, 3, 0))


@lru_cache
def built(name, **changes):
    """A model and parameters large enough that nothing is nearly linear."""
    model = build(name, "tiny", **(SMALL | OWN[name] | changes))
    shapes = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), batch()))["params"]
    random = np.random.default_rng(0)
    return model, jax.tree.map(lambda s: jnp.asarray(random.normal(size=s.shape) * 0.6, jnp.float32), shapes)


@partial(jax.jit, static_argnames=("model", "method", "length", "beams", "weights", "train"))
def applied(model, params, *given, **options):
    return model.apply({"params": params}, *given, **options)


@models
def test_the_model_is_the_equations_of_its_paper_padding_or_not(name):
    model, params = built(name)
    output = applied(model, params, batch(extra=2), weights=True)
    for row, (source, inputs) in enumerate(zip(SOURCES, INPUTS, strict=True)):
        logits, weights = EQUATIONS[name](paper.doubles(params), source, inputs)
        np.testing.assert_allclose(output.logits[row, : len(inputs)], logits, atol=1e-5)
        if weights is not None:
            cross = output.attention["cross"]
            assert cross.shape == (1, 3, 1, 6, 7)
            np.testing.assert_allclose(cross[0, row, 0, : len(inputs), : len(source)], weights, atol=1e-5)
            assert np.all(cross[0, row, 0, :, len(source) :] == 0)
        else:
            assert output.attention == {}


@models
def test_its_gradient_is_that_of_the_equations(name):
    model, params = built(name)
    one = Seq2SeqBatch(*(np.array([row], np.int32) for row in (SOURCES[1], INPUTS[1], LABELS)))

    def loss(params):
        return cross_entropy(model.apply({"params": params}, one).readout, one.labels).objective

    def by_hand(params):
        logits, _ = EQUATIONS[name](params, SOURCES[1], INPUTS[1])
        return -sum(np.log(paper.softmax(row)[label]) for row, label in zip(logits, LABELS, strict=True))

    paper.assert_gradient(by_hand, params, jax.jit(jax.grad(loss))(params))


def stepped(name, length, parents):
    """The logits of every step of two hypotheses, reordered by `parents` after each, and their histories."""
    model, params = built(name)
    source = padded(SOURCES, 5)
    cache = applied(model, params, source, length=length, beams=2, method="prefill")
    histories = np.zeros((3, 2, 0), np.int32)
    random, logits = np.random.default_rng(1), []
    for _ in range(length):
        tokens = random.integers(3, 11, (3, 2)).astype(np.int32)
        cache, step, looked = applied(model, params, cache, tokens, method="decode_step")
        np.testing.assert_allclose(looked.sum(axis=-1), 1, atol=1e-6)
        assert np.all(np.where(source[:, None] == 0, looked, 0) == 0)
        histories = np.concatenate([histories, tokens[:, :, None]], axis=2)
        logits.append((histories, step))
        cache = applied(model, params, cache, parents, method="reorder")
        histories = np.take_along_axis(histories, parents[:, :, None], axis=1)
    return logits


@pytest.mark.parametrize("parents", [[[0, 1]] * 3, [[1, 0], [0, 0], [1, 1]]], ids=["kept", "reordered"])
@models
def test_decoding_step_by_step_is_the_full_pass_over_each_hypothesis(name, parents):
    model, params = built(name)
    for histories, step in stepped(name, 4, np.array(parents)):
        for beam in range(2):
            # Padded to one shape, so that there is one program.
            inputs = np.pad(histories[:, beam], ((0, 0), (0, 4 - histories.shape[-1])))
            whole = Seq2SeqBatch(padded(SOURCES, 5), inputs, inputs)
            logits = applied(model, params, whole).logits[:, histories.shape[-1] - 1]
            np.testing.assert_allclose(step[:, beam], logits, atol=1e-5)


@models
def test_the_source_is_held_once_for_all_hypotheses(name):
    model, params = built(name)
    source = padded(SOURCES, 5)
    sizes = [
        parameter_count(jax.eval_shape(lambda k=k: model.apply({"params": params}, source, 9, k, method="prefill")))
        for k in (1, 2, 3)
    ]
    states = {"seq2seq": 4, "cho": 1, "rnnsearch": 1}[name] * 3 * SMALL["width"]
    assert sizes[1] - sizes[0] == sizes[2] - sizes[1] == states


def greedily(model, params, source, length):
    tokens = [paper.BOS]
    while tokens[-1] != EOS:
        inputs = padded([tokens], length)
        logits = applied(model, params, Seq2SeqBatch(source, inputs, inputs)).logits[0, len(tokens) - 1]
        allowed = np.array(logits)
        allowed[[paper.PAD, paper.BOS]] = -np.inf
        tokens.append(EOS if len(tokens) == length else int(allowed.argmax()))
    return tokens[1:]


@models
def test_a_beam_of_one_is_greedy_search_and_one_of_every_word_is_no_worse(name):
    model, params = built(name)
    source = padded(SOURCES, 5)
    request = Request(source, np.full(3, 3, np.int32), 4)
    one, all_words = (
        beam_search(model, params, request, BeamConfig(beam_size=k, length_penalty=0.0), True) for k in (1, 9)
    )
    for row in range(3):
        expected = greedily(model, params, source[row : row + 1], 4)
        assert one.tokens[row, 0, : len(expected)].tolist() == expected
    assert np.all(all_words.scores[:, 0] >= one.scores[:, 0] - 1e-5)


@models
def test_bfloat16_is_close_to_float32_and_ends_in_float32(name):
    model, params = built(name)
    params = jax.tree.map(lambda leaf: leaf / 3, params)
    low = build(name, "tiny", **(SMALL | OWN[name]), dtype="bfloat16")

    @partial(jax.jit, static_argnames="model")
    def logits_and_gradient(model, params):
        def loss(params):
            output = model.apply({"params": params}, batch())
            return cross_entropy(output.readout, batch().labels).objective, output.logits

        return jax.grad(loss, has_aux=True)(params)

    (gradient, one), (low_gradient, other) = (logits_and_gradient(m, params) for m in (model, low))
    assert other.dtype == jnp.float32
    np.testing.assert_allclose(one, other, atol=0.03)
    for g, low_g in zip(jax.tree.leaves(gradient), jax.tree.leaves(low_gradient), strict=True):
        assert low_g.dtype == jnp.float32
        np.testing.assert_allclose(low_g, g, atol=0.05 * max(1.0, float(jnp.abs(g).max())))


@models
def test_dropout_acts_in_training_only_and_by_its_key(name):
    _, params = built(name)
    model = build(name, "tiny", **(SMALL | OWN[name] | {"dropout": 0.5}))

    def logits(key):
        return applied(model, params, batch(), train=True, rngs={"dropout": jax.random.key(key)}).logits

    np.testing.assert_array_equal(logits(1), logits(1))
    assert not np.allclose(logits(1), logits(2))
    still = applied(built(name)[0], params, batch()).logits
    np.testing.assert_array_equal(applied(model, params, batch()).logits, still)


def born(name, size):
    model = build(name, size)
    return nn.unbox(jax.eval_shape(model.init, jax.random.key(0), batch()))["params"]


def test_sutskever_2014_has_the_384_million_parameters_of_section_3_4():
    params = born("seq2seq", "sutskever2014")
    embeddings_and_softmax = (160_000 + 80_000 + 80_000) * 1000
    one_lstm = 4 * (4 * 1000 * (1000 + 1000))
    assert one_lstm == 32_000_000  # "64M are pure recurrent connections": 32M for each LSTM
    biases = 2 * 4 * 4 * 1000
    assert parameter_count(params) == embeddings_and_softmax + 2 * one_lstm + biases == 384_032_000


@pytest.mark.parametrize(("size", "v", "m", "rank"), [("cho2014", 15_000, 100, 100), ("rnnencdec", 30_000, 620, 0)])
def test_cho_2014_is_counted_by_hand(size, v, m, rank):
    n, maxout = 1000, 500
    gru = 3 * (m * n + n * n + n)
    vectors = 2 * (n * n + n)  # c = tanh(V h), h'_0 = tanh(V' c)
    context = 3 * n * n
    features = 2 * maxout * (n + m + n) + 2 * maxout
    output = (maxout * rank + rank * v if rank else maxout * v) + v
    assert parameter_count(born("cho", size)) == 2 * v * m + 2 * gru + vectors + context + features + output


@models
def test_every_parameter_has_the_name_of_an_axis(name):
    boxed = jax.eval_shape(build(name, "tiny").init, jax.random.key(0), batch())
    for leaf in jax.tree.leaves(boxed, is_leaf=lambda x: isinstance(x, nn.Partitioned)):
        assert isinstance(leaf, nn.Partitioned)
        assert any(leaf.names)


@models
def test_published_sizes_start_as_their_paper_says(name):
    size = next(s for s, c in FAMILIES[name].sizes.items() if c.init == "paper")
    small = SMALL | OWN[name] | {"width": 64, "source_vocabulary": 500}
    params = nn.unbox(build(name, size, **small).init(jax.random.key(0), batch()))["params"]
    table, recurrent = params["source_embedding"]["table"], params["decoder_0" if name == "seq2seq" else "decoder"]
    if name == "seq2seq":
        for leaf in jax.tree.leaves(params):
            assert 0.06 < jnp.abs(leaf).max() <= 0.08
        return
    assert abs(float(table.std()) - 0.01) < 0.001
    np.testing.assert_allclose(recurrent["gates"][:, 0] @ recurrent["gates"][:, 0].T, np.eye(64), atol=1e-5)
    assert jnp.all(recurrent["bias"] == 0)
    if name == "rnnsearch":
        assert abs(float(params["alignment"]["query"].std()) - 0.001) < 0.0002
        assert jnp.all(params["alignment"]["energy"] == 0)


def test_the_words_are_reversed_and_neither_eos_nor_padding():
    source = padded([[5, 3, 9, EOS], [4, EOS], [EOS], []], 6)
    assert reversed_words(source).tolist() == padded([[9, 3, 5, EOS], [4, EOS], [EOS], []], 6).tolist()


def test_reversal_is_of_the_source_and_can_be_left_out():
    model, params = built("seq2seq")
    forward, _ = built("seq2seq", reverse_source=False)
    turned = batch().replace(source=reversed_words(batch().source))
    one, other = applied(forward, params, turned).logits, applied(model, params, batch()).logits
    np.testing.assert_allclose(one, other, atol=1e-6)
    assert not np.allclose(applied(forward, params, batch()).logits, other)


@models
def test_a_config_that_cannot_be_is_one_line(name):
    with pytest.raises(UserError, match=r"model.init='gauss'.*paper"):
        build(name, "tiny", init="gauss")
