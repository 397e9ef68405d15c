"""Laws of drawing a token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from zoo.decoding.sampling import COLDEST, HOTTEST, SamplingConfig, draw, penalized, restricted, row_keys
from zoo.errors import UserError

LOGITS = jnp.log(jnp.array([0.05, 0.4, 0.1, 0.3, 0.15]))


def kept(config: SamplingConfig, logits=LOGITS) -> set[int]:
    return set(np.flatnonzero(np.asarray(restricted(logits, config)) > -np.inf))


@pytest.mark.parametrize("config", [SamplingConfig(), SamplingConfig(temperature=0.7), SamplingConfig(top_p=0.8)])
def test_frequencies_match_the_distribution(config):
    drawn = draw(jax.random.split(jax.random.key(0), 20_000), jnp.tile(LOGITS, (20_000, 1)), config)
    expected = 20_000 * np.asarray(jax.nn.softmax(restricted(LOGITS, config)), np.float64)
    possible = expected > 0
    counts = np.bincount(np.asarray(drawn), minlength=5)
    assert counts[~possible].sum() == 0
    assert chisquare(counts[possible], expected[possible] * 20_000 / expected.sum()).pvalue > 1e-3


def test_temperature_is_the_power_of_the_probabilities():
    cold = jax.nn.softmax(restricted(LOGITS, SamplingConfig(temperature=0.5)))
    squared = jax.nn.softmax(LOGITS) ** 2
    assert jnp.allclose(cold, squared / squared.sum(), atol=1e-6)


def test_top_k_keeps_the_k_most_likely():
    for k, expected in enumerate([{1}, {1, 3}, {1, 3, 4}, {1, 2, 3, 4}, {0, 1, 2, 3, 4}], 1):
        assert kept(SamplingConfig(top_k=k)) == expected


def test_top_k_keeps_k_of_equals():
    assert kept(SamplingConfig(top_k=2), jnp.zeros(5)) == {0, 1}


@pytest.mark.parametrize(("p", "expected"), [(0.39, {1}), (0.41, {1, 3}), (0.69, {1, 3}), (0.71, {1, 3, 4})])
def test_top_p_keeps_the_fewest_that_hold_p(p, expected):
    assert kept(SamplingConfig(top_p=p)) == expected


def test_min_p_is_a_share_of_the_highest():
    assert kept(SamplingConfig(min_p=0.26)) == {1, 3, 4}


def test_restrictions_hold_together():
    assert kept(SamplingConfig(top_k=3, min_p=0.5)) == {1, 3}


@pytest.mark.parametrize("temperature", [0.0, COLDEST, 1.0, HOTTEST])
@pytest.mark.parametrize("restriction", [{}, {"top_k": 4}, {"top_p": 0.999}, {"min_p": 1e-9}])
def test_what_may_not_come_never_does_at_any_temperature(temperature, restriction):
    """However likely the model holds it, and however unlikely what may come."""
    logits, may = jnp.array([3e4, -3e4, 0.0, -2e4]), jnp.array([False, True, False, True])
    drawn = draw(
        row_keys(0, np.arange(500)),
        jnp.tile(logits, (500, 1)),
        SamplingConfig(temperature, **restriction),
        jnp.tile(may, (500, 1)),
    )
    assert set(drawn.tolist()) <= {1, 3}


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_the_extremes_of_temperature_draw_the_likeliest_and_all_alike(scale):
    keys, logits = row_keys(0, np.arange(4000)), jnp.tile(LOGITS * scale, (4000, 1))
    cold = draw(keys, logits, SamplingConfig(COLDEST))
    assert scale < 1 or set(cold.tolist()) == {1}
    hot = draw(keys, logits, SamplingConfig(HOTTEST))
    assert scale > 1 or chisquare(np.bincount(np.asarray(hot), minlength=5)).pvalue > 1e-3


def test_temperature_zero_is_the_most_likely():
    assert draw(row_keys(0, np.arange(3)), jnp.tile(LOGITS, (3, 1)), SamplingConfig(temperature=0)).tolist() == [1] * 3


def test_a_row_draws_the_same_in_any_batch():
    together = draw(row_keys(7, np.arange(50)), jnp.tile(LOGITS, (50, 1)), SamplingConfig())
    alone = [int(draw(row_keys(7, np.array([i])), LOGITS[None], SamplingConfig())[0]) for i in range(50)]
    assert together.tolist() == alone
    assert len(set(alone)) > 1


def test_the_penalty_makes_what_was_said_less_likely():
    logits, said = jnp.array([2.0, -2.0, 1.0]), jnp.array([True, True, False])
    assert penalized(logits, said, 2.0).tolist() == [1.0, -4.0, 1.0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": COLDEST / 2},
        {"temperature": 2 * HOTTEST},
        {"top_k": -1},
        {"top_p": 0.0},
        {"min_p": 2.0},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": 1e30},
    ],
)
def test_impossible_numbers_are_named(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        SamplingConfig(**wrong)
