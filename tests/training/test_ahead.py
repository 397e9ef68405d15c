"""What is compiled before the first step is the same step."""

import logging
import os
from types import SimpleNamespace

import numpy as np
import optax
import pytest

from zoo.cli import enter
from zoo.data.batches.base import LanguageBatch
from zoo.experiment import from_file
from zoo.models import build
from zoo.parallel.mesh import make_mesh
from zoo.training.ahead import compiled_ahead
from zoo.training.arrays import ArrayTraining
from zoo.training.loop import Training


def batch(rows: int, length: int) -> LanguageBatch:
    ids = np.random.default_rng(length).integers(4, 12, (rows, length + 1), np.int32)
    return LanguageBatch(ids[:, :-1], ids[:, 1:])


def test_every_shape_is_compiled_once_and_trains_as_the_step_itself(caplog):
    model = build("gpt", "nano", vocabulary=12, layers=1, width=8, heads=2, ffn=16, dropout=0.1)
    plain, early = ArrayTraining(model, optax.sgd(0.1)), ArrayTraining(model, optax.sgd(0.1))
    jitted = early.step
    with caplog.at_level(logging.INFO, "zoo"):
        early.step = compiled_ahead(jitted, early.shapes, [batch(2, 5), batch(3, 4)], early.mesh)
    assert [record.args[:2] for record in caplog.records] == [(1, 2), (2, 2)]
    for rows in (batch(2, 5), batch(2, 5)):
        one, other = plain.update(rows), early.update(rows)
        assert float(one["sums"].loss) == float(other["sums"].loss)
    early.update(batch(3, 4))
    assert jitted._cache_size() == 0


@pytest.mark.parametrize("steps, compiled", [(100, True), (99, False)])
def test_runs_of_few_steps_compile_what_they_meet_and_others_read_meanwhile(steps, compiled, tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr("zoo.training.loop.compiled_ahead", lambda step, *others: called.append("compile") or step)
    batches = SimpleNamespace(start_prefetch=lambda: called.append("read"))
    experiment = from_file("phrases.py:en-fr", (("train.steps", str(steps)), ("data.pool", "64")))
    task = experiment.make_task(tmp_path)
    monkeypatch.setattr(type(task), "training_shapes", lambda self, shards: self.data.batch_shapes(shards))
    training = {"task": task, "config": experiment.train, "shards": 1, "mesh": make_mesh(experiment.mesh)}
    Training._compile(SimpleNamespace(**training, batches=batches, step=None, shapes=None), 0)
    assert called == (["read", "compile"] if compiled else [])


def test_a_command_keeps_its_programs_where_jax_looks_for_them(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_MAX_SIZE", "1")
    with pytest.raises(SystemExit, match="0"):
        enter(["--help"])
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "seqzoo" / "programs")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    with pytest.raises(SystemExit, match="0"):
        enter(["--help"])
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "elsewhere"
