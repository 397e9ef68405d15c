"""What the loop does when training goes wrong."""

import json
import logging
import math
import os
import sys
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from eight_devices import python_on_eight
from noise import Noise, training

from zoo.checkpoints import load_parameters
from zoo.errors import UserError
from zoo.parallel.mesh import MeshConfig, make_mesh
from zoo.training.watchdog import Watchdog


def losses(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["train/loss"] for line in lines if "train/loss" in line}


def test_a_batch_that_ruins_the_run_is_passed_over_as_often_as_is_allowed(tmp_path):
    """The fourth batch is poisoned: back to step 2, and on with the fifth as the third."""
    run = training(Noise(tmp_path, poisoned=4), 6, rollbacks=1)
    assert run.run({})
    assert run.progress.rollbacks == 1
    assert list(losses(tmp_path)) == [1, 2, 3, 4, 5, 6]
    assert all(math.isfinite(loss) for loss in losses(tmp_path).values())


def test_where_no_rollback_is_allowed_the_run_ends_and_says_what_is_kept(tmp_path):
    with pytest.raises(UserError, match=r"the loss of step 4 is not a number; the checkpoint of step 2 is kept"):
        training(Noise(tmp_path, poisoned=4), 6).run({})


MOVES = (MeshConfig(data=8), MeshConfig(fsdp=4, tensor=2), MeshConfig(data=1))


def check_moves(directory):
    """Two steps on each mesh, the first of 8 devices and the last of one."""
    for count, moved in enumerate(MOVES, 1):
        devices = jax.devices()[: 1 if count == len(MOVES) else 8]
        training(Noise(directory / "moved"), 2 * count, make_mesh(moved, devices)).run({})
    training(Noise(directory / "still"), 2 * len(MOVES), make_mesh(MOVES[0])).run({})
    moved, still = losses(directory / "moved"), losses(directory / "still")
    assert list(moved) == list(still) == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(list(moved.values()), list(still.values()), atol=1e-5)
    ends = [load_parameters(directory / name, "latest")[1] for name in ("moved", "still")]
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), *ends)


def test_a_run_continues_on_other_meshes_as_if_it_had_not_moved(tmp_path):
    result = python_on_eight(__file__, tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.fixture
def said():
    """The lines of the log."""
    lines, log = [], logging.getLogger("zoo")
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    log.addHandler(handler)
    yield lines
    log.removeHandler(handler)


def until(moment):
    deadline = time.monotonic() + 30
    while not moment() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert moment()


def test_a_step_that_takes_long_is_reported_once_and_ends_the_process_in_bounded_time(said, monkeypatch):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    with Watchdog(patience=0.5, least=0.05) as watchdog:
        for step in (1, 2, 3):
            with watchdog.over(step):
                pass
        with watchdog.over(4):
            until(lambda: ended)
    assert ended[0] == 1
    assert "step 4 has taken" in said[0] and sum("has taken" in line for line in said) == 1
    assert "step 4 did not end" in said[1]


def test_steps_of_the_usual_length_say_nothing(said):
    with Watchdog(patience=0, least=0.05) as watchdog:
        for step in range(3):
            with watchdog.over(step):
                time.sleep(0.02)
    assert said == []


if __name__ == "__main__":
    check_moves(Path(sys.argv[1]))
