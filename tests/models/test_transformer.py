"""The laws of the Transformer: causality, padding, cached decoding, the paper's counts, and configs that cannot be."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from zoo.data.batches.base import Seq2SeqBatch
from zoo.errors import UserError
from zoo.models.transformer import SIZES, Transformer, TransformerConfig
from zoo.nn.stacks import DECODED_APART, unstacked
from zoo.parallel.rules import parameter_count

V, S, T = 17, 6, 7
ROWS = 9  # three sentences of three hypotheses, or with six empty rows: one shape, compiled once
KINDS = [  # every norm, layout and tying, and every pair of a norm with one of the others
    ("post", "interleaved", "all"),
    ("pre", "halves", "none"),
    ("post", "learned", "output"),
    ("pre", "learned", "all"),
    ("post", "halves", "none"),
    ("pre", "interleaved", "output"),
]
kinds = pytest.mark.parametrize("kind", KINDS, ids="-".join)


def config(norm="post", positions="interleaved", tying="all", **changes):
    sizes = {"source_vocabulary": V if tying == "all" else 13, "target_vocabulary": V, "layers": 2, "width": 16}
    small = {**sizes, "ffn": 32, "heads": 2, "dropout": 0.0, "max_length": 16}
    return TransformerConfig(**{**small, "norm": norm, "positions": positions, "tying": tying, **changes})


def drawn(path, shape):
    """No parameter has a value such as 0 or 1 that could hide it."""
    random = np.random.default_rng(list(path.encode()))
    return jnp.asarray(0.3 * random.normal(size=shape.shape) + path.endswith("['scale']"), jnp.float32)


@lru_cache
def built(kind):
    """The model of a kind, its parameters, and its compiled forward pass with weights."""
    model = Transformer(config(*kind))
    params = jax.tree_util.tree_map_with_path(lambda path, x: drawn(jax.tree_util.keystr(path), x), born(model.config))
    return model, {"params": params}, jax.jit(lambda v, batch: model.apply(v, batch, weights=True))


def sources():
    """Rows of 6, 4 and 1 tokens, and empty ones."""
    drawn = np.random.default_rng(0).integers(3, 13, (ROWS, S))
    lengths = np.array([6, 4, 1] + [0] * (ROWS - 3))
    return np.where(np.arange(S) < lengths[:, None], drawn, 0).astype(np.int32)


def targets():
    return np.random.default_rng(1).integers(3, V, (ROWS, T)).astype(np.int32)


def batch_of(source, inputs):
    return Seq2SeqBatch(source, inputs, inputs)


def rooms(tree, *names):
    for name in names:
        tree = tree[name]
    return tree


@kinds
def test_a_position_depends_on_itself_the_past_and_the_source_and_on_nothing_else(kind):
    """Row t has another token at position t: bit for bit, nothing before t may notice, and all from t on must."""
    _, variables, forward = built(kind)
    source, inputs = np.repeat(sources()[:1], ROWS, axis=0), np.repeat(targets()[:1], ROWS, axis=0)
    each = np.arange(T)
    changed, changed_source = inputs.copy(), source.copy()
    changed[each, each] = 3 + (changed[each, each] - 2) % (V - 3)
    changed_source[np.arange(S), np.arange(S)] = 3 + (changed_source[0, :S] - 2) % 10
    before = forward(variables, batch_of(source, inputs)).logits
    noticed = (before != forward(variables, batch_of(source, changed)).logits).any(axis=-1)
    assert (noticed[:T] == np.triu(np.ones((T, T), bool))).all() and not noticed[T:].any()
    noticed = (before != forward(variables, batch_of(changed_source, inputs)).logits).any(axis=-1)
    assert noticed[:S].all() and not noticed[S:].any()


@kinds
def test_padding_changes_nothing(kind):
    _, variables, forward = built(kind)
    together = forward(variables, batch_of(sources(), targets())).logits
    assert np.isfinite(together).all()
    alone = forward(variables, batch_of(sources()[1:2, :4], targets()[1:2, :5])).logits
    np.testing.assert_allclose(together[1, :5], alone[0], atol=1e-5)


@kinds
def test_attention_is_shown_for_every_layer_and_sums_to_one(kind):
    _, variables, forward = built(kind)
    attention = forward(variables, batch_of(sources(), targets())).attention
    shapes = {name: weights.shape for name, weights in attention.items()}
    assert shapes == {"encoder": (2, ROWS, 2, S, S), "decoder": (2, ROWS, 2, T, T), "cross": (2, ROWS, 2, T, S)}
    for weights in attention.values():
        np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)
    assert (np.moveaxis(attention["cross"], 1, 0)[1, ..., 4:] == 0).all()
    assert (np.triu(np.asarray(attention["decoder"]), 1) == 0).all()


def stepped(kind, beams, parents_of):
    """Decode random tokens step by step; after each step, every hypothesis continues a parent of `parents_of`.

    Yields the step's logits and attention beside those of the full forward pass over each hypothesis's own history.
    """
    model, variables, forward = built(kind)
    step = jax.jit(lambda cache, tokens: model.apply(variables, cache, tokens, method="decode_step"))
    rows = ROWS // beams
    source, random = sources()[:rows], np.random.default_rng(2)
    cache = jax.jit(lambda source: model.apply(variables, source, T, beams, method="prefill"))(source)
    history = np.zeros((rows, beams, T), np.int32)
    repeated = np.repeat(source, beams, axis=0)
    for t in range(T):
        history[:, :, t] = random.integers(3, V, (rows, beams))
        cache, logits, looked = step(cache, jnp.asarray(history[:, :, t]))
        whole = forward(variables, batch_of(repeated, history.reshape(ROWS, T)))
        cross = whole.attention["cross"][0].mean(axis=1)[:, t]  # the layer before the last of two
        yield logits, whole.logits[:, t].reshape(logits.shape), looked, cross.reshape(looked.shape)
        parents = parents_of(random, rows, beams)
        history = np.take_along_axis(history, parents[:, :, None], axis=1)
        cache = model.apply(variables, cache, jnp.asarray(parents), method="reorder")


def keep(random, rows, beams):
    return np.broadcast_to(np.arange(beams), (rows, beams))


def at_random(random, rows, beams):
    return random.integers(0, beams, (rows, beams))


@pytest.mark.parametrize(
    ("kind", "beams", "parents_of"),
    [
        pytest.param(KINDS[0], 3, at_random, marks=pytest.mark.smoke),
        *((kind, 3, at_random) for kind in KINDS[1:]),
        *((kind, 1, keep) for kind in KINDS[:2]),
    ],
)
def test_cached_decoding_is_the_full_forward_pass_over_each_hypothesis(kind, beams, parents_of):
    for logits, expected, looked, cross in stepped(kind, beams, parents_of):
        np.testing.assert_allclose(logits, expected, atol=2e-5)
        np.testing.assert_allclose(looked, cross, atol=1e-5)


def test_unrolled_layers_decode_as_scanned_ones_do(monkeypatch):
    monkeypatch.setitem(DECODED_APART, "cpu", 0)
    model, variables, _ = built(KINDS[0])
    unrolled = Transformer(config(*KINDS[0], scan_layers=False))
    params = dict(variables["params"])
    for side in ("encoder", "decoder"):
        params[side] = {f"layers_{i}": layer for i, layer in enumerate(unstacked(params[side]["layers"]))}

    @partial(jax.jit, static_argnums=0)
    def logits(model, params):
        cache = model.apply({"params": params}, sources(), 2, 1, method="prefill")
        cache, first, _ = model.apply({"params": params}, cache, jnp.full((ROWS, 1), 5), method="decode_step")
        cache, second, _ = model.apply({"params": params}, cache, jnp.full((ROWS, 1), 6), method="decode_step")
        whole = model.apply({"params": params}, batch_of(sources(), targets())).logits
        return first, second, whole

    for one, other in zip(logits(model, variables["params"]), logits(unrolled, params), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("place", ["dropout", "attention_dropout", "ffn_dropout"])
def test_dropout_acts_in_training_only_and_by_its_key(place):
    _, variables, forward = built(KINDS[0])
    model = Transformer(config(**{place: 0.5}))

    def run(train, seed):
        rngs = {"dropout": jax.random.key(seed)}
        return model.apply(variables, batch_of(sources(), targets()), train, rngs=rngs).logits

    run = jax.jit(run, static_argnums=0)
    assert (run(False, 1) == run(False, 2)).all()
    assert (run(True, 1) == run(True, 1)).all()
    assert not np.allclose(run(True, 1), run(True, 2))
    np.testing.assert_allclose(run(False, 1), forward(variables, batch_of(sources(), targets())).logits, atol=1e-5)


def test_bfloat16_computes_what_float32_does_and_ends_in_float32():
    _, variables, forward = built(KINDS[0])
    low = jax.jit(Transformer(config(dtype="bfloat16")).apply)(variables, batch_of(sources(), targets())).logits
    full = forward(variables, batch_of(sources(), targets())).logits
    assert low.dtype == jnp.float32
    assert 0 < np.abs(low - full).max() < 0.05 * np.abs(full).max()


def born(c):
    batch = batch_of(np.ones((1, 2), np.int32), np.ones((1, 2), np.int32))
    return jax.eval_shape(lambda: nn.unbox(Transformer(c).init(jax.random.key(0), batch)))["params"]


def by_hand(c):
    """Vaswani et al. 2017, Figure 1: projections without biases, two affine maps, gain and bias after each sublayer."""
    attention = 4 * c.width**2
    feed_forward = c.width * c.ffn + c.ffn + c.ffn * c.width + c.width
    norm = 2 * c.width
    encoder_layer = attention + feed_forward + 2 * norm
    decoder_layer = 2 * attention + feed_forward + 3 * norm
    rows = {"all": c.target_vocabulary, "output": c.source_vocabulary + c.target_vocabulary}
    rows["none"] = rows["output"] + c.target_vocabulary
    last_norms = 2 * norm if c.norm == "pre" else 0
    return c.layers * (encoder_layer + decoder_layer) + rows[c.tying] * c.width + last_norms


@pytest.mark.parametrize("c", [*SIZES.values(), config(tying="none"), config(tying="output", norm="pre")])
def test_there_are_as_many_parameters_as_in_the_figure(c):
    assert parameter_count(born(c)) == by_hand(c)


@pytest.mark.parametrize(("size", "count", "table_3"), [("base", 63_045_632, 65e6), ("big", 214_171_648, 213e6)])
def test_published_sizes_are_those_of_the_paper(size, count, table_3):
    assert parameter_count(born(SIZES[size])) == count == pytest.approx(table_3, rel=0.04)


def test_the_published_base_and_big_are_table_3():
    base, big = SIZES["base"], SIZES["big"]
    assert (base.layers, base.width, base.ffn, base.heads, base.dropout) == (6, 512, 2048, 8, 0.1)
    assert (big.layers, big.width, big.ffn, big.heads, big.dropout) == (6, 1024, 4096, 16, 0.3)
    assert all(
        (c.norm, c.positions, c.tying, c.activation) == ("post", "interleaved", "all", "relu") for c in (base, big)
    )
    t2t = SIZES["t2t_base"]
    assert (t2t.norm, t2t.positions) == ("pre", "halves")


def test_every_box_of_figure_1_is_in_the_parameters():
    params = born(config(tying="none"))
    assert set(params) == {"source_embedding", "target_embedding", "encoder", "decoder", "output"}
    norms = {"norm": {"scale", "bias"}}
    boxes = {
        "encoder": {"attention", "attention_residual", "feed_forward", "feed_forward_residual"},
        "decoder": {
            *("self_attention", "self_attention_residual", "cross_attention", "cross_attention_residual"),
            *("feed_forward", "feed_forward_residual"),
        },
    }
    for side, names in boxes.items():
        layer = rooms(params, side, "layers")
        assert set(layer) == names
        for name in names:
            if name.endswith("residual"):
                assert {k: set(v) for k, v in layer[name].items()} == norms
            elif name.endswith("attention"):
                assert set(layer[name]) == {"query", "key", "value", "output"}
            else:
                assert set(layer[name]) == {"expand", "contract"}
    assert {"encoder_norm", "decoder_norm"} <= set(born(config(norm="pre")))


@pytest.mark.parametrize("tying", ["none", "output", "all"])
def test_tied_matrices_are_one(tying):
    """The output is the target's table, transposed, unless nothing is tied (Press & Wolf 2017)."""
    _, variables, forward = built(next(kind for kind in KINDS if kind[2] == tying))
    params = variables["params"]
    output = forward(variables, batch_of(sources(), targets()))
    matrix = params["output"] if tying == "none" else params["target_embedding"]["table"].T
    np.testing.assert_allclose(output.logits, output.readout.states @ matrix, atol=1e-4)
    assert ("source_embedding" in params) == (tying != "all")
    assert ("output" in params) == (tying == "none")


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"heads": 3}, r"model.heads=3 .*model.width=16"),
        ({"norm": "middle"}, r"model.norm='middle'.*post, pre"),
        ({"activation": "rleu"}, r"model.activation='rleu'.*relu"),
        ({"positions": "rotary"}, r"model.positions='rotary'.*interleaved, concatenated, halves, learned"),
        ({"tying": "some"}, r"model.tying='some'.*none, output, all"),
        ({"attention_backend": "flash"}, r"model.attention_backend='flash'.*cudnn"),
        ({"tying": "all", "source_vocabulary": 13}, r"13 source and 17 target"),
        ({"width": 15, "heads": 5}, r"model.width=15"),
    ],
)
def test_a_config_that_cannot_be_is_one_line(wrong, named):
    with pytest.raises(UserError, match=named) as error:
        config(**wrong)
    assert "\n" not in str(error.value)
