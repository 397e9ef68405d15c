"""What attention becomes in a program for an NVIDIA GPU that is not here."""

import re

import jax
import numpy as np
import pytest

from zoo.data.batches.base import LanguageBatch
from zoo.models import build
from zoo.parallel.mesh import MeshConfig, make_mesh
from zoo.parallel.rules import in_force, replicated
from zoo.planning.absent import absent_devices, compiled, has_gpu_compiler
from zoo.planning.gpus import topology

H100 = "h100:1"
ROWS, LENGTH = 4, 512
NEEDS_PLUGIN = pytest.mark.skipif(not has_gpu_compiler(), reason="needs JAX's CUDA plugin, of the extra gpu")


@pytest.mark.slow
@NEEDS_PLUGIN
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_no_table_of_queries_by_keys_is_in_the_step_of_gpt1(rate, packed):
    model = build("gpt", "gpt1", layers=2, vocabulary=512, dtype="bfloat16", attention_dropout=rate)
    mesh = make_mesh(MeshConfig(), absent_devices(topology(H100)))
    params = jax.eval_shape(model.init, jax.random.key(0), LanguageBatch.example())
    ids = jax.ShapeDtypeStruct((ROWS, LENGTH), np.int32)
    batch = LanguageBatch(ids, ids, ids if packed else None)

    def loss(params, batch, seed):
        with in_force(mesh):
            output = model.apply(params, batch, train=True, rngs={"dropout": jax.random.key(seed)})
            return output.readout.logits().astype(np.float32).mean()

    step = jax.jit(jax.grad(loss), in_shardings=replicated(mesh))
    text = compiled(step.lower(params, batch, np.uint32(0)), topology(H100))[1]
    assert re.search(r"gpu\.triton|fmhaSoftmaxBackward", text)
    assert not re.findall(rf"\w+\[(?:\d+,)*{LENGTH},{LENGTH}\]", text)
