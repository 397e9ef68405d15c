"""What a run records: the same numbers whatever interrupts it, and the same score by every path to it."""

import errno
import json
import os
import signal
import threading

import jax
import numpy as np
import pytest
from noise import Noise, norm, training

import zoo.checkpoints.saving
from zoo.checkpoints import load_parameters
from zoo.errors import UserError
from zoo.parallel.multihost import StopNotice
from zoo.training.progress import Progress


class Interrupted(Noise):
    """A run that gets SIGTERM while it reads the batch of step `at`."""

    def __init__(self, workdir, at):
        super().__init__(workdir)
        self.at = at

    def training_batches(self, shards, share):
        batches = super().training_batches(shards, share)
        read, original = [], type(batches).__next__

        class Watched(type(batches)):
            def __next__(self):
                read.append(1)
                if len(read) == at:
                    os.kill(os.getpid(), signal.SIGTERM)
                return original(self)

        at, batches.__class__ = self.at, Watched
        return batches


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def computed(workdir):
    """The records without what a clock decides."""
    clock = ("train/tokens_per_second", "train/data_wait", "train/mfu")
    return [{name: value for name, value in record.items() if name not in clock} for record in records(workdir)]


def test_an_interrupted_run_records_what_an_undisturbed_one_does(tmp_path):
    settings = {"log_every": 4, "evaluate_every": 3, "checkpoint_every": 5}
    assert training(Noise(tmp_path / "still"), 9, **settings).run({})
    assert not training(Interrupted(tmp_path / "stopped", at=2), 9, **settings).run({})  # before anything is reported
    assert not training(Interrupted(tmp_path / "stopped", at=4), 9, **settings).run({})  # between two reports
    assert training(Noise(tmp_path / "stopped"), 9, **settings).run({})
    assert computed(tmp_path / "stopped") == computed(tmp_path / "still")


def test_pace_counts_the_tokens_of_this_process_alone():
    """Tokens of before a stop are in the means, but took none of the time since."""
    from zoo.tasks.losses import Sums
    from zoo.training.progress import Window

    def metrics(tokens):
        return {"sums": Sums(*map(np.float32, (tokens, tokens, 0, tokens, 1))), "gradient_norm": 1.0}

    before = Window()
    before.add(metrics(10_000))
    after = Window(carried=json.loads(json.dumps(before.saved)))
    after.add(metrics(100))
    assert after.sums.tokens == 10_100 and after.tokens == 100


def size(workdir, which):
    return norm(load_parameters(workdir, which)[1])


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_every_path_to_a_checkpoint_gives_the_score_that_was_recorded(tmp_path, ema):
    """The moving average where one is kept: by its step, as the latest, as the best, and averaged at the end."""
    run = training(Noise(tmp_path), 6, ema=ema, evaluate_every=2, average_last=2)
    assert run.run({})
    scores = {record["step"]: record["valid/loss"] for record in records(tmp_path) if "valid/loss" in record}
    assert [size(tmp_path, str(step)) for step in (2, 4, 6)] == pytest.approx(list(scores.values()), rel=1e-6)
    assert size(tmp_path, "latest") == pytest.approx(scores[6], rel=1e-6)
    assert size(tmp_path, "best") == pytest.approx(min(scores.values()), rel=1e-6)
    two = [load_parameters(tmp_path, step)[1] for step in ("4", "6")]
    mean = norm(jax.tree.map(lambda a, b: (a + b) / 2, *two))
    (average,) = [record["average/loss"] for record in records(tmp_path) if "average/loss" in record]
    assert size(tmp_path, "average") == pytest.approx(average, rel=1e-6) == pytest.approx(mean, rel=1e-6)


def test_the_average_is_recorded_once_under_its_own_name_however_often_the_run_is_started(tmp_path):
    for _ in range(3):
        assert training(Noise(tmp_path), 4, evaluate_every=4, average_last=2).run({})
    scored = [name for record in records(tmp_path) for name in record if name.endswith("/loss")]
    assert scored.count("average/loss") == scored.count("valid/loss") == 1


def test_an_average_that_is_the_best_stays_the_best_when_the_run_resumes(tmp_path, monkeypatch):
    values = iter([0.5, 0.1, 0.3])  # at step 4, of the average there, at step 8
    evaluate = Noise.evaluate

    def given(*args, **options):
        found = evaluate(*args, **options)
        found.values["loss"] = next(values)
        return found

    monkeypatch.setattr(Noise, "evaluate", given)
    assert training(Noise(tmp_path), 4, evaluate_every=4, average_last=2).run({})
    best = size(tmp_path, "best")
    longer = training(Noise(tmp_path), 8, evaluate_every=4)
    assert longer.run({})
    assert longer.progress.best == 0.1 and size(tmp_path, "best") == best


def test_a_score_that_is_not_a_number_is_never_the_best():
    progress = Progress()
    assert not progress.see(1, float("nan"), "loss")
    assert progress.see(2, 3.0, "loss") and not progress.see(3, float("nan"), "loss")
    assert progress.best == 3.0


def traces(workdir):
    return list((workdir / "tensorboard").rglob("*.xplane.pb"))


@pytest.mark.slow
def test_a_run_that_ends_or_resumes_within_the_profiled_steps_leaves_whole_traces(tmp_path):
    assert not training(Interrupted(tmp_path, at=3), 6, profile_at=2).run({})
    assert len(traces(tmp_path)) == 1
    assert training(Noise(tmp_path), 5, profile_at=2).run({})
    assert len(traces(tmp_path)) == 2


def test_a_seed_may_have_32_bits(tmp_path, seed=2**32 - 1):
    assert training(Noise(tmp_path), 1, seed=seed).run({})
    assert not np.array_equal(
        *(jax.tree.leaves(training(Noise(tmp_path), 1, seed=s).fresh().params)[1] for s in (seed, 0))
    )


def fill_the_disk(monkeypatch):
    """Every checkpoint fails, in the thread that writes it, as its last file is written."""

    def full(directory):
        raise OSError(errno.ENOSPC, "No space left on device", str(directory))

    monkeypatch.setattr(zoo.checkpoints.saving, "seal", full)


def test_a_disk_that_fills_up_while_saving_ends_the_run_at_the_next_report(tmp_path, monkeypatch):
    fill_the_disk(monkeypatch)
    with pytest.raises(UserError, match="starts over, since no checkpoint was saved"):
        training(Noise(tmp_path), 10_000, checkpoint_every=2).run({})
    assert records(tmp_path)[-1]["step"] < 9000


def test_a_full_disk_names_the_checkpoint_that_is_there(tmp_path, monkeypatch):
    assert training(Noise(tmp_path), 2).run({})

    fill_the_disk(monkeypatch)
    with pytest.raises(UserError, match="it goes on from step 2"):
        training(Noise(tmp_path), 4).run({})


class Stuck(Noise):
    """A run whose data do not come from step `at` on."""

    def __init__(self, workdir, at):
        super().__init__(workdir)
        self.at, self.never, self.waits = at, threading.Event(), False

    def training_batches(self, shards, share):
        batches = super().training_batches(shards, share)
        rows, stuck = [], self

        class Watched(type(batches)):
            def __next__(self):
                rows.append(1)
                if len(rows) == stuck.at:
                    stuck.waits = True
                    if not stuck.never.wait(60):
                        raise TimeoutError("the run waits on")
                return super().__next__()

        batches.__class__ = Watched
        return batches


def test_a_run_whose_data_do_not_come_hears_sigterm_and_continues_as_an_undisturbed_one_does(tmp_path, monkeypatch):
    settings = {"log_every": 4, "evaluate_every": 3, "checkpoint_every": 5}
    assert training(Noise(tmp_path / "still"), 6, **settings).run({})
    asked = StopNotice.while_waiting
    for at, saved in ((1, []), (3, [2]), (1, [2])):
        run = training(stuck := Stuck(tmp_path / "stopped", at), 6, **settings)

        def looks(notice, stuck=stuck):
            if stuck.waits:
                os.kill(os.getpid(), signal.SIGTERM)
            return asked(notice)

        monkeypatch.setattr(StopNotice, "while_waiting", looks)
        assert not run.run({})
        stuck.never.set()
        assert run.checkpoints.steps() == saved
    assert training(Noise(tmp_path / "stopped"), 6, **settings).run({})
    assert computed(tmp_path / "stopped") == computed(tmp_path / "still")
