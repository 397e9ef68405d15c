"""Plans of a training step: what is known from shapes alone, and, with libtpu, a compiled one."""

import importlib.util
import json
import math
from functools import partial

import jax
import numpy as np
import pytest
from experiments import experiment
from jax.sharding import Mesh

from zoo.cli import main
from zoo.errors import UserError
from zoo.parallel.chips import Topology
from zoo.parallel.mesh import AXES
from zoo.planning.compilation import _needed, abstract_batch, plan, slice_devices


def test_rows_that_do_not_divide_are_told_with_the_numbers():
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1, 1), AXES)
    uneven = experiment(data__batch_rows="3", train__accumulate="2")
    with pytest.raises(UserError, match=r"data\.batch_rows=3 does not divide by 2"):
        abstract_batch(uneven, mesh)


def test_an_unknown_slice_and_a_bad_mesh_end_with_one_line(capsys):
    assert main(["plan", "--config=gpt.py:gpt1", "--topology=v9:4x4"]) == 2
    assert "known: v4, v5e, v5p, v6e" in capsys.readouterr().err
    assert main(["plan", "--config=gpt.py:gpt1", "--topology=v5e:4x4", "--mesh", "data4"]) == 2
    assert "data4" in capsys.readouterr().err


def test_slices_that_the_mesh_does_not_name_are_told_with_the_numbers():
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
    memory = _needed(jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: {said}"), ())
    assert memory.peak == 29.5 * 2**30


def test_without_libtpu_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", partial(lambda found, name: found, None))
    with pytest.raises(UserError, match=r"seqzoo\[tpu\]"):
        slice_devices(Topology.parse("v5e:4x4"))


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
