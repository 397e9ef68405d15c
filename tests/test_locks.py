"""One training at a time: the second is refused in one line, and who is killed holds nothing."""

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest
from conftest import TINY

from zoo import locks
from zoo.cli import main
from zoo.errors import UserError
from zoo.locks import LOCK, alone_in

# Holds the directory until its standard input ends; without JAX, so it starts at once.
HOLDER = "import sys; from pathlib import Path; from zoo.locks import alone_in\n"
HOLDER += "with alone_in(Path(sys.argv[1])): print(flush=True); sys.stdin.read()"


@pytest.fixture
def holder(tmp_path):
    """Another process that trains in `tmp_path`."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], env=environment, **pipes)
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_a_second_training_is_refused_and_a_killed_one_holds_nothing(tmp_path, holder, pairs_in_files, capsys):
    config = TINY | {f"data.{split}": str(pairs_in_files) for split in ("train", "valid")} | {"data.test": ""}
    words = ["train", f"--workdir={tmp_path}", *(f"--config.{key}={value}" for key, value in config.items())]
    before = sorted(tmp_path.iterdir())
    assert main(words) == 2
    errors = capsys.readouterr().err
    host = json.loads((tmp_path / LOCK).read_text())["host"]
    assert f"process {holder.pid} on {host} is training in {tmp_path}" in errors
    assert sorted(tmp_path.iterdir()) == before
    holder.kill()
    holder.wait()
    with alone_in(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()


def test_a_directory_that_stays_empty_is_removed(tmp_path):
    with pytest.raises(UserError), alone_in(tmp_path / "new"):
        raise UserError("wrong config")
    assert not (tmp_path / "new").exists()
    with pytest.raises(UserError), alone_in(tmp_path):
        raise UserError("wrong config")
    assert tmp_path.exists()


def lease(path, **facts):
    path.write_text(json.dumps({"host": "elsewhere", "process": 7, "lease": "theirs", "renewed": 0.0} | facts))


def test_a_lease_that_is_renewed_is_refused_and_one_that_is_not_is_taken(tmp_path):
    path, over = tmp_path / LOCK, threading.Event()

    def renew():
        for count in range(10_000):
            if over.wait(0.02):
                return
            lease(path, renewed=float(count))

    lease(path)
    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with pytest.raises(UserError, match="process 7 on elsewhere is training"), locks._leased(path, 0.05, 5.0):
            pass
    finally:
        over.set()
        thread.join()
    with locks._leased(path, 0.05, 0.2):
        first = json.loads(path.read_text())
        assert first["process"] == os.getpid()
        time.sleep(0.3)
        assert json.loads(path.read_text())["renewed"] > first["renewed"]
    assert not path.exists()


def test_a_lease_of_a_dead_process_of_this_machine_is_taken_at_once(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    lease(tmp_path / LOCK, host=locks._holder()["host"], process=dead.pid)
    began = time.monotonic()
    with locks._leased(tmp_path / LOCK, 0.05, 60.0):
        assert time.monotonic() - began < 5


def test_of_two_that_take_a_free_lease_one_is_refused(tmp_path):
    path = tmp_path / LOCK

    def other():
        time.sleep(0.1)
        lease(path)

    thread = threading.Thread(target=other)
    thread.start()
    with ExitStack() as stack, pytest.raises(UserError, match="elsewhere"):
        stack.enter_context(locks._leased(path, 0.4, 5.0))
    thread.join()
    assert json.loads(path.read_text())["lease"] == "theirs"
