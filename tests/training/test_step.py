"""The laws of an update: the gradient of the mean, whatever cuts the batch; a state that is born where it lives."""

import os
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from eight_devices import python_on_eight

from zoo.data.batches.base import Seq2SeqBatch
from zoo.data.batches.buckets import padded
from zoo.models.base import Readout
from zoo.models.transformer import Transformer, TransformerConfig
from zoo.parallel.mesh import MeshConfig, make_mesh
from zoo.tasks.losses import cross_entropy
from zoo.training.optimizers import COUNTS, OptimizerConfig, optimizer
from zoo.training.step import born, make_step

V, ROWS = 24, 8


def model_of(dropout=0.0, layers=1):
    shape = {"layers": layers, "width": 16, "ffn": 32, "heads": 2, "scan_layers": layers > 1}
    return Transformer(TransformerConfig(V, V, dropout=dropout, **shape))


def batch_of(seed=0):
    """Rows of different lengths, the last one empty."""
    random = np.random.default_rng(seed)
    pairs = [
        tuple(random.integers(4, V, n).astype(np.int32) for n in random.integers(1, 7, 2)) for _ in range(ROWS - 1)
    ]
    return padded(pairs, ROWS, 8)


def loss_of(model):
    def loss(params, batch, key):
        readout = model.apply({"params": params}, batch, train=True, rngs={"dropout": key}).readout
        return cross_entropy(readout, batch.labels, 0.1)

    return loss


class World:
    """A model, its fresh state, and its compiled step."""

    def __init__(self, optimizer, mesh=None, dropout=0.0, accumulate=1, ema=0.0, seed=0, layers=1):
        model = model_of(dropout, layers)
        nothing = np.zeros((1, 8), np.int32)
        example = Seq2SeqBatch(nothing, nothing, nothing)
        self.loss = loss_of(model)
        self.mesh = mesh or make_mesh(MeshConfig())
        self.shapes, self.make = born(
            lambda key: model.init(key, example)["params"], optimizer, self.mesh, seed, ema=ema > 0
        )
        self.step = make_step(self.loss, optimizer, self.mesh, self.shapes, accumulate, ema)

    def run(self, steps, state=None, first=0):
        state, norms = state or self.make(), []
        for i in range(first, first + steps):
            state, metrics = self.step(state, batch_of(i))
            norms.append(float(metrics["gradient_norm"]))
        return state, norms


ADAM = optax.adam(1e-3, eps=1e-6)  # an epsilon above the rounding of gradients


def assert_close(one, other, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), one, other)


@pytest.fixture(scope="module")
def plain():
    return World(ADAM)


@pytest.fixture(scope="module")
def after_three(plain):
    return jax.device_get(plain.run(3))


def test_the_state_is_born_with_the_shapes_and_places_it_was_promised(plain):
    state = plain.make()
    promised = jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), plain.shapes)
    assert jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), state) == promised
    assert state.step == 0 and state.ema is None
    moments = state.optimizer[0].mu
    assert jax.tree.structure(moments) == jax.tree.structure(state.params)
    state, _ = plain.step(state, batch_of())
    assert jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), state) == promised
    assert state.step == 1


def test_a_seed_decides_the_state(plain):
    again, other = World(ADAM).make(), World(ADAM, seed=1).make()
    assert_close(plain.make(), again, rtol=0)
    kernels = [s.params["encoder"]["layers_0"]["attention"]["query"]["kernel"] for s in (again, other)]
    assert not np.allclose(*kernels)


@pytest.fixture(scope="module")
def descent():
    return World(optax.sgd(0.5))


@pytest.mark.smoke
def test_an_update_is_the_gradient_of_the_mean_over_tokens(descent):
    params, batch = jax.device_get(descent.make().params), batch_of()
    state, metrics = descent.step(descent.make(), batch)

    def mean(params):
        sums = descent.loss(params, batch, jax.random.key(0))
        return sums.objective / sums.tokens

    gradient = jax.jit(jax.grad(mean))(params)
    assert_close(state.params, jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient), atol=1e-6)
    assert metrics["gradient_norm"] == pytest.approx(float(optax.global_norm(gradient)), rel=1e-5)
    assert metrics["sums"].tokens == (batch.labels != 0).sum()


TARGETS = [np.array(words, np.int32) for words in ([5], [9, 4, 5, 7, 7, 6], [8, 4, 9])]
SENTENCES = padded([(words, words) for words in TARGETS], ROWS, 8)


def mean_over_sentences(table):
    """The gradient of 1/N Σ -log p(y|x) (Sutskever et al. 2014, eq. 2; Bahdanau et al. 2015, appendix B), where each
    word's logits are a row of `table`: for every token its softmax, less one at the label."""
    gradient = np.zeros((V, V))
    for words in TARGETS:
        for word, label in zip([1, *words], [*words, 2], strict=True):
            probabilities = np.exp(table[word]) / np.exp(table[word]).sum()
            gradient[word] += (probabilities - np.eye(V)[label]) / len(TARGETS)
    return gradient


def assert_sutskevers_update(mesh, accumulate=1):
    """Section 3.4: the gradient, divided by the number of sentences, is scaled down to the norm 1 and taken 0.7 times.

    Its norm lies above 1; that of the mean over tokens, less than a quarter of it, would not be touched.
    """
    settings = OptimizerConfig("sgd", 0.7, "halving", warmup=0, halve_after=9, halve_every=9, clip=1.0, per="sentence")
    rule = optimizer(settings, V, 9)

    def loss(params, batch, key):
        return cross_entropy(Readout(jax.nn.one_hot(batch.inputs, V), params["table"]), batch.labels)

    shapes, fresh = born(lambda key: {"table": jax.random.normal(key, (V, V))}, rule, mesh, 0, ema=False)
    before = np.asarray(fresh().params["table"], np.float64)
    step = make_step(loss, rule, mesh, shapes, accumulate, count=COUNTS[settings.per])
    state, metrics = step(fresh(), SENTENCES)

    expected = mean_over_sentences(before)
    norm = np.linalg.norm(expected)
    assert norm > 1.2 > norm * len(TARGETS) / sum(len(words) + 1 for words in TARGETS)
    np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-5)
    np.testing.assert_allclose(state.params["table"], before - 0.7 * expected / norm, atol=1e-6)


@pytest.mark.parametrize("accumulate", [1, 2], ids=["whole", "one part of two sentences and one of one"])
def test_a_mean_over_sentences_is_clipped_as_sutskevers(accumulate):
    assert_sutskevers_update(make_mesh(MeshConfig()), accumulate)


def test_cutting_a_batch_into_parts_changes_nothing(after_three):
    """The parts have different numbers of tokens, so that a mean of means would be another gradient."""
    state, norms = World(ADAM, accumulate=4).run(3)
    assert_close(state.params, after_three[0].params, atol=1e-5)
    np.testing.assert_allclose(norms, after_three[1], rtol=1e-4)


def test_a_batch_of_nothing_changes_no_parameter(descent):
    before, nothing = descent.make(), np.zeros((ROWS, 8), np.int32)
    state, metrics = descent.step(descent.make(), Seq2SeqBatch(nothing, nothing, nothing))
    assert_close(state.params, before.params, rtol=0)
    assert metrics["gradient_norm"] == 0


def test_the_moving_average_is_its_formula():
    world = World(ADAM, ema=0.9)
    state = world.make()
    expected = jax.device_get(state.params)
    assert_close(state.ema, expected, rtol=0)
    for i in range(3):
        state, _ = world.step(state, batch_of(i))
        expected = jax.tree.map(lambda e, p: 0.9 * e + 0.1 * np.asarray(p), expected, state.params)
    assert_close(state.ema, expected, atol=1e-6)


def test_the_state_is_donated_and_its_successor_stands_alone(plain):
    old = plain.make()
    new, _ = plain.step(old, batch_of())
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old.params))
    kept = jax.device_get(new.params)
    plain.make()
    assert_close(new.params, kept, rtol=0)


def test_three_steps_are_one_a_save_and_two(plain, after_three):
    state, _ = plain.run(1)
    saved = jax.device_get(state)
    restored = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), saved, plain.shapes)
    state, _ = plain.run(2, restored, first=1)
    assert_close(state, after_three[0], rtol=0)


@pytest.fixture(scope="module")
def dropping():
    return World(optax.sgd(0.0), dropout=0.5)


def test_dropout_is_drawn_from_the_seed_and_the_step(dropping):
    assert dropping.run(3)[1] == dropping.run(3)[1]

    def norm_at(step):
        state = dropping.make().replace(step=jnp.int32(step))
        return float(dropping.step(state, batch_of())[1]["gradient_norm"])

    assert norm_at(0) == norm_at(0) != norm_at(1)


def test_parts_of_a_batch_draw_their_own_dropout(dropping):
    """Equal rows in both parts: with the same draws the two gradients would be one, and so their sum's."""
    rows = batch_of()
    twice = jax.tree.map(lambda x: np.repeat(x[:4], 2, axis=0), rows)
    half = jax.tree.map(lambda x: x[:4], rows)
    norms = [
        float(w.step(w.make(), b)[1]["gradient_norm"])
        for w, b in ((World(optax.sgd(0.0), dropout=0.5, accumulate=2), twice), (dropping, half))
    ]
    assert norms[0] != pytest.approx(norms[1], rel=1e-3)


def test_one_batch_is_learnt_by_heart():
    """Down to the entropy of its smoothed labels, which is where the objective ends."""
    world, batch = World(optax.adam(1e-2)), batch_of()
    state, objectives = world.make(), []
    for _ in range(150):
        state, metrics = world.step(state, batch)
        objectives.append(float(metrics["sums"].objective / metrics["sums"].tokens))
    least = -(0.9 + 0.1 / V) * np.log(0.9 + 0.1 / V) - (V - 1) * (0.1 / V) * np.log(0.1 / V)
    assert objectives[0] > least + 1 and objectives[-1] < least + 0.05


EIGHT_DEVICES = """
    import sys; sys.path.insert(0, {here!r})
    import jax, numpy as np
    from jax.sharding import AxisType, Mesh
    from test_step import ADAM, World, assert_close, assert_sutskevers_update
    from zoo.parallel.mesh import MeshConfig, make_mesh

    assert jax.device_count() == 8
    names = ("data", "fsdp", "tensor", "sequence")
    alone = Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1, 1), names, axis_types=(AxisType.Auto,) * 4)
    expected, norms = jax.device_get(World(ADAM, alone, layers=2).run(3))

    for sizes in ((8, 1, 1), (1, 8, 1), (2, 2, 2)):
        mesh = make_mesh(MeshConfig(*sizes))
        assert_sutskevers_update(mesh)
        state, found = World(ADAM, mesh, layers=2).run(3)
        assert_close(state, expected, atol=1e-5)
        np.testing.assert_allclose(found, norms, rtol=1e-4)

        def parts(leaf):
            return leaf.size // leaf.addressable_shards[0].data.size

        moments = state.optimizer[0]
        for tree in (state.params, moments.mu, moments.nu):
            layer = tree["decoder"]["layers"]
            _, fsdp, tensor = sizes
            assert parts(layer["self_attention"]["query"]["kernel"]) == fsdp * tensor
            assert parts(layer["cross_attention"]["output"]["kernel"]) == fsdp * tensor
            assert parts(layer["feed_forward"]["expand"]["kernel"]) == fsdp * tensor
            assert parts(layer["feed_forward"]["contract"]["kernel"]) == fsdp * tensor
            assert parts(layer["feed_forward"]["expand"]["bias"]) == tensor
            assert parts(layer["feed_forward_residual"]["norm"]["scale"]) == fsdp
            assert parts(tree["target_embedding"]["table"]) == fsdp * tensor
    print("the same on every mesh")
"""


@pytest.mark.slow
def test_every_mesh_of_eight_devices_trains_as_one_device_does():
    """And no parameter, nor moment of the optimizer, that the rules cut is whole on a device."""
    result = python_on_eight("-c", textwrap.dedent(EIGHT_DEVICES.format(here=os.path.dirname(__file__))))
    assert result.stdout == "the same on every mesh\n", result.stderr[-3000:]
