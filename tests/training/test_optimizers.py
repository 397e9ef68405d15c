"""The laws of the optimizers: the papers' rates at known steps, decay for matrices only, and bounded gradients."""

import functools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import traverse_util

from zoo.data.batches.base import Seq2SeqBatch
from zoo.errors import UserError
from zoo.models import registry
from zoo.models.transformer import Transformer, TransformerConfig
from zoo.nn.stacks import unstacked
from zoo.training.matrices import is_matrix
from zoo.training.optimizers import OPTIMIZERS, SCHEDULES, OptimizerConfig, optimizer, schedule


def rate(update, steps=100, width=512, **settings):
    """The learning rate of the `update`-th update, counted from 1."""
    return float(schedule(OptimizerConfig(**settings), width, steps)(jnp.int32(update - 1)))


@pytest.mark.parametrize(
    ("update", "expected"),
    [
        (1, 512**-0.5 * 4000**-1.5),
        (2000, 512**-0.5 * 2000 * 4000**-1.5),
        (4000, 512**-0.5 * 4000**-0.5),
        (16_000, 512**-0.5 * 16_000**-0.5),
        (100_000, 512**-0.5 * 100_000**-0.5),
    ],
)
def test_noam_is_equation_3(update, expected):
    """Vaswani et al. 2017, section 5.3."""
    assert rate(update, schedule="noam", warmup=4000) == pytest.approx(expected, rel=1e-5)


def test_noam_reaches_a_peak_of_ones_own():
    settings = {"schedule": "noam", "warmup": 400, "peak": 5e-3}
    assert rate(400, **settings) == pytest.approx(5e-3)
    assert rate(1600, **settings) == pytest.approx(2.5e-3)
    assert max(rate(update, **settings) for update in (1, 200, 399, 401, 800)) < 5e-3


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", {1: 0.1, 5: 0.5, 10: 1.0, 56: 1.0, 101: 1.0}),
        ("linear", {1: 0.1, 5: 0.5, 10: 1.0, 11: 1.0, 56: 0.5, 92: 0.1, 101: 0.0}),
        ("cosine", {1: 0.1, 5: 0.5, 10: 1.0, 11: 1.0, 56: 0.5, 41: (1 + math.cos(math.pi / 3)) / 2, 101: 0.0}),
    ],
)
def test_schedules_with_warmup_at_known_points(name, expected):
    """Ten updates of warm-up to 1, in a run of 100."""
    for update, value in expected.items():
        assert rate(update, schedule=name, warmup=10, peak=1.0) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 1, 8])
def test_the_first_update_changes_something(name, warmup):
    settings = {"halve_after": 50, "halve_every": 5} if name == "halving" else {}
    first = rate(1, schedule=name, warmup=warmup, peak=1.0, **settings)
    assert first == pytest.approx(1 / max(warmup, 1))


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_a_run_no_longer_than_its_warmup_stays_finite(name):
    assert all(0 <= rate(update, steps=5, schedule=name, warmup=10, peak=1.0) <= 1 for update in range(1, 7))


def test_halving_rises_over_its_warmup():
    settings = {"schedule": "halving", "peak": 1.0, "halve_after": 6, "halve_every": 2, "warmup": 4}
    assert [rate(u, **settings) for u in range(1, 9)] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 0.5, 0.5])


def test_halving_is_sutskevers():
    """Sutskever et al. 2014, section 3.4: 0.7 for five epochs, then halved every half epoch; here of 10 updates."""
    settings = {"schedule": "halving", "peak": 0.7, "halve_after": 50, "halve_every": 5, "warmup": 0}
    for updates, halvings in ((range(1, 51), 0), (range(51, 56), 1), (range(56, 61), 2), (range(71, 76), 5)):
        assert [rate(u, **settings) for u in updates] == pytest.approx([0.7 / 2**halvings] * len(updates))


@pytest.fixture(scope="module")
def params():
    model = Transformer(TransformerConfig(11, 11, 2, 16, 32, 2, attention_bias=True, positions="learned", max_length=4))
    nothing = np.ones((1, 2), np.int32)
    batch = Seq2SeqBatch(nothing, nothing, nothing)
    shapes = jax.eval_shape(lambda: nn.unbox(model.init(jax.random.key(0), batch)))["params"]
    assert "layers" in shapes["encoder"]  # scanned: gains and biases have two axes too
    return jax.tree.map(lambda x: jnp.ones(x.shape), shapes)


def flat(tree):
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def changes(config, params, gradient):
    rule = optimizer(config, 16, 100)
    return rule.update(gradient, rule.init(params), params)[0]


@pytest.mark.parametrize("name", ["adam"])
def test_decay_touches_matrices_and_neither_biases_nor_gains(params, name):
    config = OptimizerConfig(name, peak=0.1, schedule="constant", warmup=0, decay=0.5)
    nothing = jax.tree.map(jnp.zeros_like, params)
    moved = flat(changes(config, params, nothing))
    assert {path.split("'")[-2] for path in moved} == {"kernel", "table", "bias", "scale"}
    for path, change in moved.items():
        decays = path.endswith(("['kernel']", "['table']"))
        np.testing.assert_allclose(change, -0.1 * 0.5 if decays else 0, atol=1e-8, err_msg=path)


MODELS = {  # with two layers where the size has layers, and wide enough for Adafactor to factor their matrices
    "transformer": TransformerConfig(11, 11, 2, 128, 128, 4, attention_bias=True),
    "gpt": registry.config("gpt", "nano", layers=2, scan_layers=True),
    "seq2seq": registry.config("seq2seq", "tiny", source_vocabulary=11, target_vocabulary=11),
    "rnnsearch": registry.config("rnnsearch", "tiny", source_vocabulary=11, target_vocabulary=11),
    "cho": registry.config("cho", "tiny", source_vocabulary=11, target_vocabulary=11),
}


def boxed(name):
    """The parameters' shapes with their logical axes."""
    model, batch = registry.of(MODELS[name]), registry.family(name).batch.example()
    return jax.eval_shape(lambda: model.init(jax.random.key(0), batch))["params"]


@pytest.mark.parametrize("name", MODELS)
def test_a_matrix_is_recognized_by_its_axes_in_each_layer(name):
    """Independently of names: gates (an axis without a name) and heads are rows of a bias, and make no matrix of it."""
    for path, leaf in traverse_util.flatten_dict(boxed(name), sep="/").items():
        axes = [axis for axis in leaf.names if axis != "layers"]
        assert ("layers" in leaf.names) == ("layers" in path.split("/")[:-1]), path
        input_axes = {"embed", "vocab", "mlp", "positions"} & set(axes)
        vector = len(axes) == 1 or not input_axes or axes[0] is None
        assert is_matrix(path, leaf.value.ndim) == (not vector), (path, leaf.names)


@pytest.mark.parametrize("optimizer_name", sorted(OPTIMIZERS))
@pytest.mark.parametrize("name", ["transformer", "gpt"])
def test_a_scanned_and_an_unrolled_stack_get_the_same_update(name, optimizer_name):
    config = OptimizerConfig(optimizer_name, peak=0.1, schedule="constant", warmup=0, clip=0.5)
    rng = np.random.default_rng(0)

    def unlike(leaf):  # no two layers of one size
        values = rng.normal(size=leaf.shape).T * np.linspace(1, 3, len(leaf))
        return jnp.asarray(values.T, jnp.float32)

    scanned = {"decoder": jax.tree.map(unlike, nn.unbox(boxed(name))["decoder"])}
    moved = [twice(config, tree) for tree in (scanned, unrolled(scanned))]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), unrolled(moved[0]), moved[1])


def unrolled(params):
    """The parameters with a subtree for each layer."""
    if not isinstance(params, dict):
        return params
    rest = {name: unrolled(tree) for name, tree in params.items() if name != "layers"}
    layers = unstacked(params["layers"]) if "layers" in params else []
    return rest | {f"layers_{i}": layer for i, layer in enumerate(layers)}


def twice(config, params):
    """The second update by the parameters' own values as their gradient."""
    rule = optimizer(config, 16, 100)
    update = jax.jit(rule.update)
    _, state = update(params, rule.init(params), params)
    return update(params, state, params)[0]


def test_adafactor_factors_the_matrices_of_attention():
    """As if they were kept in two dimensions, as the papers write them: rows of one input, columns of all heads."""
    rng = np.random.default_rng(0)
    kernels = {"query": rng.normal(size=(128, 4, 64)), "output": rng.normal(size=(4, 64, 128))}
    kept = {name: {"kernel": jnp.asarray(kernel, jnp.float32)} for name, kernel in kernels.items()}
    flat = {"query": {"kernel": kept["query"]["kernel"].reshape(128, 256)}}
    flat |= {"output": {"kernel": kept["output"]["kernel"].reshape(256, 128)}}
    config = OptimizerConfig("adafactor", peak=0.1, schedule="constant", warmup=0)
    for ours, theirs in zip(*(jax.tree.leaves(twice(config, tree)) for tree in (kept, flat)), strict=True):
        np.testing.assert_allclose(ours.reshape(theirs.shape), theirs, rtol=1e-5)
    state = jax.eval_shape(optimizer(config, 16, 100).init, kept)
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) < 1000  # sums of rows and columns, not all elements


def test_clipping_bounds_the_norm_and_keeps_the_direction(params):
    gradient = jax.tree.map(lambda x: 3 * jnp.ones_like(x), params)
    for clip, norm in (
        (1.0, 1.0),
        (1e6, float(optax.global_norm(gradient))),
        (0.0, float(optax.global_norm(gradient))),
    ):
        config = OptimizerConfig("sgd", peak=1.0, schedule="constant", warmup=0, clip=clip)
        moved = changes(config, params, gradient)
        assert float(optax.global_norm(moved)) == pytest.approx(norm, rel=1e-5)
        assert len({round(float(x), 7) for leaf in flat(moved).values() for x in np.unique(leaf)}) == 1


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("adam", {"peak": 0.05}),
        ("sgd", {"peak": 0.1}),
        ("sgd", {"peak": 0.02, "momentum": 0.9}),
        ("adadelta", {"peak": 1.0, "epsilon": 1e-2}),
        ("adafactor", {"peak": 0.05}),
    ],
)
def test_each_optimizer_finds_the_bottom_of_a_bowl(name, settings):
    rule = optimizer(OptimizerConfig(name, schedule="constant", warmup=0, **settings), 16, 200)
    start = {"kernel": jnp.linspace(1.0, 2.0, 6).reshape(2, 3)}

    def height(params):
        return (params["kernel"] ** 2).sum()

    def update(carry, _):
        params, state = carry
        moved, state = rule.update(jax.grad(height)(params), state, params)
        return (optax.apply_updates(params, moved), state), None

    end, _ = jax.jit(lambda: jax.lax.scan(update, (start, rule.init(start)), length=200)[0])()
    assert height(end) < 0.01 * height(start)


def test_the_first_update_of_adam_is_its_rate():
    """Kingma & Ba 2015: with bias correction the first step is the rate itself, whatever the gradient's size."""
    config = OptimizerConfig("adam", peak=0.1, schedule="constant", warmup=0)
    moved = changes(config, {"kernel": jnp.zeros(3)}, {"kernel": jnp.array([1e-3, -5.0, 40.0])})
    np.testing.assert_allclose(moved["kernel"], [-0.1, 0.1, -0.1], rtol=1e-4)


def test_adadelta_is_zeilers():
    """Zeiler 2012, algorithm 1, two updates by hand; ρ = 0.95, ε = 1e-6 as the papers of 2014 set them."""
    rule = optimizer(OptimizerConfig("adadelta", 1.0, "constant", 0, rho=0.95, epsilon=1e-6), 16, 10)
    x, square, moved_square = 1.0, 0.0, 0.0
    params = {"kernel": jnp.float32(x)}
    state = rule.init(params)
    for gradient in (0.5, -0.2):
        moved, state = rule.update({"kernel": jnp.float32(gradient)}, state, params)
        square = 0.95 * square + 0.05 * gradient**2
        change = -math.sqrt(moved_square + 1e-6) / math.sqrt(square + 1e-6) * gradient
        moved_square = 0.95 * moved_square + 0.05 * change**2
        assert float(moved["kernel"]) == pytest.approx(change, rel=1e-4)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"name": "adm"}, r"optimizer.name='adm'.*'adam'"),
        ({"schedule": "cosin"}, r"optimizer.schedule='cosin'.*'cosine'"),
        ({"schedule": "cosine"}, r"optimizer.peak=0.*'cosine'"),
        ({"schedule": "constant", "peak": -1.0}, r"optimizer.peak=-1"),
        ({"schedule": "halving", "peak": 0.7}, r"optimizer.halve_every=0"),
        ({"halve_after": 3}, r"optimizer.halve_after=3 is read by the schedule 'halving' alone"),
        ({"ema": 1.0}, r"optimizer.ema=1"),
        ({"ema": -0.1}, r"optimizer.ema=-0.1"),
    ],
)
def test_settings_that_cannot_be_are_one_line(wrong, named):
    with pytest.raises(UserError, match=named) as error:
        OptimizerConfig(**wrong)
    assert "\n" not in str(error.value)


NESTED = {"body": {"embedding": {"table": jnp.ones((3, 2))}, "kernel": jnp.full((2, 2), 2.0)}, "head": jnp.ones(2)}
SLOPES = jax.tree.map(lambda p: 0.1 * p, NESTED)


def updated(steps=1, **settings):
    """`NESTED` after some updates by `SLOPES`, and the optimizer's state."""
    rule = optimizer(OptimizerConfig(schedule="constant", warmup=0, peak=1.0, **settings), 16, 10)
    params, state = NESTED, rule.init(NESTED)
    for _ in range(steps):
        changes, state = rule.update(SLOPES, state, params)
        params = optax.apply_updates(params, changes)
    return params, state


def test_a_frozen_parameter_stays_bit_by_bit_and_has_no_state():
    params, state = updated(steps=2, name="adam", decay=0.1, multipliers=("body/embedding=0",))
    assert params["body"]["embedding"]["table"].tobytes() == NESTED["body"]["embedding"]["table"].tobytes()
    assert not (params["body"]["kernel"] == NESTED["body"]["kernel"]).any()
    assert sorted(leaf.shape for leaf in jax.tree.leaves(state) if leaf.ndim) == [(2,), (2,), (2, 2), (2, 2)]


def test_a_multiplier_halves_an_update_and_the_first_pattern_that_is_found_holds():
    whole, _ = updated(name="sgd")
    halved, _ = updated(name="sgd", multipliers=("embedding=0.25", "^body=0.5"))
    for path, times in ((("body", "embedding", "table"), 0.25), (("body", "kernel"), 0.5), (("head",), 1.0)):
        one, other, before = (functools.reduce(dict.get, path, tree) for tree in (whole, halved, NESTED))
        np.testing.assert_allclose(other - before, times * (one - before), rtol=1e-5)


def test_the_norm_that_is_clipped_leaves_frozen_parameters_out():
    params, _ = updated(name="sgd", clip=0.1, multipliers=("body=0",))
    assert float(jnp.linalg.norm(params["head"] - NESTED["head"])) == pytest.approx(0.1, rel=1e-5)


@pytest.mark.parametrize(
    ("multipliers", "told"),
    [
        (("bodi=0",), r"no parameter's path has 'bodi' in it: did you mean 'body'"),
        (("xyzzy=0",), r"known: body, body/embedding, body/kernel, head"),
        (("body",), r"'body' is not PATTERN=NUMBER"),
        (("body=-1",), r"'body=-1' is not PATTERN=NUMBER"),
        (("(=1",), r"'\(=1' is not PATTERN=NUMBER"),
    ],
)
def test_a_wrong_multiplier_is_reported(multipliers, told):
    with pytest.raises(UserError, match=told):
        updated(name="sgd", multipliers=multipliers)


def test_a_share_of_the_steps_warms_up():
    settings = {"schedule": "linear", "peak": 1.0, "warmup_share": 0.1}
    assert [rate(update, 100, **settings) for update in (1, 5, 10, 56)] == pytest.approx([0.1, 0.5, 1.0, 0.5])
    with pytest.raises(UserError, match=r"optimizer.warmup_share=1"):
        OptimizerConfig(**settings | {"warmup_share": 1.0})
