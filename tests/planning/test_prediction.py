"""The roofline of a compiled step."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from zoo.data.batches.base import LanguageBatch
from zoo.models import registry
from zoo.parallel.mesh import AXES
from zoo.planning.chips import CHIPS, Topology
from zoo.planning.gpus import CARDS
from zoo.planning.prediction import Prediction, Traffic, attention_flops, kernel_seconds, predict
from zoo.planning.program import Program
from zoo.tasks.losses import cross_entropy
from zoo.training.loop import matrix_parameters

POD = Topology.parse("v5e:4x4")
ONE = dict.fromkeys(AXES, 1)


def gradient_of_gpt(**changes):
    """The compiled gradient of a GPT of a few layers, its config, its batch and the matrices that tokens meet."""
    small = {"layers": 2, "width": 256, "ffn": 1024, "heads": 4, "vocabulary": 512, "attention_backend": "einsum"}
    config = registry.config("gpt", "gpt2_124m", **(small | {"dropout": 0.0, "attention_dropout": 0.0} | changes))
    model, ids = registry.of(config), jax.ShapeDtypeStruct((4, 128), np.int32)
    batch = LanguageBatch(ids, ids)
    params = jax.eval_shape(lambda: nn.unbox(model.init(jax.random.key(0), LanguageBatch.example())["params"]))

    def objective(params, batch):
        return cross_entropy(model.apply({"params": params}, batch, train=True).readout, batch.labels).objective

    compiled = jax.jit(jax.grad(objective)).lower(params, batch).compile()
    return compiled, config, batch, matrix_parameters(model, params, LanguageBatch.example())


def formula(config, batch, matrices) -> float:
    rows, length = batch.inputs.shape
    return 6 * matrices * rows * length + attention_flops(config, rows, length)


def test_the_formula_counts_what_the_compiler_counts():
    compiled, config, batch, matrices = gradient_of_gpt(scan_layers=False)
    expected = formula(config, batch, matrices)
    assert compiled.cost_analysis()["flops"] == pytest.approx(expected, rel=0.05)
    assert Program(compiled.as_text(), ONE).flops == pytest.approx(expected, rel=0.05)


def test_a_scanned_stack_counts_as_all_of_its_layers():
    compiled, config, batch, matrices = gradient_of_gpt(layers=4, width=192, ffn=768)
    assert Program(compiled.as_text(), ONE).flops == pytest.approx(formula(config, batch, matrices), rel=0.05)


def test_what_is_computed_again_leaves_out_the_last_product_before_a_sum():
    compiled, config, batch, matrices = gradient_of_gpt(width=192, ffn=768, remat=True)
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1, 1), AXES)
    found = predict(Program(compiled.as_text(), ONE), POD, mesh, config, batch, matrices)
    assert found.flops == pytest.approx(found.formula_flops, rel=0.05)
    assert found.formula_flops > 1.15 * found.model_flops


def prediction(kernel: float, *traffic: tuple[float, bool]) -> Prediction:
    messages = tuple(Traffic("all-gather", ("fsdp",), 1, 1, seconds, beside) for seconds, beside in traffic)
    return Prediction(1e15, 1e15, 1e15, kernel, messages, 10, 1e14)


def test_messages_beside_kernels_cost_what_exceeds_them_and_others_are_added():
    assert prediction(2.0, (1.5, True), (0.5, False)).step_seconds == 2.5
    assert prediction(2.0, (3.0, True), (0.5, False)).step_seconds == 3.5
    assert prediction(2.0).mfu == pytest.approx(0.5)


def test_a_kernel_takes_the_longer_of_products_and_traffic():
    text = """HloModule m

ENTRY %main (x: f32[512,512], y: f32[512,512]) -> f32[512,512] {
  %x = f32[512,512]{1,0} parameter(0)
  %y = f32[512,512]{1,0} parameter(1)
  %dot = f32[512,512]{1,0} dot(%x, %y), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %add = f32[512,512]{1,0} add(%dot, %x)
}
"""
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1, 1), AXES)
    config, ids = registry.config("gpt", "nano"), jax.ShapeDtypeStruct((1, 8), np.int32)
    found = predict(Program(text, ONE), POD, mesh, config, LanguageBatch(ids, ids), 1000)
    chip, square = CHIPS["v5e"], 512 * 512 * 4
    products = 2 * 512**3 / chip.flops
    assert products < 3 * square / chip.bandwidth
    assert found.kernel_seconds == pytest.approx(2 * 3 * square / chip.bandwidth)
    assert found.flops == 2 * 512**3


def test_a_gpu_takes_the_sum_of_products_and_traffic_at_the_rates_that_were_reached():
    text = """HloModule m

ENTRY %main (x: f32[512,512], y: f32[512,512]) -> f32[512,512] {
  %x = f32[512,512]{1,0} parameter(0)
  %y = f32[512,512]{1,0} parameter(1)
  ROOT %dot = f32[512,512]{1,0} dot(%x, %y), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
"""
    reached = CARDS["h100"].chip.reached
    expected = 2 * 512**3 / reached.flops + 3 * 512 * 512 * 4 / reached.bandwidth
    assert kernel_seconds(Program(text, ONE), CARDS["h100"].chip) == pytest.approx(expected)
