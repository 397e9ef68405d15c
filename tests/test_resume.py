"""Never lose a step: killed at any moment and started again, a run ends where an undisturbed one ends, bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from zoo.checkpoints import load_parameters

ROOT = Path(__file__).parent.parent
STEPS = 10
# With all that has a state of its own: dropout, a moving average of weights, an optimizer's moments, pools of batches.
SETTINGS = {
    "train.steps": STEPS,
    "train.checkpoint_every": 2,
    "train.log_every": 1,
    "train.evaluate_every": 5,
    "train.evaluation_size": 8,
    "train.keep": 2,
    "optimizer.ema": 0.9,
    "model.width": 128,
    "model.layers": 1,
    "model.dropout": 0.1,
    "data.batch_tokens": 256,
    "data.max_length": 24,
    "data.vocabulary": 40,
    "data.pool": 64,
    "data.test": "",
    "decoding.max_length": 8,
}


@pytest.fixture(scope="module", autouse=True)
def one_compilation(tmp_path_factory):
    """All runs of this file execute the same programs, compiled once."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled"))}
    with pytest.MonkeyPatch.context() as patch:
        for key, value in (cache | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}).items():
            patch.setenv(key, value)
        yield


@pytest.fixture(scope="module")
def start(pairs_in_files):
    """`start(workdir)`: the process of a run there, which trains or resumes."""
    settings = SETTINGS | {"data.train": pairs_in_files, "data.valid": pairs_in_files}

    def started(workdir: Path) -> subprocess.Popen:
        command = [sys.executable, "train.py", f"--workdir={workdir}", "--config=zoo/configs/phrases.py"]
        command += [f"--config.{key}={value}" for key, value in settings.items()]
        environment = os.environ | {"JAX_PLATFORMS": "cpu"}
        return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)

    return started


def finished(process: subprocess.Popen) -> None:
    errors = process.communicate(timeout=300)[1]
    assert process.returncode == 0, errors


def kill_when(process: subprocess.Popen, moment: Callable[[], bool]) -> None:
    """SIGKILL at the first moment that is true; the run must not have ended before it came."""
    deadline = time.monotonic() + 120
    while process.poll() is None and not moment() and time.monotonic() < deadline:
        time.sleep(0.002)
    assert process.poll() is None, process.communicate()[1]
    process.send_signal(signal.SIGKILL)
    process.communicate()


def last_step(workdir: Path) -> int:
    path = workdir / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def half_written(workdir: Path) -> bool:
    return any("tmp" in path.name for path in (workdir / "checkpoints").glob("*"))


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    finished(start(workdir))
    return workdir


def test_a_run_killed_at_several_moments_ends_bit_for_bit_where_an_undisturbed_one_ends(start, undisturbed, tmp_path):
    workdir = tmp_path / "run"
    moments = {
        "before the first checkpoint": lambda: last_step(workdir) >= 1,
        "while a checkpoint is being written": lambda: last_step(workdir) >= 3 and half_written(workdir),
        "between two checkpoints, after an evaluation": lambda: last_step(workdir) >= 6,
    }
    for moment in moments.values():
        kill_when(start(workdir), moment)
    finished(start(workdir))

    ours, theirs = (load_parameters(w, "latest") for w in (workdir, undisturbed))
    assert ours[0] == theirs[0] == STEPS
    jax.tree.map(np.testing.assert_array_equal, ours[1], theirs[1])
    best = [load_parameters(w, "best") for w in (workdir, undisturbed)]
    assert best[0][0] == best[1][0]
    jax.tree.map(np.testing.assert_array_equal, best[0][1], best[1][1])


@pytest.mark.slow
def test_the_record_of_a_killed_run_has_every_step_once_and_the_same_losses(start, undisturbed, tmp_path):
    workdir = tmp_path / "run"
    kill_when(start(workdir), lambda: last_step(workdir) >= 3)
    finished(start(workdir))

    def losses(directory):
        lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
        return [(line["step"], line["train/loss"]) for line in lines if "train/loss" in line]

    assert losses(workdir) == losses(undisturbed)
    assert [step for step, _ in losses(workdir)] == list(range(1, STEPS + 1))


def test_a_finished_run_started_again_changes_nothing(start, undisturbed):
    before = {path: path.read_bytes() for path in undisturbed.rglob("*") if path.is_file()}
    finished(start(undisturbed))
    after = {path: path.read_bytes() for path in undisturbed.rglob("*") if path.is_file()}
    assert {str(p) for p in after} >= {str(p) for p in before}
    assert all(after[path] == content for path, content in before.items())
