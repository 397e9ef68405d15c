"""An import has little more in memory than the parameters."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
from foreign_models import gpt2_shapes, gpt2_vocabulary, json_file
from safetensors.numpy import save_file

READ = """
import sys, jax, zoo

def memory(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))

run = zoo.load(sys.argv[1])
like, before = run._on_one_device(), memory("VmRSS")
params = jax.block_until_ready(run.params)
print((memory("VmHWM") - before) / sum(leaf.nbytes for leaf in jax.tree.leaves(params)))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_peak_of_an_import_is_at_most_one_and_a_third_of_its_parameters(tmp_path):
    size = gpt2_vocabulary(tmp_path) + 20_000
    shape = {"n_embd": 768, "n_layer": 20, "n_head": 12, "n_positions": 512}
    json_file(tmp_path / "config.json", {"model_type": "gpt2", "vocab_size": size, "eos_token_id": 9, **shape})
    shapes = gpt2_shapes(size, 20, 768, 512)
    save_file({name: np.ones(shape, np.float32) for name, shape in shapes.items()}, tmp_path / "model.safetensors")
    command = [sys.executable, "-c", textwrap.dedent(READ), str(tmp_path)]
    assert float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) < 1.3
