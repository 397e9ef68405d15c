"""The laws of the recurrent layers: the papers' equations, padding that is not seen, gradients as those of a scan."""

from functools import partial

import equations_2014 as paper
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from zoo.nn.additive import AdditiveAlignment, additive_weights, uniform_weights
from zoo.nn.deep_output import DeepOutput, maxout
from zoo.nn.recurrent import (
    GLOROT,
    GRU_BAHDANAU,
    GRU_CHO,
    LSTM,
    Bidirectional,
    Inits,
    Recurrent,
    gate_by_gate,
    of_parents,
    recur,
    symmetric_uniform,
    times,
)

TIME, ROWS, EMBEDDING, WIDTH = 6, 3, 5, 4
LARGE = Inits(*[nn.initializers.normal(0.7)] * 4)  # so that gates are far from one half
CELLS = [(LSTM, paper.lstm), (GRU_CHO, paper.gru_cho), (GRU_BAHDANAU, paper.gru_bahdanau)]
cells = pytest.mark.parametrize(("cell", "equations"), CELLS, ids=["lstm", "cho", "bahdanau"])


@partial(jax.jit, static_argnames=("layer", "reverse"))
def run(layer, params, xs, **options):
    """States and last state over `xs`, input products included."""
    return layer.apply({"params": params}, xs, method=lambda layer, xs: layer(layer.inputs(xs), **options))


def layer_of(cell, dtype=jnp.float32, inits=LARGE):
    layer = Recurrent(cell, WIDTH, inits, dtype)
    xs = jax.random.normal(jax.random.key(1), (TIME, ROWS, EMBEDDING))
    params = layer.init(jax.random.key(0), xs, method=lambda layer, xs: layer(layer.inputs(xs)))["params"]
    return layer, nn.unbox(params), xs


@cells
def test_a_layer_is_the_equations_of_its_paper(cell, equations):
    layer, params, xs = layer_of(cell)
    states, last = run(layer, params, xs)
    for row in range(ROWS):
        expected, expected_last = paper.unrolled(equations, paper.doubles(params), np.asarray(xs[:, row], np.float64))
        np.testing.assert_allclose(states[:, row], expected, atol=1e-5)
        for vector, expected_vector in zip(last, expected_last, strict=True):
            np.testing.assert_allclose(vector[row], expected_vector, atol=1e-5)


@cells
def test_its_gradient_is_that_of_the_equations(cell, equations):
    layer, params, xs = layer_of(cell)
    aim = np.random.default_rng(0).normal(size=(TIME, ROWS, WIDTH))
    gradient = jax.grad(lambda params: (run(layer, params, xs)[0] * aim).sum())(params)

    def loss(params):
        rows = [paper.unrolled(equations, params, np.asarray(xs[:, row], np.float64))[0] for row in range(ROWS)]
        return (np.stack(rows, axis=1) * aim).sum()

    paper.assert_gradient(loss, params, gradient)


@pytest.mark.parametrize("reverse", [False, True])
@cells
def test_padding_leaves_the_state_alone(cell, equations, reverse):
    layer, params, xs = layer_of(cell)
    alone, last = run(layer, params, xs, reverse=reverse)
    padded = jnp.concatenate([xs, jnp.full((2, ROWS, EMBEDDING), 9.0)])
    real = jnp.broadcast_to(jnp.arange(TIME + 2)[:, None] < TIME, (TIME + 2, ROWS))
    together, last_together = run(layer, params, padded, real=real, reverse=reverse)
    np.testing.assert_allclose(together[:TIME], alone, atol=1e-6)
    for one, other in zip(last, last_together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@cells
def test_steps_are_the_sequence(cell, equations):
    layer, params, xs = layer_of(cell)
    states, _ = run(layer, params, xs)
    bound = layer.bind({"params": params})
    state = bound.zeros(ROWS)
    for x, expected in zip(xs, states, strict=True):
        state = bound.step(state, bound.inputs(x))
        np.testing.assert_allclose(state[0], expected, atol=1e-6)


def test_the_backward_layer_reads_from_the_end_of_the_words_and_ends_at_the_first():
    layer = Bidirectional(GRU_BAHDANAU, WIDTH, LARGE)
    xs = jax.random.normal(jax.random.key(1), (TIME, 1, EMBEDDING))
    real = (jnp.arange(TIME) < 4)[:, None]
    params = nn.unbox(layer.init(jax.random.key(0), xs, real)["params"])
    annotations, (first,) = layer.apply({"params": params}, xs, real)
    words = np.asarray(xs[:4, 0], np.float64)
    ahead, _ = paper.unrolled(paper.gru_bahdanau, paper.doubles(params["forward"]), words)
    back, (at_first,) = paper.unrolled(paper.gru_bahdanau, paper.doubles(params["backward"]), words[::-1])
    np.testing.assert_allclose(annotations[:4, 0], np.concatenate([ahead, back[::-1]], axis=1), atol=1e-5)
    np.testing.assert_allclose(first[0], at_first, atol=1e-5)


def test_kernel_gradients_behind_the_scan_are_those_of_a_plain_one():
    random = iter(jax.random.split(jax.random.key(0), 9))
    kernels = {"square": jax.random.normal(next(random), (4, 4)), "rows": jax.random.normal(next(random), (2, 3, 4))}
    given, carry = jax.random.normal(next(random), (4,)), jax.random.normal(next(random), (2, 1, 4))
    xs = jax.random.normal(next(random), (5, 2, 1, 4))

    def step(times, given, carry, x):
        looked = times("rows", jax.nn.softmax(carry[..., :3]))
        carry = jnp.tanh(times("square", carry * given) + x + looked)
        return carry, carry * x

    def plain(kernels, given, carry, xs):
        multiply = partial(times, kernels, jnp.float32)
        return jax.lax.scan(lambda carry, x: step(multiply, given, carry, x), carry, xs)

    ours = partial(recur, step, jnp.float32, False)
    losses = [lambda *a, f=f: sum((y**2).sum() for y in f(*a)) for f in (ours, plain)]
    one, other = (jax.grad(loss, argnums=(0, 1, 2, 3))(kernels, given, carry, xs) for loss in losses)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), one, other)


def test_the_gradient_holds_no_step_by_step_sum_of_a_kernel():
    layer, params, xs = layer_of(LSTM)
    inside = run.__wrapped__  # not jitted, so that its scans stand in the open
    jaxpr = jax.make_jaxpr(jax.grad(lambda params: inside(layer, params, xs)[0].sum()))(params)
    scans = [e for e in jaxpr.jaxpr.eqns if e.primitive.name == "scan"]
    carried = [v.aval.shape for e in scans for v in e.outvars[: e.params["num_carry"]]]
    assert len(scans) == 2
    assert (WIDTH, 4 * WIDTH) not in carried


@cells
def test_bfloat16_is_close_to_float32(cell, equations):
    layer, params, xs = layer_of(cell, inits=GLOROT)
    low = Recurrent(cell, WIDTH, GLOROT, jnp.bfloat16)
    states, last = run(low, params, xs)
    assert states.dtype == jnp.bfloat16
    assert last[0].dtype == jnp.float32
    np.testing.assert_allclose(states.astype(jnp.float32), run(layer, params, xs)[0], atol=0.03)


def test_alignment_is_the_equation_and_no_padding_is_looked_at():
    layer = AdditiveAlignment(5, WIDTH, nn.initializers.normal(1.0), nn.initializers.normal(1.0))
    annotations = jax.random.normal(jax.random.key(0), (1, TIME, 3))
    queries = jax.random.normal(jax.random.key(1), (1, 2, WIDTH))
    real = (jnp.arange(TIME) < 4)[None]
    params = nn.unbox(layer.init(jax.random.key(2), annotations, real)["params"])
    source = layer.apply({"params": params}, annotations, real)
    weights = additive_weights(queries @ params["query"], source)
    for beam in range(2):
        query = np.asarray(queries[0, beam], np.float64)
        expected = paper.aligned(paper.doubles(params), query, np.asarray(annotations[0, :4], np.float64))
        np.testing.assert_allclose(weights[0, beam, :4], expected, atol=1e-6)
    assert jnp.all(weights[:, :, 4:] == 0)


def test_uniform_weights_sum_to_one_over_the_tokens():
    weights = uniform_weights(jnp.array([[True, True, False], [False, False, False]]), 2)
    np.testing.assert_allclose(weights, [[[0.5, 0.5, 0]] * 2, [[0, 0, 0]] * 2])


def test_maxout_takes_the_larger_of_neighbours():
    np.testing.assert_array_equal(maxout(jnp.array([[1.0, 3, 5, 2]])), [[3, 5]])


@pytest.mark.parametrize("rank", [0, 2])
def test_deep_output_is_the_equation(rank):
    layer = DeepOutput(3, 7, LARGE, rank)
    state, word, context = (jax.random.normal(jax.random.key(i), (size,)) for i, size in enumerate((4, 5, 6)))
    params = nn.unbox(layer.init(jax.random.key(9), state, word, context, method="features")["params"])
    features = layer.apply({"params": params}, state, word, context, method="features")
    expected = paper.deep_output(paper.doubles(params), *(np.asarray(x, np.float64) for x in (state, word, context)))
    np.testing.assert_allclose(features @ params["matrix"] + params["bias"], expected, atol=1e-5)


def test_states_follow_their_parents():
    states = (jnp.arange(12.0).reshape(2, 3, 2),)
    (followed,) = of_parents(states, jnp.array([[2, 0, 0], [1, 1, 2]]))
    np.testing.assert_array_equal(followed[:, :, 0], [[4, 0, 0], [8, 8, 10]])


def test_recurrent_kernels_are_orthogonal_gate_by_gate():
    kernel = gate_by_gate(nn.initializers.orthogonal())(jax.random.key(0), (8, 2, 8))
    for gate in range(2):
        np.testing.assert_allclose(kernel[:, gate] @ kernel[:, gate].T, np.eye(8), atol=1e-5)
    assert not np.allclose(kernel[:, 0], kernel[:, 1])


def test_the_uniform_init_is_symmetric_and_bounded():
    drawn = symmetric_uniform(0.08)(jax.random.key(0), (100, 100))
    assert -0.08 <= drawn.min() < -0.0799
    assert 0.0799 < drawn.max() < 0.08
