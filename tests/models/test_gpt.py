"""The laws of GPT: causality, packing, cached generation, OpenAI's arrays, the papers' counts, and learning."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from zoo.data.batches.base import LanguageBatch
from zoo.data.specials import NOTHING
from zoo.errors import UserError
from zoo.models.gpt import GPT, SIZES, GPTConfig
from zoo.models.registry import parameter_count
from zoo.nn.stacks import unstacked
from zoo.tasks.losses import cross_entropy

V, T, ROWS = 17, 9, 6
NORMS = pytest.mark.parametrize("norm", ["post", "pre"])


def config(norm="post", **changes):
    small = {"vocabulary": V, "layers": 2, "width": 16, "ffn": 32, "heads": 2, "head_size": 6, "max_length": 16}
    return GPTConfig(**{**small, "dropout": 0.0, "attention_dropout": 0.0, "norm": norm, **changes})


def drawn(path, shape):
    """No parameter has a value such as 0 or 1 that could hide it."""
    random = np.random.default_rng(list(path.encode()))
    return jnp.asarray(0.3 * random.normal(size=shape.shape) + path.endswith("['scale']"), jnp.float32)


def born(c):
    batch = LanguageBatch.example()
    return jax.eval_shape(lambda: nn.unbox(GPT(c).init(jax.random.key(0), batch)))["params"]


@lru_cache
def built(norm):
    """The model with its norms there, its parameters, and its compiled forward pass with weights."""
    model = GPT(config(norm))
    params = jax.tree_util.tree_map_with_path(lambda path, x: drawn(jax.tree_util.keystr(path), x), born(model.config))
    return model, {"params": params}, jax.jit(partial(model.apply, weights=True))


def text(rows=ROWS, seed=0):
    return np.random.default_rng(seed).integers(0, V, (rows, T)).astype(np.int32)


def batch_of(inputs, segments=None, positions=None):
    return LanguageBatch(inputs, np.full_like(inputs, NOTHING), segments, positions)


@NORMS
def test_a_later_token_has_no_gradient_from_an_earlier_prediction(norm):
    model, variables, _ = built(norm)

    def logits(nudge):
        params = dict(variables["params"])
        nudged = jax.tree.map(lambda x: x, params["positions"]["table"]).at[:T].add(nudge)
        return model.apply({"params": {**params, "positions": {"table": nudged}}}, batch_of(text(1))).logits[0]

    reach = jnp.abs(jax.jit(jax.jacrev(lambda nudge: logits(nudge).sum(axis=-1)))(jnp.zeros((T, 16)))).max(axis=-1)
    assert ((reach > 0) == np.tril(np.ones((T, T), bool))).all()


@NORMS
def test_a_packed_document_is_what_it_is_alone(norm):
    """Rows of documents of 4, 3 and 2 tokens, positions starting anew in each."""
    _, variables, forward = built(norm)
    inputs, lengths = text(), (4, 3, 2)
    segments = np.broadcast_to(np.repeat([1, 2, 3], lengths), inputs.shape)
    positions = np.broadcast_to(np.concatenate([np.arange(n) for n in lengths]), inputs.shape)
    packed = forward(variables, batch_of(inputs, segments, positions))
    for start, end in ((0, 4), (4, 7), (7, 9)):
        alone = forward(variables, batch_of(np.roll(inputs, -start, axis=1))).logits  # what follows is not seen
        np.testing.assert_allclose(packed.logits[:, start:end], alone[:, : end - start], atol=2e-5)
    assert not np.allclose(packed.logits[:, 4:], forward(variables, batch_of(inputs)).logits[:, 4:], atol=1e-2)
    table = np.asarray(packed.attention["decoder"])
    assert (table[..., 4:, :4] == 0).all() and (np.triu(table, 1) == 0).all()
    np.testing.assert_allclose(table.sum(axis=-1), 1, atol=1e-5)


@NORMS
def test_padding_behind_the_last_document_changes_nothing(norm):
    _, variables, forward = built(norm)
    inputs, padded = text(), text(seed=1)
    padded[:, :5] = inputs[:, :5]
    segments = np.broadcast_to(np.arange(T) < 5, inputs.shape).astype(np.int32)
    positions = np.broadcast_to(np.arange(T), inputs.shape)
    together = forward(variables, batch_of(padded, segments, positions)).logits
    assert np.isfinite(together).all()
    np.testing.assert_allclose(together[:, :5], forward(variables, batch_of(inputs)).logits[:, :5], atol=2e-5)


@pytest.mark.parametrize(
    ("norm", "beams"), [pytest.param("post", 1, marks=pytest.mark.smoke), ("post", 3), ("pre", 1), ("pre", 3)]
)
def test_cached_generation_is_the_full_forward_pass_at_every_position(norm, beams):
    """Prompts of 5, 3, 1 and no tokens in one batch, each continued by hypotheses that take each other's place."""
    model, variables, forward = built(norm)
    lengths, steps, random = np.array([5, 3, 1, 0]), 4, np.random.default_rng(2)
    rows = len(lengths)
    prompts = np.where(np.arange(5) < lengths[:, None], text(rows)[:, :5], NOTHING).astype(np.int32)
    step = jax.jit(lambda cache, tokens: model.apply(variables, cache, tokens, method="decode_step"))
    cache = jax.jit(lambda prompts: model.apply(variables, prompts, 2, beams, method="prefill"))(prompts)
    history = np.zeros((rows, beams, T), np.int32)
    for row, n in enumerate(lengths):
        history[row, :, :n] = prompts[row, :n]
    for t in range(steps):
        if t == 2:
            cache = model.apply(variables, cache, steps - 2, method="grow")
        tokens = random.integers(0, V, (rows, beams)).astype(np.int32)
        for row, n in enumerate(lengths):
            history[row, :, n + t] = tokens[row]
        cache, logits, looked = step(cache, jnp.asarray(tokens))
        whole = forward(variables, batch_of(history.reshape(-1, T))).logits.reshape(rows, beams, T, V)
        expected = np.stack([whole[row, :, n + t] for row, n in enumerate(lengths)])
        np.testing.assert_allclose(logits, expected, atol=3e-5)
        np.testing.assert_allclose(looked.sum(axis=-1), 1, atol=1e-5)
        parents = random.integers(0, beams, (rows, beams))
        history = np.take_along_axis(history, parents[:, :, None], axis=1)
        cache = model.apply(variables, cache, jnp.asarray(parents), method="reorder")


def test_scan_and_remat_change_nothing():
    _, variables, _ = built("pre")
    scanned = variables["params"]
    layers = unstacked(scanned["decoder"]["layers"])
    unrolled = {**scanned, "decoder": {f"layers_{i}": layer for i, layer in enumerate(layers)}}
    batch = LanguageBatch(text()[:, :-1], text()[:, 1:])

    def gradient(params, **depth):
        def objective(params):
            readout = GPT(config("pre", **depth)).apply({"params": params}, batch).readout
            return cross_entropy(readout, batch.labels, padding=NOTHING).objective

        loss, gradient = jax.jit(jax.value_and_grad(objective))(params)
        if not depth["scan_layers"]:
            kept = [gradient["decoder"][f"layers_{i}"] for i in range(2)]
            gradient["decoder"] = {"layers": jax.tree.map(lambda *leaves: jnp.stack(leaves), *kept)}
        return loss, gradient

    plain = gradient(unrolled, scan_layers=False, remat=False)
    found = gradient(scanned, scan_layers=True, remat=True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, plain)


@pytest.mark.parametrize("place", ["dropout", "attention_dropout"])
def test_dropout_acts_in_training_only_and_by_its_key(place):
    _, variables, forward = built("post")
    model = GPT(config("post", **{place: 0.5}))
    run = jax.jit(
        lambda train, seed: model.apply(variables, batch_of(text()), train, rngs={"dropout": jax.random.key(seed)}),
        static_argnums=0,
    )
    np.testing.assert_allclose(run(False, 1).logits, forward(variables, batch_of(text())).logits, atol=1e-5)
    assert (run(True, 1).logits == run(True, 1).logits).all()
    assert not np.allclose(run(True, 1).logits, run(True, 2).logits)


def loss_of(model, batch):
    def loss(params):
        sums = cross_entropy(model.apply({"params": params}, batch).readout, batch.labels, padding=NOTHING)
        return sums.objective / sums.tokens

    return loss


def nano_batch(rows):
    tokens = np.random.default_rng(0).integers(0, 260, (rows, 33)).astype(np.int32)
    return LanguageBatch(tokens[:, :-1], tokens[:, 1:])


@pytest.mark.parametrize("size", [SIZES["nano"], config("post", vocabulary=260, width=64, max_length=32)])
def test_a_model_that_knows_nothing_gives_every_token_the_same_chance(size):
    batch = nano_batch(8)
    params = jax.jit(lambda: nn.unbox(GPT(size).init(jax.random.key(0), batch)))()["params"]
    assert float(jax.jit(loss_of(GPT(size), batch))(params)) == pytest.approx(np.log(260), rel=0.02)


@NORMS
def test_one_batch_is_learned_by_heart(norm):
    batch = nano_batch(2)
    model, rule = (
        GPT(config(norm, vocabulary=260, width=32, heads=2, head_size=16, ffn=64, max_length=32)),
        optax.adam(1e-2),
    )

    @jax.jit
    def trained():
        params = nn.unbox(model.init(jax.random.key(0), batch))["params"]

        def update(carry, _):
            params, state = carry
            loss, gradient = jax.value_and_grad(loss_of(model, batch))(params)
            updates, state = rule.update(gradient, state)
            return (optax.apply_updates(params, updates), state), loss

        return jax.lax.scan(update, (params, rule.init(params)), length=120)[1]

    losses = trained()
    assert losses[0] > 5 and losses[-1] < 0.01


def openai_shapes(layer):
    """The twelve arrays of a block as OpenAI has them: queries, keys and values in one, heads side by side."""
    attention = layer["attention"]
    width = attention["query"]["kernel"].shape[0]
    inner = int(np.prod(attention["query"]["kernel"].shape[1:]))
    assert {attention[name]["kernel"].shape for name in ("query", "key", "value")} == {(width, 12, inner // 12)}
    assert {attention[name]["bias"].shape for name in ("query", "key", "value")} == {(12, inner // 12)}
    shapes = [(width, 3 * inner), (3 * inner,)]
    output = attention["output"]
    shapes += [(int(np.prod(output["kernel"].shape[:-1])), output["kernel"].shape[-1]), output["bias"].shape]
    for name in ("attention_residual", "feed_forward_residual"):
        shapes += [layer[name]["norm"][leaf].shape for leaf in ("scale", "bias")]
    for name in ("expand", "contract"):
        shapes += [layer["feed_forward"][name][leaf].shape for leaf in ("kernel", "bias")]
    return shapes


def test_gpt1_has_the_146_arrays_that_openai_published():
    params = born(SIZES["gpt1"])
    block = [(768, 2304), (2304,), (768, 768), (768,), (768,), (768,)]
    block += [(768, 3072), (3072,), (3072, 768), (768,), (768,), (768,)]
    (layers,) = params["decoder"].values()
    per_layer = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), layers)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(layers)} == {12}
    tables = [params["positions"]["table"].shape, params["embedding"]["table"].shape]
    assert set(params) == {"positions", "embedding", "decoder"}
    ours, openai = tables + 12 * openai_shapes(per_layer), [(512, 768), (40_478, 768)] + 12 * block
    assert sorted(ours) == sorted(openai) and len(ours) == 146
    assert sum(int(np.prod(shape)) for shape in ours) == parameter_count(SIZES["gpt1"]) == 116_534_784


@pytest.mark.parametrize(
    ("size", "published"),
    [
        *(("gpt2_124m", 124e6), ("gpt2_355m", 355e6), ("gpt2_774m", 774e6), ("gpt2_1558m", 1558e6)),
        *(("gpt3_125m", 125e6), ("gpt3_350m", 350e6), ("gpt3_760m", 760e6), ("gpt3_1.3b", 1.3e9)),
        *(("gpt3_2.7b", 2.7e9), ("gpt3_6.7b", 6.7e9), ("gpt3_13b", 13e9), ("gpt3_175b", 175e9)),
    ],
)
def test_every_published_size_has_as_many_parameters_as_its_name_says(size, published):
    rounding = 0.02 * published if size.startswith("gpt3") else 0.5e6
    assert abs(parameter_count(SIZES[size]) - published) <= rounding


def test_gpt1_is_section_4_1():
    c = SIZES["gpt1"]
    assert (c.layers, c.width, c.heads, c.ffn, c.max_length) == (12, 768, 12, 3072, 512)
    assert (c.dropout, c.attention_dropout, c.norm, c.activation) == (0.1, 0.1, "post", "gelu_tanh")


@pytest.mark.parametrize(("norm", "residual_init"), [("post", "plain"), ("pre", "scaled")])
def test_weights_begin_as_the_papers_say(norm, residual_init):
    wide = config(norm, width=128, ffn=256, heads=4, head_size=32, vocabulary=512, residual_init=residual_init)
    params = jax.jit(lambda: nn.unbox(GPT(wide).init(jax.random.key(0), LanguageBatch.example())))()["params"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path)
        if name.endswith("['scale']"):
            assert (leaf == 1).all()
        elif name.endswith("['bias']"):
            assert (leaf == 0).all()
        else:
            last = "['output']" in name or "['contract']" in name
            std = 0.02 * (0.5 if last and residual_init == "scaled" else 1)  # 1/√(2 · 2 layers)
            assert float(leaf.std()) == pytest.approx(std, rel=0.05) and abs(float(leaf.mean())) < std / 10


def test_the_output_is_the_embedding_again():
    _, variables, forward = built("post")
    output = forward(variables, batch_of(text()))
    np.testing.assert_allclose(
        output.logits, output.readout.states @ variables["params"]["embedding"]["table"].T, atol=1e-5
    )


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"heads": 3, "head_size": 0}, r"model.heads=3 .*model.width=16"),
        ({"norm": "middle"}, r"model.norm='middle'.*post, pre"),
        ({"activation": "rleu"}, r"model.activation='rleu'.*gelu_tanh"),
        ({"residual_init": "small"}, r"model.residual_init='small'.*plain, scaled"),
        ({"attention_backend": "flash"}, r"model.attention_backend='flash'.*cudnn"),
    ],
)
def test_a_config_that_cannot_be_is_one_line(wrong, named):
    with pytest.raises(UserError, match=named) as error:
        config(**wrong)
    assert "\n" not in str(error.value)


def test_a_text_beyond_the_learned_positions_is_one_line():
    model, variables, _ = built("post")
    with pytest.raises(UserError, match=r"17 positions .* 16 .*model.max_length"):
        model.apply(variables, batch_of(np.ones((1, 17), np.int32)))
    with pytest.raises(UserError, match=r"17 positions .* 16 "):
        model.apply(variables, np.ones((1, 9), np.int32), 8, method="prefill")
