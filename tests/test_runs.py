"""The laws of training from Python: a call is the command, and an interrupted run goes on as if it had not stopped."""

import os
import signal

import jax
import numpy as np
import pytest
from conftest import TINY

import zoo
from zoo.errors import UserError
from zoo.training import loop
from zoo.training.listeners import Listener


@pytest.fixture
def settings(pairs_in_files):
    """A small run on pairs in files, by Python's own values."""
    own = {"train.steps": 3, "train.evaluate_every": 3, "train.checkpoint_every": 3, "train.log_every": 1}
    return TINY | {f"data.{split}": str(pairs_in_files) for split in ("train", "valid", "test")} | own


def test_a_call_trains_what_the_command_trains(settings, workdir, tmp_path):
    heard = []

    class Ears(Listener):
        def report(self, step, values):
            heard.append(step)

    run = zoo.train(workdir=tmp_path / "run", listeners=[Ears()], **settings)
    assert heard == [1, 2, 3, 3]
    assert run.step == zoo.load(workdir).step == 3
    assert jax.tree.all(jax.tree.map(np.array_equal, run.params, zoo.load(workdir).params))
    assert len(run.translate(["in 1 days", ""])) == 2
    assert (run.path / "summary.json").exists()


def test_an_interrupted_call_continues_bit_for_bit(settings, workdir, tmp_path, monkeypatch):
    place, seen, heard = loop.place, [], signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupted_at_the_second_batch(batch, mesh):
        seen.append(batch)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return place(batch, mesh)

    monkeypatch.setattr(loop, "place", interrupted_at_the_second_batch)
    assert zoo.train(workdir=tmp_path / "run", **settings).step == 2
    assert not (tmp_path / "run" / "summary.json").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    monkeypatch.setattr(loop, "place", place)
    run = zoo.train(workdir=tmp_path / "run", **settings)
    assert run.step == 3
    assert jax.tree.all(jax.tree.map(np.array_equal, run.params, zoo.load(workdir).params))
    signal.signal(signal.SIGINT, heard)


def test_wrong_words_are_reported_before_anything_is_made(settings, tmp_path):
    for given, message in (
        ({"train.stps": 3}, "train.stps is not a key"),
        ({"train.steps": 0.5}, "train.steps=0.5 is not a whole number"),
        ({"init_from": "a", "like": "b"}, "exclude each other"),
    ):
        with pytest.raises(UserError, match=message):
            zoo.train(workdir=tmp_path / "run", **settings | given)
    assert not (tmp_path / "run").exists()


def test_the_public_face_is_short_and_whole():
    assert zoo.build("transformer", "tiny").config.layers == 4
    assert {"model", "size", "paper", "parameters"} == set(zoo.catalog()[0])
    assert set(zoo.__all__) == {"build", "catalog", "load", "train"} and all(getattr(zoo, name) for name in zoo.__all__)
