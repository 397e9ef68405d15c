"""The benchmarks run, and what stands beside the zoo is the same model. Nothing is timed."""

import argparse
import importlib.util
import os
import sys
import types
from itertools import islice

import jax.numpy as jnp
import pytest

from benchmarks import chaos, checkpoints, tokenize, train_recurrent
from benchmarks.in_turns import Contestant, race
from benchmarks.measuring import Result
from zoo.checkpoints import Checkpoints
from zoo.data import tokenizers
from zoo.errors import UserError
from zoo.models import registry


@pytest.fixture
def minute(monkeypatch) -> argparse.Namespace:
    """One round of a minute size in float32, without the ceiling."""
    monkeypatch.setattr(train_recurrent, "matmul_ceiling", lambda dtype: 1.0)
    parser = argparse.ArgumentParser()
    train_recurrent.add_arguments(parser)
    sizes = "--sentences=2 --length=3 --width=8 --vocabulary=12 --rounds=1 --updates=1 --dtypes float32"
    return parser.parse_args(sizes.split())


def test_without_pytorch_the_zoo_trains_alone_and_one_line_says_so(minute, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(train_recurrent, "MODELS", ("seq2seq",))
    (row,) = train_recurrent.run(minute).as_dict()["rows"]
    assert row["system"] == "zoo seq2seq float32"
    assert row["tokens_per_second"] > 0 and row["ratio"] == 1
    assert capsys.readouterr().err.count("pip install -e '.[bench]'") == 1


@pytest.mark.parametrize("name", train_recurrent.MODELS)
def test_the_model_beside_the_zoos_has_its_parameters_and_learns_the_batch(minute, name):
    pytest.importorskip("torch")
    config = train_recurrent._config(minute, name, "float32")
    peer = train_recurrent._torch(name, config, train_recurrent._full_batch(minute))
    losses = [peer.update() for _ in range(5)]
    assert losses[-1] < losses[0]
    large = train_recurrent._config(argparse.Namespace(width=64, vocabulary=1000), name, "float32")
    parameters = train_recurrent._torch(name, large, train_recurrent._full_batch(minute)).parameters
    assert parameters == pytest.approx(registry.parameter_count(large), rel=0.02)


TOY = """
def prepare(options):
    def turn():
        print("a library talks")
        with open(options["log"], "a") as log:
            log.write(options["name"])
        if options["name"] == "c":
            raise SystemExit(3)
        return options["name"].upper()

    return turn
"""


def contestant(directory, name, monkeypatch):
    (directory / "toy_contestant.py").write_text(TOY)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(directory), *sys.path]))
    return Contestant(name, "toy_contestant", {"name": name, "log": str(directory / "log")})


def test_contestants_warm_up_and_then_take_turns(tmp_path, monkeypatch):
    both = [contestant(tmp_path, name, monkeypatch) for name in "ab"]
    race(both, rounds=2)
    assert (tmp_path / "log").read_text() == "ab" + "abab"
    assert [(one.outcome, len(one.seconds)) for one in both] == [("A", 2), ("B", 2)]
    assert all(one.process.poll() == 0 for one in both)


def test_a_contestant_that_fails_is_named_and_the_others_end(tmp_path, monkeypatch):
    both = [contestant(tmp_path, name, monkeypatch) for name in "ac"]
    with pytest.raises(UserError, match=r"^c ended with 3 "):
        race(both, rounds=1)
    assert both[0].process.poll() == 0


def test_the_ratio_is_over_the_system_that_a_row_stands_beside():
    rows = [
        {"system": "one", "tokens_per_second": 2.0},
        {"system": "two", "tokens_per_second": 3.0},
        {"system": "three", "tokens_per_second": 6.0, "beside": "two"},
    ]
    assert [row["ratio"] for row in Result("names", rows).rows] == [1, 1.5, 2]


def test_every_tokenizer_has_a_row_with_its_vocabulary(tmp_path):
    (tmp_path / "a.txt").write_text("the cat sat on the mat\n" * 99)
    parser = argparse.ArgumentParser()
    tokenize.add_arguments(parser)
    arguments = parser.parse_args([f"--data={tmp_path}", "--vocabulary=280", "--characters=500"])
    with pytest.raises(UserError, match=r"data\.vocabulary=280 is too large"):
        tokenize.run(arguments)
    arguments.vocabulary = 274
    rows = tokenize.run(arguments).as_dict()["rows"]
    assert [row["system"] for row in rows] == [f"zoo {kind}" for kind in tokenizers.LEARNED]
    assert all(row["tokens_per_second"] > 0 and row["vocabulary"] > 4 for row in rows)


def test_the_faults_of_a_chaos_run_follow_from_its_seed():
    one, again, other = ([*islice(chaos.faults(seed, chaos.KINDS), 10)] for seed in (1, 1, 2))
    assert one == again != other
    assert sorted(fault.kind for fault in one) == sorted(2 * chaos.KINDS)


@pytest.mark.parametrize("kind", chaos.DAMAGES)
def test_a_damage_changes_the_file_that_it_befalls(tmp_path, kind):
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    chaos.damage(path, chaos.Fault(kind, 1, 0.0, 0.5))
    assert path.read_bytes() == (bytes(50) if kind == "truncated checkpoint" else bytes(50) + b"\xff" + bytes(49))


def test_a_run_of_other_parameters_has_not_recovered(tmp_path):
    for name, scale in (("one", 1.0), ("same", 1.0), ("other", 1.0 + 2**-23)):
        saved = Checkpoints(tmp_path / name)
        saved.save(1, {"params": {"scale": jnp.full(3, scale)}}, None, {})
        saved.close()
    assert chaos.same_parameters(tmp_path / "one", tmp_path / "same")
    assert not chaos.same_parameters(tmp_path / "one", tmp_path / "other")
    failed = chaos.Chaos(chaos.Tally(finished=1, failures=["other parameters"]), chaos.KINDS, None)
    assert not failed.passed and failed.as_dict()["rows"][0]["all_recovered"] == "False"


def test_stretches_of_steps_are_distinguished_by_their_checkpoints(monkeypatch):
    """Ten steps of a second each, with a save of ten after the fourth, the eighth and the last."""
    clock = [0.0]

    def lasting(seconds: float) -> None:
        clock[0] += seconds

    training = types.SimpleNamespace(step=lasting, checkpoints=types.SimpleNamespace(save=lasting))

    def run(_: dict) -> None:
        for step in range(1, 11):
            training.step(1.0)
            if step % 4 == 0 or step == 10:
                training.checkpoints.save(10.0)

    training.run = run
    monkeypatch.setattr("benchmarks.checkpoints.time.perf_counter", lambda: clock[0])
    assert checkpoints.timed_stretches(training, 2) == ([2.0, 2.0], [12.0, 12.0], [10.0, 10.0])
