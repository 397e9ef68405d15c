"""Plans of a training step: what is computed from shapes alone, and, with libtpu, a compiled one."""

import importlib.util
import json
import math
from functools import partial

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from zoo import planning
from zoo.cli import main
from zoo.data.batching import LanguageBatch
from zoo.errors import UserError
from zoo.experiment import resolve
from zoo.models import registry
from zoo.parallel.chips import CHIPS, Topology
from zoo.parallel.mesh import AXES
from zoo.parallel.program import Program
from zoo.tasks.losses import cross_entropy
from zoo.training.loop import matrix_parameters

POD = Topology.parse("v5e:4x4")
ONE = dict.fromkeys(AXES, 1)


def experiment(**changes: str):
    tree = {
        "task": "language_modeling",
        "model": {"name": "gpt", "size": "gpt1"},
        "data": {"packing": "stream"},
        "optimizer": {"peak": 1e-4, "schedule": "constant"},
        "train": {"select": "loss"},
    }
    return resolve(tree, [(key.replace("__", "."), value) for key, value in changes.items()])


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
    return 6 * matrices * rows * length + planning.attention_flops(config, rows, length)


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
    found = planning.predict(Program(compiled.as_text(), ONE), POD, mesh, config, batch, matrices)
    assert found.flops == pytest.approx(found.formula_flops, rel=0.05)
    assert found.formula_flops > 1.15 * found.model_flops


def prediction(kernel: float, *traffic: tuple[float, bool]) -> planning.Prediction:
    messages = tuple(planning.Traffic("all-gather", ("fsdp",), 1, 1, seconds, beside) for seconds, beside in traffic)
    return planning.Prediction(1e15, 1e15, 1e15, kernel, messages, 10, 1e14)


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
    found = planning.predict(Program(text, ONE), POD, mesh, config, LanguageBatch(ids, ids), 1000)
    chip, square = CHIPS["v5e"], 512 * 512 * 4
    products = 2 * 512**3 / chip.flops
    assert products < 3 * square / chip.bandwidth
    assert found.kernel_seconds == pytest.approx(2 * 3 * square / chip.bandwidth)
    assert found.flops == 2 * 512**3


def test_a_sweep_tries_meshes_that_fill_the_slice_and_divide_the_model():
    found = planning.meshes(experiment(), POD)
    assert {mesh.data * mesh.fsdp * mesh.tensor for mesh in found} == {POD.size}
    assert {mesh.tensor for mesh in found} == {1, 2, 4}  # of 12 heads
    assert any(mesh.fsdp == POD.size for mesh in found) and any(mesh.data == POD.size for mesh in found)


def test_a_sweep_leaves_out_meshes_that_cannot_hold_the_state_or_cut_the_batch():
    large = planning.meshes(experiment(model__size="gpt3_13b", data__batch_rows="16"), POD)
    assert all(12 * 13e9 / (mesh.fsdp * mesh.tensor) < CHIPS["v5e"].memory for mesh in large)
    assert all(mesh.data * mesh.fsdp <= 4 for mesh in planning.meshes(experiment(data__batch_rows="4"), POD))


def test_remedies_come_mildest_first():
    found = [text for text, _ in planning.remedies(experiment(), POD)]
    assert found[:3] == ["--config.model.remat=true", "--config.data.batch_rows=32", "--config.data.batch_rows=16"]
    assert found[3].startswith("--mesh=")
    assert all(changed.model.config().remat for _, changed in planning.remedies(experiment(), POD))


def test_rows_that_do_not_divide_are_told_with_the_numbers():
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1, 1), AXES)
    uneven = experiment(data__batch_rows="3", train__accumulate="2")
    with pytest.raises(UserError, match=r"data\.batch_rows=3 does not divide by 2"):
        planning.abstract_batch(uneven, mesh)


def test_an_unknown_slice_and_a_bad_mesh_end_with_one_line(capsys):
    assert main(["plan", "--config=gpt.py:gpt1", "--topology=v9:4x4"]) == 2
    assert "known: v4, v5e, v5p, v6e" in capsys.readouterr().err
    assert main(["plan", "--config=gpt.py:gpt1", "--topology=v5e:4x4", "--mesh", "data4"]) == 2
    assert "data4" in capsys.readouterr().err


def test_without_libtpu_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", partial(lambda found, name: found, None))
    with pytest.raises(UserError, match=r"seqzoo\[tpu\]"):
        planning.slice_devices(POD)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu, of the extra tpu")
def test_a_step_compiles_for_a_slice_that_is_not_there(capsys):
    small = {"model.layers": "2", "model.width": "128", "model.ffn": "256", "model.heads": "2", "data.length": "128"}
    changes = [f"--config.{key}={value}" for key, value in small.items()]
    arguments = ["--config=gpt.py:gpt1", "--topology=v5e:4x4", "--mesh", "data=4,fsdp=4", "--json", *changes]
    assert main(["plan", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fits"] and math.prod(found["mesh"].values()) == 16
    kinds = {message["kind"] for message in found["prediction"]["traffic"]}
    assert "all-gather" in kinds and kinds & {"all-reduce", "reduce-scatter"}
    assert found["prediction"]["flops"] == pytest.approx(found["prediction"]["formula_flops"], rel=0.05)
