"""The laws of a layer's parts: what is computed again for the backward pass changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.nn.layers import ACTIVATIONS, activated


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_and_its_gradient_are_those_of_its_formula(name):
    x = jnp.linspace(-4, 4, 65).reshape(5, 13)
    ways = (lambda x: activated(x, name), ACTIVATIONS[name])
    own, formula = (jax.value_and_grad(lambda x, f=f: jnp.sum(f(x) ** 2)) for f in ways)
    for one, other in zip(own(x), formula(x), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    low = activated(x.astype(jnp.bfloat16), name)
    assert low.dtype == jnp.bfloat16
    np.testing.assert_allclose(low.astype(jnp.float32), ACTIVATIONS[name](x), rtol=0.02, atol=0.02)
