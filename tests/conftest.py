"""What all tests share: JAX on the CPU, and a small trained working directory."""

import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import pytest

# The tests compile far longer than they compute.
jax.config.update("jax_disable_most_optimizations", True)

TINY = {
    "model.width": "16",
    "model.heads": "2",
    "model.layers": "2",
    "model.ffn": "16",
    "data.vocabulary": "40",
    "data.batch_tokens": "512",
    "data.max_length": "24",
    "data.pool": "0",
    "train.compute_dtype": "float32",
    "train.log_every": "1",
    "train.evaluate_every": "3",
    "train.checkpoint_every": "1",
    "train.evaluation_size": "0",
    "train.steps": "3",
    "decoding.max_length": "12",
    "decoding.max_extra": "4",
}


@pytest.fixture(scope="session")
def pairs_in_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prefix of 40 English-French pairs in files."""
    prefix = tmp_path_factory.mktemp("pairs") / "text"
    prefix.with_suffix(".en").write_text("".join(f"in {n} days\n" for n in range(40)), encoding="utf-8")
    prefix.with_suffix(".fr").write_text("".join(f"dans {n} jours\n" for n in range(40)), encoding="utf-8")
    return prefix


@pytest.fixture(scope="session")
def workdir(tmp_path_factory: pytest.TempPathFactory, pairs_in_files: Path) -> Path:
    """A working directory that the command line has trained for 3 steps, from end to end. Not to be changed."""
    from zoo.cli import main

    directory = tmp_path_factory.mktemp("runs") / "tiny"
    config = TINY | {f"data.{split}": str(pairs_in_files) for split in ("train", "valid", "test")}
    assert main(["train", f"--workdir={directory}", *(f"--config.{key}={value}" for key, value in config.items())]) == 0
    return directory


@pytest.fixture(scope="session")
def wild():
    """A Transformer that was never trained, and parameters at three times their size, so that hypotheses differ."""
    import numpy as np
    from flax import linen as nn

    from zoo.data.batching import Seq2SeqBatch
    from zoo.models.transformer import Transformer, TransformerConfig

    config = TransformerConfig(14, 14, layers=2, width=16, ffn=32, heads=2, dropout=0.0)
    model, nothing = Transformer(config), np.ones((1, 1), np.int32)
    variables = jax.jit(lambda: nn.unbox(model.init(jax.random.key(3), Seq2SeqBatch(nothing, nothing, nothing))))()
    return model, jax.tree.map(lambda x: 3 * x, variables["params"])
