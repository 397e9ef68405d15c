"""What all tests share: JAX on the CPU, or on `ZOO_TEST_PLATFORM`, and a small trained working directory."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

os.environ["JAX_PLATFORMS"] = os.environ.get("ZOO_TEST_PLATFORM", "cpu")

import compilation
import jax
import pytest

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
    "decoding.compute_dtype": "float32",
    "train.log_every": "1",
    "train.evaluate_every": "3",
    "train.checkpoint_every": "1",
    "train.evaluation_size": "0",
    "train.steps": "3",
    "decoding.max_length": "12",
    "decoding.max_extra": "4",
}


def pytest_configure(config: pytest.Config) -> None:
    if os.environ["JAX_PLATFORMS"] == "cpu":
        compilation.set_up(config)


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


@pytest.fixture
def converse(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str], list[bytes]], list[bytes]]:
    """`converse(argv, lines)`: the answer of a command to each line, which it gets when it has answered the one before,
    from a pipe that stays open."""
    import select
    import sys
    import threading

    from zoo.cli import main

    def run(argv: list[str], lines: list[bytes]) -> list[bytes]:
        (given, asking), (answering, out) = os.pipe(), os.pipe()
        with open(given, "rb") as stdin, open(out, "w") as stdout, open(answering, "rb") as answers:
            monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stdin, isatty=lambda: False))
            monkeypatch.setattr(sys, "stdout", stdout)
            thread = threading.Thread(target=main, args=(argv,), daemon=True)
            thread.start()
            told = []
            with open(asking, "wb", buffering=0) as writer:
                for line in lines:
                    writer.write(line + b"\n")
                    assert select.select([answers], [], [], 60)[0], "no answer"
                    told.append(answers.readline())
            thread.join()
        return told

    return run


@pytest.fixture(scope="session")
def wild():
    """A Transformer that was never trained, and parameters at three times their size, so that hypotheses differ."""
    import numpy as np
    from flax import linen as nn

    from zoo.data.batches.base import Seq2SeqBatch
    from zoo.models.transformer import Transformer, TransformerConfig

    config = TransformerConfig(14, 14, layers=2, width=16, ffn=32, heads=2, dropout=0.0)
    model, nothing = Transformer(config), np.ones((1, 1), np.int32)
    variables = jax.jit(lambda: nn.unbox(model.init(jax.random.key(3), Seq2SeqBatch(nothing, nothing, nothing))))()
    return model, jax.tree.map(lambda x: 3 * x, variables["params"])


@pytest.fixture
def mistake(capfd):
    """`mistake(*argv)`: the one line that answers it, log lines before it aside, and no word on standard output."""
    from zoo.cli import main

    def run(*argv: object) -> str:
        capfd.readouterr()
        assert main([str(word) for word in argv]) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert err.count("zoo: error: ") == 1
        last = err.splitlines()[-1]
        assert last.startswith("zoo: error: ")
        assert "Traceback" not in err
        return last

    return run


@pytest.fixture
def start(mistake, tmp_path, pairs_in_files):
    """`start({key: value})`: the answer to a start with these changes of a config that is right, in a new directory."""

    def run(changes: dict[str, object], workdir: Path | None = None) -> str:
        config = TINY | {f"data.{split}": pairs_in_files for split in ("train", "valid", "test")} | changes
        options = [f"--config.{key}={value}" for key, value in config.items()]
        return mistake("train", f"--workdir={workdir or tmp_path / 'run'}", *options)

    return run


@pytest.fixture
def copy(workdir, tmp_path) -> Path:
    """A trained working directory to spoil."""
    return shutil.copytree(workdir, tmp_path / "copy")


@pytest.fixture
def log_as_before():
    """The command line takes the log for itself."""
    propagate = logging.getLogger("zoo").propagate
    yield
    logging.getLogger("zoo").propagate = propagate
