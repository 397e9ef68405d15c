"""Several steps in one call are the same steps, and nothing that happens between steps is lost."""

import json
import threading
from itertools import chain, count
from types import SimpleNamespace

import grain
import jax
import numpy as np
import pytest
from noise import Noise, training

from zoo.checkpoints import load_parameters
from zoo.errors import UserError
from zoo.training import calls as module
from zoo.training.awaited import AHEAD, Awaited
from zoo.training.calls import calls, steps_per_call
from zoo.training.config import TrainConfig

EVERY = {"log_every": 8, "checkpoint_every": 8, "evaluate_every": 8}


def counted(run):
    """The run, and how many steps each of its calls makes, as a list that grows."""
    made, one, several = [], run.step, run.several
    run.step = lambda *arguments: made.append(1) or one(*arguments)
    run.several = lambda state, batches: made.append(len(batches)) or several(state, batches)
    return run, made


def records(workdir):
    """All that was reported, without what depends on the clock."""
    timed = ("train/tokens_per_second", "train/mfu", "train/data_wait")
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in timed} for line in lines]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Sixteen steps, each in a call of its own."""
    workdir = tmp_path_factory.mktemp("alone")
    run, made = counted(training(Noise(workdir), 16, steps_per_call=1, **EVERY))
    assert run.run({}) and made == [1] * 16
    return workdir


def assert_same_parameters(*workdirs):
    jax.tree.map(np.testing.assert_array_equal, *(load_parameters(path, "latest")[1] for path in workdirs))


def test_steps_in_one_call_change_nothing(alone, tmp_path):
    run, made = counted(training(Noise(tmp_path), 16, steps_per_call=4, **EVERY))
    assert run.run({}) and made == [4] * 4
    assert_same_parameters(alone, tmp_path)
    assert records(alone) == records(tmp_path)


def test_a_run_stopped_amid_a_call_resumes_as_if_it_had_not_been(alone, tmp_path):
    """It ends at step 10, with calls of four; then it goes on to 16."""
    assert training(Noise(tmp_path), 10, steps_per_call=4, **EVERY).run({})
    run, made = counted(training(Noise(tmp_path), 16, steps_per_call=4, **EVERY))
    assert run.run({}) and made == [1, 1, 4]
    assert_same_parameters(alone, tmp_path)


def test_a_loss_that_is_no_number_is_told_with_its_own_step(tmp_path):
    every = EVERY | {"log_every": 4, "checkpoint_every": 4}
    with pytest.raises(UserError, match=r"the loss of step 6 is not a number; the checkpoint of step 4 is kept"):
        training(Noise(tmp_path, poisoned=6), 8, steps_per_call=4, **every).run({})
    run = training(Noise(tmp_path, poisoned=6), 8, steps_per_call=4, rollbacks=1, **every)
    assert run.run({}) and run.progress.rollbacks == 1


class Uneven(Noise):
    """Every third batch has half of the rows."""

    def training_batches(self, shards, share):
        batches = super().training_batches(shards, share)
        return Cut(batches)


class Cut(grain.DatasetIterator):
    def __init__(self, batches):
        super().__init__()
        self.batches, self.given = batches, 0

    def __next__(self):
        self.given += 1
        rows = 4 if self.given % 3 == 0 else 8
        return jax.tree.map(lambda leaf: leaf[:rows], next(self.batches))

    def get_state(self):
        return {"batches": self.batches.get_state(), "given": self.given}

    def set_state(self, state):
        self.batches.set_state(state["batches"])
        self.given = state["given"]


def test_batches_of_unlike_shapes_go_one_by_one(tmp_path):
    run, made = counted(training(Uneven(tmp_path), 8, steps_per_call=2, **EVERY))
    assert run.run({}) and made == [2, 1, 1, 1, 1, 2]


@pytest.mark.parametrize("size", [1, 3, 4, 10])
@pytest.mark.parametrize("pauses", [lambda step: step % 5 == 0, lambda step: step == 7, lambda step: False])
def test_calls_cover_every_step_once_and_nothing_happens_amid_one(size, pauses):
    whole = list(calls(0, 37, size, pauses))
    assert list(chain(*whole)) == list(range(1, 38))
    assert all(len(call) in (1, size) and not any(map(pauses, call[:-1])) for call in whole)
    several = {call for call in whole if len(call) == size}
    for start in range(37):
        resumed = list(calls(start, 37, size, pauses))
        assert {call for call in resumed if len(call) == size} == {call for call in several if call[0] > start}


def test_only_small_models_on_accelerators_get_calls_of_several_steps(monkeypatch):
    one = SimpleNamespace(inputs=np.zeros((64, 256)))
    config = TrainConfig(log_every=50, checkpoint_every=250)

    def chosen(shapes=(one,), config=config, flops_per_token=6 * 10.6e6):
        return steps_per_call(config, shapes, flops_per_token)

    assert chosen() == 1  # no accelerator here
    monkeypatch.setattr(module, "peak_flops", lambda: 989e12)
    assert chosen() == 10
    assert chosen(shapes=(one, one)) == 1
    assert chosen(flops_per_token=6 * 116e6) == 1
    assert chosen(config=TrainConfig(log_every=25, checkpoint_every=250)) == 5
    assert chosen(config=TrainConfig(steps_per_call=7), flops_per_token=1e12) == 7


class Numbers(grain.DatasetIterator):
    """0, 1, 2 ..., but none from `stuck` on before `go`."""

    def __init__(self, stuck=None):
        super().__init__()
        self.next, self.stuck, self.go = 0, stuck, threading.Event()

    def __next__(self):
        if self.next == self.stuck:
            self.go.wait()
        self.next += 1
        return self.next - 1

    def get_state(self):
        return self.next

    def set_state(self, state):
        self.next = state


def test_batches_read_ahead_do_not_count_until_they_are_given_out():
    numbers = Numbers()
    awaited = Awaited(numbers)
    assert [next(awaited), next(awaited)] == [0, 1]
    assert awaited.get_state() == 2
    assert awaited.unless(lambda: False, 2 * AHEAD) == list(range(2, 2 + 2 * AHEAD))
    awaited.set_state(1)
    assert [next(awaited), awaited.get_state()] == [1, 2]


def test_who_stops_waiting_loses_no_batch():
    numbers = Numbers(stuck=3)
    awaited, looks = Awaited(numbers), count()
    assert next(awaited) == 0
    assert awaited.unless(lambda: next(looks) > 0, 4) is None
    assert awaited.get_state() == 1
    numbers.go.set()
    assert awaited.unless(lambda: False, 4) == [1, 2, 3, 4]


def test_an_error_of_reading_is_raised_where_its_batch_is_awaited():
    numbers = Numbers()
    numbers.get_state = lambda: numbers.next if numbers.next < 3 else 1 / 0
    awaited = Awaited(numbers)
    assert [next(awaited), next(awaited)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(awaited)
