"""The laws of the matrix products: NumPy's numbers in float32, and bfloat16 that never falls back to float32 dots."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from zoo.nn.linear import Dense, Embedding, add_bias, as_matrix, dot, summed_outer, together

BF16_STEP = 2**-8  # the relative spacing of bfloat16


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng((seed, *shape)).normal(size=shape), jnp.float32)


def operands(contract):
    """`x [2, 6, 8]`, a kernel that `contract` fits, and a cotangent of their product `[2, 6, 5]`."""
    return normal(2, 6, 8), normal(*((8, 5) if contract == 0 else (5, 8))), normal(2, 6, 5)


def product_and_gradients(contract, dtype, kernel_dtype=np.float32):
    x, kernel, cotangent = operands(contract)
    y, back = jax.vjp(lambda x, k: dot(x, k, dtype, contract), x, kernel.astype(kernel_dtype))
    return y, *back(cotangent)


def by_numpy(contract):
    x, kernel, cotangent = (np.asarray(a, np.float64) for a in operands(contract))
    matrix = kernel if contract == 0 else kernel.T
    to_matrix = np.einsum("bti,bto->io", x, cotangent)
    return x @ matrix, cotangent @ matrix.T, to_matrix if contract == 0 else to_matrix.T


@pytest.mark.smoke
@pytest.mark.parametrize("contract", [0, 1])
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-6), (jnp.bfloat16, 4 * BF16_STEP)])
def test_dot_and_its_gradients_are_matrix_products(contract, dtype, tolerance):
    for ours, theirs in zip(product_and_gradients(contract, dtype), by_numpy(contract), strict=True):
        assert ours.dtype == jnp.float32
        assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


@pytest.mark.parametrize("columns", [5, 1024])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_summed_outer_product_is_one_whatever_its_columns(columns, dtype):
    a, b = (x.astype(dtype) for x in (normal(6, 8), normal(6, columns)))
    exact = np.asarray(a, np.float64).T @ np.asarray(b, np.float64)
    assert np.abs(jax.jit(summed_outer)(a, b) - exact).max() <= 1e-6 * np.abs(exact).max()


@pytest.mark.parametrize("contract", [0, 1])
def test_bfloat16_is_another_number_than_float32(contract):
    for low, full in zip(product_and_gradients(contract, jnp.bfloat16), by_numpy(contract), strict=True):
        assert np.abs(low - full).max() > 1e-4 * np.abs(full).max()


@pytest.mark.parametrize("contract", [0, 1])
@pytest.mark.parametrize("kept", [jnp.float32, jnp.bfloat16])
def test_the_weight_gradient_keeps_the_weights_dtype(contract, kept):
    assert product_and_gradients(contract, jnp.bfloat16, kept)[2].dtype == kept


@pytest.mark.parametrize("contract", [0, 1])
def test_no_product_of_bfloat16_is_computed_from_float32(contract):
    x, kernel, _ = operands(contract)
    step = jax.value_and_grad(lambda x, k: (dot(x, k, jnp.bfloat16, contract) ** 2).sum(), argnums=(0, 1))
    lowered = jax.jit(step).lower(x, kernel).as_text()
    inputs = re.findall(r"dot_general.*: \(tensor<([^>]*)>, tensor<([^>]*)>\)", lowered)
    assert len(inputs) >= 3  # forward, to x, to the kernel
    assert all(operand.endswith("xbf16") for pair in inputs for operand in pair)


def products_on(device, dtype):
    """The results of every product in `dot` and its gradients, as they are traced for a device of this kind."""
    kind = jax.sharding.AbstractDevice("any", 1, device)
    mesh = jax.sharding.AbstractMesh((1,), ("data",), (jax.sharding.AxisType.Auto,), abstract_device=kind)
    x, kernel, _ = operands(0)
    with jax.sharding.use_abstract_mesh(mesh):
        step = jax.make_jaxpr(jax.grad(lambda x, k: dot(x, k, dtype).astype(jnp.float32).sum(), (0, 1)))(x, kernel)
    return re.findall(r":(\w+)\[([\d,]+)\] = dot_general", str(step))


@pytest.mark.parametrize(("device", "rows"), [("gpu", "12"), ("tpu", "2,6")])
def test_on_accelerators_products_of_bfloat16_give_bfloat16_but_for_gradients_of_weights(device, rows):
    """Rows are merged on GPUs only: a TPU would copy them."""
    assert set(products_on(device, jnp.bfloat16)) == {("bf16", f"{rows},5"), ("bf16", f"{rows},8"), ("f32", "8,5")}
    assert {dtype for dtype, _ in products_on(device, jnp.float32)} == {"f32"}
    assert {dtype for dtype, _ in products_on("cpu", jnp.bfloat16)} == {"f32"}


def test_the_gradient_of_a_bias_is_summed_in_its_own_type():
    y = jnp.ones((1000, 3), jnp.bfloat16)
    given = jnp.asarray(np.random.default_rng(0).uniform(1, 2, y.shape), jnp.bfloat16)
    gradient = jax.grad(lambda b: (add_bias(y, b) * given).astype(jnp.float32).sum())(jnp.zeros(3))
    assert gradient.dtype == jnp.float32
    np.testing.assert_allclose(gradient, np.asarray(given, np.float64).sum(axis=0), rtol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_layers_together_are_the_layers_apart(bias):
    """Also with parameters as `init` gives them, in their boxes."""

    class Two(nn.Module):
        joined: bool

        def setup(self):
            self.one, self.other = (Dense((4, 3), ("embed", "heads", "kv"), bias=bias) for _ in range(2))

        def __call__(self, x):
            if self.joined and not self.is_initializing():
                return together((self.one, self.other), x)
            return jnp.stack([self.one(x), self.other(x)], axis=-3)

    x, cotangent = normal(2, 5, 8), normal(2, 5, 2, 4, 3)
    params = jax.tree.map(lambda p: normal(*p.shape), Two(True).init(jax.random.key(0), x))

    def outcome(joined):
        y, back = jax.vjp(lambda params, x: Two(joined).apply(params, x), params, x)
        return y, back(cotangent)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), outcome(True), outcome(False))


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_any_number_of_rows_has_a_weight_gradient(rows):
    x, cotangent = normal(rows, 8), normal(rows, 5)
    gradient = jax.grad(lambda k: (dot(x, k, jnp.bfloat16) * cotangent).sum())(normal(8, 5))
    expected = np.asarray(x.T, np.float64) @ cotangent
    assert np.abs(gradient - expected).max() <= 4 * BF16_STEP * np.abs(expected).max()


@pytest.mark.parametrize(
    ("formula", "inputs", "features", "axes", "contracted"),
    [
        ("bti,io->bto", 1, 6, ("embed", "mlp"), (16,)),
        ("bti,ihd->bthd", 1, (4, 3), ("embed", "heads", "kv"), (16,)),
        ("bthd,hdo->bto", 2, 6, ("heads", "kv", "embed"), (4, 3)),
        ("bthd,hdxy->btxy", 2, (2, 5), ("heads", "kv", "embed", "mlp"), (4, 3)),
    ],
)
def test_dense_over_any_axes_is_einsum(formula, inputs, features, axes, contracted):
    x = normal(2, 5, *contracted)
    layer = Dense(features, axes, inputs=inputs)
    boxed = layer.init(jax.random.key(0), x)["params"]
    assert nn.get_partition_spec(boxed)["kernel"] == jax.sharding.PartitionSpec(*axes)
    params = jax.tree.map(lambda p: normal(*p.shape), nn.unbox(boxed))
    expected = np.einsum(formula, x, params["kernel"]) + np.asarray(params["bias"])
    np.testing.assert_allclose(layer.apply({"params": params}, x), expected, rtol=1e-5, atol=1e-5)


def test_a_kernel_of_any_rank_is_initialized_as_the_matrix_that_it_is():
    glorot = nn.initializers.xavier_uniform()
    kernel = as_matrix(glorot, 1)(jax.random.key(0), (64, 4, 16))
    assert (kernel == glorot(jax.random.key(0), (64, 64)).reshape(64, 4, 16)).all()
    assert 0.95 < jnp.abs(kernel).max() / (6 / 128) ** 0.5 <= 1  # Glorot & Bengio 2010, eq. 16


def test_an_embedding_reads_rows():
    layer = Embedding(11, 16)
    table = normal(11, 16)
    tokens = np.array([[3, 0], [10, 3]])
    assert (layer.apply({"params": {"table": table}}, tokens) == table[tokens]).all()


def test_low_precision_layers_keep_their_parameters_in_float32():
    x = jnp.zeros((1, 16), jnp.bfloat16)
    dense = Dense(4, ("embed", "mlp"), dtype=jnp.bfloat16)
    variables = nn.unbox(dense.init(jax.random.key(0), x))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert dense.apply(variables, x).dtype == jnp.bfloat16
    embedding = Embedding(11, 16, dtype=jnp.bfloat16)
    table = {"params": {"table": normal(11, 16)}}
    assert embedding.apply(table, np.array([1])).dtype == jnp.bfloat16


def test_an_embedding_is_born_with_its_logical_axes():
    boxed = Embedding(11, 16).init(jax.random.key(0), np.array([1]))["params"]["table"]
    assert boxed.names == ("vocab", "embed") and boxed.value.shape == (11, 16)
