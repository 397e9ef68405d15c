"""Several processes train as one does, by gloo on this machine; and what is wrong with them is one line."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from zoo.checkpoints import kept_steps
from zoo.errors import UserError
from zoo.parallel.multihost import LAUNCHERS, Processes, connect, launcher

ROOT = Path(__file__).parents[2]
STEPS = 6


def test_flags_that_tell_half_of_a_process_are_one_line():
    with pytest.raises(UserError, match=r"--process_count must be given as well"):
        Processes("localhost:1234", 0)


@pytest.mark.parametrize("coordinator", ["localhost", ":1234", "localhost:", "localhost:http"])
def test_a_coordinator_is_a_host_and_a_port(coordinator):
    with pytest.raises(UserError, match=f"--coordinator={coordinator}: write HOST:PORT"):
        Processes(coordinator, 0, 2)


def test_a_process_beyond_the_last_is_named_with_their_number():
    with pytest.raises(UserError, match=r"--process_id=2 of --process_count=2: count from 0 to 1"):
        Processes("localhost:1234", 2, 2)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_a_missing_coordinator_is_reported_in_bounded_time():
    port = free_port()
    with pytest.raises(UserError, match=rf"process 1 of 2: no coordinator at 127.0.0.1:{port} within 1 s"):
        connect(Processes(f"127.0.0.1:{port}", 1, 2, patience=1))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"SLURM_STEP_NUM_TASKS": "4"}, "SLURM"),
        ({"SLURM_STEP_NUM_TASKS": "1"}, None),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "Open MPI"),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "TPU slice"),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({"JOB_COMPLETION_INDEX": "1"}, "Kubernetes"),
    ],
)
def test_a_launcher_is_known_by_what_it_leaves_in_the_environment(monkeypatch, environment, expected):
    monkeypatch.setattr("zoo.parallel.multihost.TPU_DEVICES", ())
    for variable in LAUNCHERS.values():
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert launcher() == expected


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Every process computes the same programs, compiled once for each number of processes."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled"))}
    cache |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return os.environ | cache | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "2"}


def start(environment, workdir: Path, count: int, steps: int) -> list[subprocess.Popen]:
    coordinator = f"127.0.0.1:{free_port()}" if count > 1 else ""
    return [
        subprocess.Popen(
            [sys.executable, __file__, str(workdir), coordinator, str(index), str(count), str(steps)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]


def finished(processes: list[subprocess.Popen]) -> list[str]:
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), said
    return said


def losses(workdir: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["train/loss"] for line in lines if "train/loss" in line}


@pytest.fixture(scope="module")
def alone(environment, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("alone")
    finished(start(environment, workdir, 1, STEPS))
    return losses(workdir)


def test_two_processes_and_then_one_train_as_one_does(environment, alone, tmp_path):
    said = finished(start(environment, tmp_path, 2, STEPS // 2))
    assert "step 3/3" in said[0] and "step 3/3" not in said[1]
    finished(start(environment, tmp_path, 1, STEPS))
    assert losses(tmp_path).keys() == alone.keys()
    np.testing.assert_allclose(list(losses(tmp_path).values()), list(alone.values()), atol=1e-5)


@pytest.mark.slow
def test_a_killed_peer_ends_the_others_and_two_continue_where_four_ended(environment, alone, tmp_path):
    four = start(environment, tmp_path, 4, 10_000)
    while not (tmp_path / "metrics.jsonl").exists() or len(losses(tmp_path)) < 4:
        assert all(process.poll() is None for process in four)
        time.sleep(0.1)
    four[3].send_signal(signal.SIGKILL)
    for process in four[:3]:
        said = process.communicate(timeout=90)[1]
        assert process.returncode not in (0, None)
        assert "peer is gone" in said or "heartbeat" in said or "Terminating" in said, said
    finished(start(environment, tmp_path, 2, max(losses(tmp_path)) + 2))
    common = alone.keys() & losses(tmp_path).keys()
    assert len(common) >= 4
    np.testing.assert_allclose([losses(tmp_path)[s] for s in common], [alone[s] for s in common], atol=1e-5)


def test_a_run_that_is_asked_to_stop_saves_says_how_to_continue_and_ends_well(environment, alone, tmp_path):
    (run,) = start(environment, tmp_path, 1, 10_000)
    while not (tmp_path / "metrics.jsonl").exists() or len(losses(tmp_path)) < 3:
        assert run.poll() is None, run.communicate()[1]
        time.sleep(0.05)
    run.send_signal(signal.SIGTERM)
    (said,) = finished([run])
    last = max(losses(tmp_path))
    assert f"asked to stop: step {last} of 10000 is saved; the same command resumes from it" in said
    assert max(kept_steps(tmp_path)) == last


if __name__ == "__main__":
    from noise import Noise, training

    logging.getLogger("zoo").addHandler(logging.StreamHandler())
    logging.getLogger("zoo").setLevel(logging.INFO)
    directory, coordinator, *numbers = sys.argv[1:]
    index, count, steps = map(int, numbers)
    connect(Processes(coordinator, index, count, patience=60) if coordinator else Processes())
    training(Noise(Path(directory)), steps).run({})
