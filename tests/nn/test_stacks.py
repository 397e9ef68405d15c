"""The laws of depth: neither scan nor rematerialization changes a number, and each is really there when asked for."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from zoo.nn import stacks
from zoo.nn.attention import Heads
from zoo.nn.layers import EncoderLayer, LayerConfig
from zoo.nn.masks import Mask
from zoo.nn.stacks import Stack, stacked, unstacked

LENGTH = 3
LAYER = partial(EncoderLayer, config=LayerConfig(Heads(width=16, heads=2), ffn=32, dropout=0.2))
X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 16)), jnp.float32)
MASK = Mask(lengths=jnp.array([5, 3]))


def stack(scan, remat):
    return Stack(LAYER, LENGTH, scan=scan, remat=remat)


@pytest.fixture(scope="module")
def parameters():
    """The same layers in both layouts."""
    scanned = nn.unbox(stack(True, False).init(jax.random.key(0), X, MASK, False, False))["params"]
    each = unstacked(scanned["layers"])
    return {True: scanned, False: {f"layers_{i}": layer for i, layer in enumerate(each)}}


def objective(scan, remat, params, train):
    y, weights = stack(scan, remat).apply({"params": params}, X, MASK, train, True, rngs={"dropout": jax.random.key(1)})
    return (y * jnp.cos(jnp.arange(16))).sum(), (y, weights)


def outputs_and_gradients(scan, remat, params, train=False):
    function = jax.jit(jax.value_and_grad(lambda p: objective(scan, remat, p, train), has_aux=True))
    (_, outputs), gradient = function(params)
    return outputs, gradient


def assert_same(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, other)


@pytest.fixture(scope="module")
def plain(parameters):
    return outputs_and_gradients(False, False, parameters[False])


@pytest.mark.parametrize(("scan", "remat"), [(True, False), (True, True), (False, True)])
def test_scan_and_remat_change_nothing(parameters, plain, scan, remat):
    outputs, gradient = outputs_and_gradients(scan, remat, parameters[scan])
    if scan:
        gradient = {f"layers_{i}": layer for i, layer in enumerate(unstacked(gradient["layers"]))}
    assert_same(outputs, plain[0])
    assert_same(gradient, plain[1])


@pytest.mark.parametrize("remat", [True, False])
def test_a_stack_that_is_written_out_is_the_same_stack_without_its_loop(parameters, plain, remat, monkeypatch):
    monkeypatch.setitem(stacks.WRITTEN_OUT, "cpu", LENGTH)
    outputs, gradient = outputs_and_gradients(True, remat, parameters[True])
    assert_same(outputs, plain[0])
    assert_same({f"layers_{i}": layer for i, layer in enumerate(unstacked(gradient["layers"]))}, plain[1])
    step = jax.jit(jax.grad(lambda p: objective(True, remat, p, False)[0]))
    assert "while" not in step.lower(parameters[True]).as_text()


@pytest.mark.parametrize("scan", [True, False])
def test_remat_draws_the_same_dropout_again(parameters, scan):
    with_remat, without = (outputs_and_gradients(scan, remat, parameters[scan], train=True) for remat in (True, False))
    assert_same(with_remat, without)
    still = outputs_and_gradients(scan, False, parameters[scan])
    assert not np.allclose(still[0][0], without[0][0])


def primitives(jaxpr):
    """The names of all primitives, also of those inside others."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: isinstance(x, jax.extend.core.ClosedJaxpr)
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from primitives(inner)


@pytest.mark.parametrize("scan", [True, False])
def test_scan_and_remat_are_there_when_asked_for_and_only_then(parameters, scan):
    for remat in (True, False):
        gradient = jax.grad(lambda p, remat=remat: objective(scan, remat, p, True)[0])
        names = set(primitives(jax.make_jaxpr(gradient)(parameters[scan]).jaxpr))
        assert bool(names & {"remat", "remat2", "checkpoint"}) == remat
        assert ("scan" in names) == scan


def test_a_scanned_stack_is_no_longer_program_when_it_is_deeper(parameters):
    def size(length):
        deep = Stack(LAYER, length)
        params = jax.eval_shape(lambda: nn.unbox(deep.init(jax.random.key(0), X, MASK, False, False)))
        return len(list(primitives(jax.make_jaxpr(lambda p: deep.apply(p, X, MASK, False, False))(params).jaxpr)))

    assert size(2) == size(12)


def test_making_the_parameters_of_a_stack_that_is_written_out_is_no_longer_program_either(monkeypatch):
    monkeypatch.setitem(stacks.WRITTEN_OUT, "cpu", 12)

    def size(length):
        deep = Stack(LAYER, length)
        make = jax.jit(lambda: deep.init(jax.random.key(0), X, MASK, False, False))
        return len(make.lower().as_text().splitlines())

    assert size(2) == size(4)


def test_layers_are_drawn_apart(parameters):
    kernels = parameters[True]["layers"]["feed_forward"]["expand"]["kernel"]
    assert kernels.shape == (LENGTH, 16, 32)
    assert not np.allclose(kernels[0], kernels[1])


def test_stacking_and_unstacking_are_inverse(parameters):
    layers = parameters[True]["layers"]
    assert len(unstacked(layers)) == LENGTH
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), stacked(unstacked(layers)), layers)
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a, b), unstacked(stacked(unstacked(layers))), unstacked(layers)
    )


def test_scanned_parameters_name_their_axis_of_layers():
    boxed = jax.eval_shape(lambda: stack(True, False).init(jax.random.key(0), X, MASK, False, False))
    specs = jax.tree.leaves(nn.get_partition_spec(boxed), is_leaf=lambda x: isinstance(x, jax.sharding.PartitionSpec))
    assert specs and all(spec[0] == "layers" for spec in specs)
