"""Plans of a training step: what is known from shapes alone, and, with libtpu, a compiled one."""

import dataclasses
import importlib.util
import json
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from experiments import experiment
from jax.sharding import Mesh

from zoo.cli import main
from zoo.errors import UserError
from zoo.experiment import from_file
from zoo.models import registry
from zoo.parallel.mesh import AXES
from zoo.planning import absent, compilation
from zoo.planning.absent import absent_devices, needed_bytes
from zoo.planning.chips import Topology
from zoo.planning.compilation import Memory, Plan, abstract_batch, model_config, plan
from zoo.planning.gpus import topology
from zoo.planning.prediction import Prediction
from zoo.planning.remedies import meshes, remedies

NEEDS_LIBTPU = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu, of the extra tpu")
# Small, with pieces that fill the chip's tiles.
SMALL = {"model.layers": "2", "model.width": "512", "model.ffn": "1024", "model.heads": "4", "data.length": "128"}
SMALL_ARGUMENTS = ["--config=gpt.py:gpt1", "--topology=v5e:4x4", *(f"--config.{k}={v}" for k, v in SMALL.items())]


def test_rows_that_do_not_divide_are_reported_with_the_numbers():
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1, 1), AXES)
    uneven = experiment(data__batch_rows="3", train__accumulate="2")
    with pytest.raises(UserError, match=r"data\.batch_rows=3 does not divide by 2"):
        abstract_batch(uneven, mesh)


def test_an_unknown_slice_and_a_bad_mesh_end_with_one_line(capsys):
    assert main(["plan", "--config=gpt.py:gpt1", "--topology=v9:4x4"]) == 2
    assert "known: a100, h100, h200, v4, v5e, v5p, v6e" in capsys.readouterr().err
    assert main(["plan", "--config=gpt.py:gpt1", "--topology=v5e:4x4", "--mesh", "data4"]) == 2
    assert "data4" in capsys.readouterr().err


def test_slices_that_the_mesh_does_not_name_are_reported_with_the_numbers():
    with pytest.raises(UserError, match=r"dcn_data=1.* the 2 slices"):
        plan(experiment(), Topology.parse("v5e:4x4", slices=2), [None] * 32)


@pytest.mark.parametrize(
    "said",
    [
        "Ran out of memory in memory space hbm. Used 29.50G of 15.75G hbm.",
        "the total memory required for HLO temporaries (29.50G) exceeds available HBM (15.75G)",
    ],
)
def test_what_the_compiler_would_have_needed_is_read_in_both_its_forms(said):
    size, whole = needed_bytes(jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: {said}"))
    assert (size, whole) == (29.5 * 2**30, said.startswith("Ran out"))


def test_without_libtpu_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", partial(lambda found, name: found, None))
    with pytest.raises(UserError, match=r"seqzoo\[tpu\]"):
        absent_devices(Topology.parse("v5e:4x4"))


def test_without_the_plugin_for_gpus_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", partial(lambda found, name: found, None))
    with pytest.raises(UserError, match=r"seqzoo\[gpu\]"):
        absent_devices(topology("h100:8"))


@pytest.mark.parametrize(
    "config, shape",
    [
        ("gpt.py:gpt1", (64, 512)),
        ("gpt1_finetune.py:stsb", (32, 1, 2, 512)),
        ("bahdanau2014.py", (80, 51)),
        ("multi30k.py:en-de", (64, 64)),
    ],
)
def test_the_longest_batch_of_every_task_is_planned(config, shape):
    planned = from_file(config)
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1, 1), AXES)
    batch, model = abstract_batch(planned, mesh), registry.of(model_config(planned))
    assert batch.inputs.shape == shape
    assert type(batch) is type(registry.example_batch(model.config))
    assert planned.data.planned_vocabularies().items() <= dataclasses.asdict(model.config).items()


def test_sentences_of_a_batch_decide_its_meshes_and_its_remedies():
    planned = from_file("bahdanau2014.py")
    assert {mesh.data * mesh.fsdp for mesh in meshes(planned, Topology.parse("v5e:4x8"))} <= {1, 2, 4, 8, 16}
    tried = [text for text, _ in remedies(planned, Topology.parse("v5e:4x4"))]
    assert "--config.data.batch_sentences=40" in tried


def test_a_mesh_that_cannot_be_planned_does_not_end_a_sweep(monkeypatch, capsys):
    def planned(experiment, topology, devices):
        if experiment.mesh.fsdp == 4:
            raise UserError("nobody can plan this")
        predicted = Prediction(1e15, 1e15, 1e15, experiment.mesh.fsdp, (), 16, 1e14)
        return Plan(topology, experiment.mesh.within(), 10, 10, Memory(0, 1), predicted, "libtpu", 60.0, 100.0)

    monkeypatch.setattr(compilation, "plan", planned)
    monkeypatch.setattr(absent, "absent_devices", lambda topology: [None] * topology.size)
    assert main(["plan", *SMALL_ARGUMENTS, "--sweep", "--json"]) == 0
    output = capsys.readouterr()
    found = [plan["mesh"]["fsdp"] for plan in json.loads(output.out)["plans"]]
    assert found and 4 not in found and "left out: nobody can plan this" in output.err


def test_a_sweep_continues_around_the_best_and_ranks_them_all(monkeypatch, capsys):
    def planned(experiment, topology, devices):
        mesh = experiment.mesh
        seconds, memory = mesh.tensor / mesh.fsdp, 20 if mesh.fsdp == 16 else 1
        predicted = Prediction(0.4e15 if mesh.fsdp == 4 else 1e15, 1e15, 1e15, seconds, (), 16, 1e14)
        return Plan(topology, mesh.within(), 10, 10, Memory(0, memory * 2**30), predicted, "libtpu", 60.0, 100.0)

    monkeypatch.setattr(compilation, "plan", planned)
    monkeypatch.setattr(absent, "absent_devices", lambda topology: [None] * topology.size)
    assert main(["plan", *SMALL_ARGUMENTS, "--sweep"]) == 0
    output = capsys.readouterr()
    _, *rows, note = output.out.strip().splitlines()
    assert rows[0].startswith("data=2,fsdp=8 ")  # which the first pass, of 1, 4 and 16, leaves out
    assert rows[-1].startswith("fsdp=16 ") and rows[-1].endswith("no room")
    times = [float(row.split()[3]) for row in rows if "no room" not in row]
    assert times == sorted(times)
    assert all(row.endswith("?") == ("fsdp=4" in row) for row in rows) and note.startswith("?")
    assert "to compile, about" in output.err


def planned_small(mesh, capsys):
    assert main(["plan", *SMALL_ARGUMENTS, "--mesh", mesh, "--config.data.batch_rows=16", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@NEEDS_LIBTPU
@pytest.mark.slow
def test_a_tpu_sends_activations_in_bfloat16(capsys):
    """A layer's: two sums forward, four backward, where queries, keys and values each have their own; and one each of
    the embedding and of the loss."""
    messages = planned_small("fsdp=8,tensor=2", capsys)["prediction"]["traffic"]
    activation = 2 * 128 * 512 * jnp.bfloat16.dtype.itemsize
    assert sum(m["bytes"] for m in messages if m["axes"] == ["tensor"]) == pytest.approx(14 * activation, rel=0.02)


@NEEDS_LIBTPU
@pytest.mark.slow
@pytest.mark.parametrize(
    ("mesh", "needed", "only"),
    [
        ("data=16", {("all-reduce", "data")}, True),
        ("data=2,fsdp=8", {("all-gather", "fsdp"), ("reduce-scatter", "fsdp"), ("all-reduce", "data")}, False),
        ("fsdp=8,tensor=2", {("all-gather", "fsdp"), ("reduce-scatter", "fsdp"), ("all-reduce", "tensor")}, False),
        ("fsdp=4,tensor=2,sequence=2", {("reduce-scatter", "fsdp"), ("all-to-all", "sequence")}, False),
    ],
)
def test_a_tpu_sends_what_a_mesh_needs(mesh, needed, only, capsys):
    found = planned_small(mesh, capsys)
    sent = {(message["kind"], "+".join(message["axes"])) for message in found["prediction"]["traffic"]}
    assert sent == needed if only else sent >= needed
    assert found["fits"] and math.prod(found["mesh"].values()) == 16
    assert found["prediction"]["flops_by_formula"] == pytest.approx(1, abs=0.05)
