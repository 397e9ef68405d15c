"""Every preset trains a model as one device does, by the exchanges that it should need."""

import re
import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from eight_devices import python_on_eight
from flax import linen as nn
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from zoo.data.batches.base import LanguageBatch, Seq2SeqBatch
from zoo.data.specials import NOTHING
from zoo.data.tokenizers import PAD, SPECIALS
from zoo.errors import UserError
from zoo.models.base import Readout
from zoo.models.gpt import GPT, GPTConfig
from zoo.models.rnnsearch import RNNsearch, RNNsearchConfig
from zoo.models.transformer import Transformer, TransformerConfig
from zoo.nn import attention, layers, linear, norms, stacks
from zoo.nn.attention_backends import attend, attend_stacked
from zoo.nn.dropout import WeightDropout
from zoo.nn.masks import Mask
from zoo.parallel.mesh import AXES, PRESETS, MeshConfig, check_heads, make_mesh
from zoo.parallel.rules import in_force, place, replicated, sharding
from zoo.planning.program import Program
from zoo.tasks import losses
from zoo.tasks.losses import cross_entropy
from zoo.training.step import born, make_step

VOCABULARY, ROWS, LENGTH = 32, 8, 16
SIZES = {"source_vocabulary": VOCABULARY, "target_vocabulary": VOCABULARY, "width": 32}
PADDING = {LanguageBatch: NOTHING, Seq2SeqBatch: PAD}


@dataclass(frozen=True)
class Case:
    """A model, and the batch that it learns."""

    model: Any
    batch: LanguageBatch | Seq2SeqBatch

    def init(self, key):
        return self.model.init(key, type(self.batch).example())["params"]

    def loss(self, params, batch, key):
        output = self.model.apply({"params": params}, batch, train=True, rngs={"dropout": key})
        return cross_entropy(output.readout, batch.labels, padding=PADDING[type(batch)])


def documents() -> LanguageBatch:
    """Rows of two documents, of 5 and of 11 tokens."""
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, (ROWS, LENGTH + 1)).astype(np.int32)
    segments, positions = np.repeat([1, 2], [5, 11]), np.concatenate([np.arange(5), np.arange(11)])
    rows = [np.broadcast_to(x.astype(np.int32), (ROWS, LENGTH)) for x in (segments, positions)]
    return LanguageBatch(tokens[:, :-1], tokens[:, 1:], *rows)


def sentences() -> Seq2SeqBatch:
    """Pairs of sentences of 9 to 16 tokens, padded."""
    random = np.random.default_rng(0)
    source, target = random.integers(len(SPECIALS), VOCABULARY, (2, ROWS, LENGTH + 1)).astype(np.int32)
    source, inputs, labels = (rows.copy() for rows in (source[:, :-1], target[:, :-1], target[:, 1:]))
    for row in range(ROWS):
        source[row, LENGTH - row :] = inputs[row, 9 + row :] = labels[row, 9 + row :] = PAD
    return Seq2SeqBatch(source, inputs, labels)


CASES = {
    "gpt": lambda: Case(GPT(GPTConfig(VOCABULARY, layers=2, width=32, ffn=64, heads=4, max_length=16)), documents()),
    "transformer": lambda: Case(Transformer(TransformerConfig(**SIZES, layers=2, ffn=64, heads=4)), sentences()),
    "rnnsearch": lambda: Case(RNNsearch(RNNsearchConfig(**SIZES, embedding=16, maxout=16, alignment=32)), sentences()),
}
# What moves over the wire. A CPU has no reduce-scatter: it sums everything everywhere, and each device takes its part.
NEEDED = {
    "data": {"all-reduce"},
    "fsdp": {"all-gather", "all-reduce"},
    "fsdp+tensor": {"all-gather", "all-reduce"},
    "fsdp+tensor+sequence": {"all-gather", "all-reduce", "all-to-all"},
}


def one_device() -> Mesh:
    return Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1, 1), AXES, axis_types=(AxisType.Auto,) * 4)


def trained(case, mesh):
    """Losses a token of five steps, the state after them, and the exchanges of a step."""
    adam = optax.adam(1e-2, eps=1e-3)  # or rounding decides where a gradient is next to nothing
    shapes, fresh = born(case.init, adam, mesh, 0, ema=False)
    state, rows, losses = fresh(), place(case.batch, mesh), []
    step = make_step(case.loss, adam, mesh, shapes).lower(state, rows).compile()
    for _ in range(5):
        state, metrics = step(state, rows)
        losses.append(float(metrics["sums"].loss / metrics["sums"].tokens))
    kinds = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
    return losses, state, set(re.findall(rf" ({kinds})(?:-start)?\(", step.as_text()))


def check_placed(case, params, mesh):
    """No device has a whole of what the rules cut."""
    specs = nn.get_partition_spec(jax.eval_shape(case.init, jax.random.key(0)))
    for leaf, names in zip(jax.tree.leaves(params), jax.tree.leaves(specs), strict=True):
        assert leaf.sharding.is_equivalent_to(sharding(mesh, tuple(names), leaf.shape), leaf.ndim)


def check_presets(case, presets):
    expected, state, exchanges = trained(case, one_device())
    assert exchanges == set()
    params = jax.device_get(state.params)
    for preset in presets:
        mesh = make_mesh(MeshConfig(preset=preset))
        losses, state, exchanges = trained(case, mesh)
        np.testing.assert_allclose(losses, expected, atol=1e-5, err_msg=preset)
        jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5, err_msg=preset), state.params, params)
        assert NEEDED[preset] <= exchanges, (preset, exchanges)
        assert preset != "data" or exchanges == {"all-reduce"}, exchanges
        for tree in (state.params, state.optimizer[0].mu, state.optimizer[0].nu):
            check_placed(case, tree, mesh)


def check_kernels():
    """A back-end sees whole texts of some heads, forward and backward, and drops the weights that one device drops."""
    random = np.random.default_rng(1)
    query, key, value = (jnp.asarray(random.normal(size=(4, 16, 4, 8)), jnp.float32) for _ in range(3))
    segments = jnp.asarray(random.integers(1, 3, (4, 16)).cumsum(axis=1) // 9)
    mesh = make_mesh(MeshConfig(data=2, tensor=2, sequence=2))

    def gradients(backend, dropout, together):
        mask = Mask(segments=segments, causal=True)

        def total(*operands):
            if together:
                mixed = attend_stacked((jnp.stack(operands, axis=2),), mask, backend, dropout)
            else:
                mixed = attend(*operands, mask, backend, dropout)
            return (mixed * jnp.cos(jnp.arange(8))).sum()

        return jax.value_and_grad(total, argnums=(0, 1, 2))

    some = WeightDropout.of(jax.random.key(3), 0.3, 4)
    for backend, dropout, together in [("xla", None, False), ("blockwise", some, False), ("triton", some, True)]:

        def on_mesh(*operands, backend=backend, dropout=dropout, together=together):
            with in_force(mesh):
                return gradients(backend, dropout, together)(*operands)

        compiled = jax.jit(on_mesh, in_shardings=(replicated(mesh),) * 3).lower(query, key, value).compile()
        assert "all-to-all" in compiled.as_text()
        expected = jax.jit(gradients("einsum", dropout, False))(query, key, value)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), compiled(query, key, value), expected)


def check_loss(mesh):
    """Logits are made in parts, once; and nothing of the size of the matrix is sent for every part."""
    random, vocabulary, width = np.random.default_rng(2), 64, 32
    losses.CHUNK["cpu"], losses.TOKENS_OF_A_UNIT = 4 * ROWS * vocabulary // mesh.size, {}  # four columns
    states = jnp.asarray(random.normal(size=(ROWS, LENGTH, width)), jnp.float32)
    matrix = jnp.asarray(random.normal(size=(vocabulary, width)), jnp.float32)
    labels = jnp.asarray(random.integers(1, vocabulary, (ROWS, LENGTH)))

    def gradients(states, matrix, labels):
        def objective(*readout):
            return cross_entropy(Readout(*readout, contract=1), labels).objective

        return jax.grad(objective, argnums=(0, 1))(states, matrix)

    def on_mesh(*operands):
        with in_force(mesh):
            return gradients(*operands)

    tokens = NamedSharding(mesh, PartitionSpec(("data", "fsdp"), "sequence"))
    columns = sharding(mesh, ("vocab", "embed"), matrix.shape)
    step = jax.jit(on_mesh, in_shardings=(tokens, columns, tokens), out_shardings=(tokens, columns))
    compiled = step.lower(states, matrix, labels).compile()
    program = Program(compiled.as_text(), dict(mesh.shape))
    products = 3 * 2 * ROWS * LENGTH * width * vocabulary
    assert program.flops * mesh.size == products, (program.flops * mesh.size / products, mesh.shape)
    assert {m.times for m in program.collectives if m.bytes >= matrix.nbytes} == {1}, program.collectives
    expected = jax.jit(gradients)(states, matrix, labels)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), compiled(states, matrix, labels), expected)


def test_every_preset_of_eight_devices_trains_a_gpt_as_one_device_does():
    result = python_on_eight(__file__, "gpt", *PRESETS)
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "presets"), [("transformer", PRESETS), ("rnnsearch", [p for p in PRESETS if "sequence" not in p])]
)
def test_every_preset_of_eight_devices_trains_a_translator_as_one_device_does(name, presets):
    result = python_on_eight(__file__, name, *presets)
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.slow
def test_the_forms_that_are_for_gpus_train_on_a_mesh_as_on_one_device():
    result = python_on_eight(__file__, "forms for gpus", *PRESETS)
    assert result.returncode == 0, result.stderr[-3000:]


def test_fused_kernels_run_on_a_mesh_as_on_one_device():
    result = python_on_eight(__file__, "kernels")
    assert result.returncode == 0, result.stderr[-3000:]


def test_a_loss_in_parts_computes_once_and_sends_its_gradient_once():
    result = python_on_eight(__file__, "loss")
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.parametrize(
    ("heads", "tensor", "sequence", "named"),
    [(6, 4, 1, "model.heads=6.*mesh.tensor=4"), (4, 4, 2, "mesh.sequence=2"), (None, 1, 2, "recurrent")],
)
def test_heads_that_the_mesh_cannot_share_are_one_line_of_numbers(heads, tensor, sequence, named):
    with pytest.raises(UserError, match=named):
        check_heads(AbstractMesh((1, 1, tensor, sequence), AXES), heads)


def test_heads_that_divide_are_taken():
    check_heads(AbstractMesh((1, 8, 2, 2), AXES), 12)
    check_heads(AbstractMesh((1, 8, 2, 1), AXES), None)


if __name__ == "__main__":
    jax.config.update("jax_disable_most_optimizations", True)
    what, *presets = sys.argv[1:]
    if what in CASES:
        check_presets(CASES[what](), presets)
    elif what == "forms for gpus":
        for module in (attention, layers, linear, losses, norms, stacks):
            module.platform = lambda: "gpu"
        check_presets(CASES["gpt"](), presets)
    elif what == "kernels":
        check_kernels()
    else:
        check_loss(make_mesh(MeshConfig(data=2, fsdp=4)))
        check_loss(make_mesh(MeshConfig(data=2, fsdp=2, sequence=2)))
