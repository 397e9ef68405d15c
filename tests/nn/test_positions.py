"""The laws of positions: the paper's formula, tensor2tensor's formula, and that they are not each other."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.nn.positions import LearnedPositions, sinusoids

POSITIONS = jnp.arange(40)


@pytest.mark.parametrize("width", [2, 16, 512])
def test_interleaved_is_the_papers_formula(width):
    """Vaswani et al. 2017, section 3.5, entry by entry."""
    table = sinusoids(POSITIONS, width)
    for position in (0, 1, 7, 39):
        for i in range(width // 2):
            angle = position / 10_000 ** (2 * i / width)
            assert table[position, 2 * i] == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[position, 2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-5)


@pytest.mark.parametrize("width", [2, 16, 512])
def test_halves_is_tensor2tensors_formula(width):
    """The wavelengths go from 2π to exactly 10,000 · 2π in geometric progression; sines first, then cosines."""
    table = np.asarray(sinusoids(POSITIONS, width, "halves"))
    scales = np.geomspace(1.0, 1e-4, width // 2)
    angles = np.arange(40)[:, None] * scales
    np.testing.assert_allclose(table, np.concatenate([np.sin(angles), np.cos(angles)], axis=1), atol=1e-5)


def test_concatenated_is_the_papers_table_with_its_sines_first():
    interleaved, concatenated = (sinusoids(POSITIONS, 16, layout) for layout in ("interleaved", "concatenated"))
    assert (concatenated == jnp.concatenate([interleaved[:, 0::2], interleaved[:, 1::2]], axis=1)).all()


def test_no_order_of_columns_makes_one_layout_of_the_other():
    interleaved, halves = (np.sort(sinusoids(POSITIONS, 16, layout), axis=1) for layout in ("interleaved", "halves"))
    assert np.abs(interleaved - halves).max() > 0.1


@pytest.mark.parametrize("layout", ["interleaved", "halves"])
def test_positions_may_have_any_shape(layout):
    table = sinusoids(POSITIONS, 16, layout)
    chosen = jnp.array([[3, 0, 17], [5, 5, 39]])
    assert (sinusoids(chosen, 16, layout) == table[chosen]).all()
    assert (sinusoids(jnp.array([17]), 16, layout) == table[17:18]).all()


def test_learned_positions_are_rows_of_their_table():
    layer = LearnedPositions(8, 16)
    variables = layer.init(jax.random.key(0), jnp.arange(8))
    everything = layer.apply(variables, jnp.arange(8))
    assert everything.shape == (8, 16)
    assert (layer.apply(variables, jnp.array([5, 2])) == everything[jnp.array([5, 2])]).all()
