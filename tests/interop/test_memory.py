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

zoo.load(sys.argv[1]).params  # what the libraries take for themselves at the first import of all
run = zoo.load(sys.argv[2])
like = run._on_one_device()
open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
before = memory("VmRSS")
params = jax.block_until_ready(run.params)
print((memory("VmHWM") - before) / sum(leaf.nbytes for leaf in jax.tree.leaves(params)))
"""


def folder_of(folder, vocabulary, layers, width, length):
    """A GPT-2 whose parameters are ones."""
    folder.mkdir()
    size = gpt2_vocabulary(folder) + vocabulary
    shape = {"n_embd": width, "n_layer": layers, "n_head": 4, "n_positions": length}
    json_file(folder / "config.json", {"model_type": "gpt2", "vocab_size": size, "eos_token_id": 9, **shape})
    shapes = gpt2_shapes(size, layers, width, length)
    save_file({name: np.ones(shape, np.float32) for name, shape in shapes.items()}, folder / "model.safetensors")
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_an_import_takes_at_most_three_tenths_more_memory_than_the_parameters(tmp_path):
    small, large = folder_of(tmp_path / "small", 10, 1, 16, 32), folder_of(tmp_path / "large", 20_000, 10, 768, 512)
    command = [sys.executable, "-c", textwrap.dedent(READ), str(small), str(large)]
    found = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 0.9 < found < 1.3
