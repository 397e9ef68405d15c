"""What all tests share: JAX on the CPU, and a small trained working directory."""

import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

import pytest

from zoo.cli import main

TINY = (
    "--config.model.width=16 --config.model.heads=2 --config.model.layers=2 --config.model.ffn=16 "
    "--config.data.vocabulary=40 --config.data.batch_tokens=512 --config.data.max_length=24 --config.data.pool=0 "
    "--config.train.compute_dtype=float32 --config.train.log_every=1 --config.train.evaluate_every=3 "
    "--config.train.checkpoint_every=1 --config.train.evaluation_size=0 --config.train.steps=3 "
    "--config.decoding.max_length=12 --config.decoding.max_extra=4"
).split()


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
    directory = tmp_path_factory.mktemp("runs") / "tiny"
    pairs = [f"--config.data.{split}={pairs_in_files}" for split in ("train", "valid", "test")]
    assert main(["train", f"--workdir={directory}", *TINY, *pairs]) == 0
    return directory
