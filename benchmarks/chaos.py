"""Disturb a small training run for minutes; it must end, bit for bit, where an undisturbed run ends.

The run is killed or asked to stop, its newest checkpoint is truncated or altered, its disk is filled. After each
fault the same command starts again. Faults come at random times, drawn by `--seed`: after some steps of a process, or
while it starts. A run that reaches its last step is compared with the undisturbed one, and the next run begins, until
the minutes are over. Everything runs on the CPU, even if there is an accelerator.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from zoo.checkpoints import kept_steps, load_parameters

ROOT = Path(__file__).parent.parent
STEPS = 100
# With all that has a state of its own: dropout, a moving average of weights, an optimizer's moments, pools of batches.
SETTINGS = {
    "train.steps": STEPS,
    "train.checkpoint_every": 5,
    "train.log_every": 1,
    "train.evaluate_every": 50,
    "train.evaluation_size": 8,
    "optimizer.ema": 0.9,
    "model.width": 64,
    "model.layers": 1,
    "model.dropout": 0.1,
    "data.batch_tokens": 256,
    "data.max_length": 23,
    "data.steps": 24,
    "data.pool": 64,
    "data.test": "",
    "decoding.max_length": 8,
}
DAMAGES = ("truncated checkpoint", "altered checkpoint")
FULL_DISK = "full disk"
KINDS = ("SIGKILL", "SIGTERM", *DAMAGES, FULL_DISK)
# How a process may end; one that has not begun to train has not begun to listen to SIGTERM either.
ENDS = {"SIGKILL": (-9,), "SIGTERM": (0, -15), FULL_DISK: (2,), **dict.fromkeys(DAMAGES, (-9,))}
DISK_BYTES = 64 << 20
PATIENCE = 600.0  # seconds for a process to come to a step, or to its end


@dataclass(frozen=True)
class Fault:
    """A `kind` of disturbance `delay` seconds after the process has done `steps` steps; `where` from 0 to 1 is a place
    in a damaged file, or the share of a checkpoint for which a full disk still has room."""

    kind: str
    steps: int
    delay: float
    where: float


def faults(seed: int, kinds: tuple[str, ...]) -> Iterator[Fault]:
    """Every kind once in an order at random, and again; one in five while the process is starting."""
    random = np.random.default_rng(seed)
    while True:
        for kind in random.permutation(kinds):
            starting = kind in ("SIGKILL", "SIGTERM") and random.random() < 0.2
            steps = 0 if starting else int(random.integers(1, 25))
            yield Fault(str(kind), steps, random.uniform(0, 8 if starting else 0.3), random.random())


@dataclass
class Tally:
    """What was done to the runs, and what it cost."""

    injected: Counter = field(default_factory=Counter)
    lost: int = 0  # steps computed again
    finished: int = 0
    failures: list[str] = field(default_factory=list)


class Process:
    """One start of `train.py` in `workdir`."""

    def __init__(self, workdir: Path, log: Path, cache: Path):
        command = [sys.executable, "train.py", f"--workdir={workdir}", "--config=zoo/configs/phrases.py"]
        command += [f"--config.{key}={value}" for key, value in SETTINGS.items()]
        variables = {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(cache)}
        variables["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        self.log, self._deadline = log, time.monotonic() + PATIENCE
        with log.open("wb") as errors:
            self._popen = subprocess.Popen(
                command, cwd=ROOT, env=os.environ | variables, stdout=subprocess.DEVNULL, stderr=errors
            )

    def said(self, pattern: str) -> list[int]:
        """The numbers of the steps on the lines that match."""
        return [int(found) for found in re.findall(pattern, self.log.read_text(), re.MULTILINE)]

    @property
    def first(self) -> int | None:
        """The step that it goes on from, once it has said so."""
        return next(iter(self.said(r"^(?:resuming from step|training .* from step) (\d+)")), None)

    @property
    def last(self) -> int | None:
        """The last step that it has done."""
        return max(self.said(rf"^step (\d+)/{STEPS}"), default=self.first)

    def comes_to(self, fault: Fault) -> bool:
        """Whether it was there still when the fault's moment came."""
        while self._running() and not (fault.steps == 0 or (self.first or 0) + fault.steps <= (self.last or 0)):
            time.sleep(0.005)
        begun = time.monotonic()
        while self._running() and time.monotonic() < begun + fault.delay:
            time.sleep(0.005)
        return self._running()

    def _running(self) -> bool:
        return self._popen.poll() is None and time.monotonic() < self._deadline

    def send(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def end(self) -> int | None:
        """Its exit code once it has ended; None where it did not, and had to be killed."""
        try:
            return self._popen.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
            return None


class Runs:
    """The same training again and again, in one directory of `disk` after another; each must end as `reference`. What
    the processes say, and their compiled programs, are in `scratch`."""

    def __init__(self, disk: Path, scratch: Path, reference: Path | None = None):
        self.disk, self.scratch, self.reference = disk, scratch, reference
        self.tally, self._reached, self._starts = Tally(), 0, 0

    @property
    def workdir(self) -> Path:
        return self.disk / f"run{self.tally.finished}"

    def disturb(self, fault: Fault) -> None:
        """Go on until the fault has befallen the run, or until it has ended before."""
        process = self._start()
        while process.comes_to(fault) and fault.kind in DAMAGES and len(kept_steps(self.workdir)) < 2:
            time.sleep(0.01)  # a run whose only checkpoint is damaged is lost, and says so
        if process.comes_to(fault):
            self._inject(fault, process)
        else:
            self._finish(process)

    def finish(self) -> None:
        """Go on to the last step."""
        self._finish(self._start())

    def _start(self) -> Process:
        self._starts += 1
        return Process(self.workdir, self.scratch / f"{self._starts}.log", self.scratch / "compiled")

    def _inject(self, fault: Fault, process: Process) -> None:
        self.tally.injected[fault.kind] += 1
        ballast = self.disk / "ballast"
        if fault.kind == FULL_DISK:
            _fill(ballast, int(fault.where * _newest_bytes(self.workdir)))
        else:
            process.send(signal.SIGTERM if fault.kind == "SIGTERM" else signal.SIGKILL)
        code = process.end()
        ballast.unlink(missing_ok=True)
        if fault.kind in DAMAGES:
            damage(_newest(self.workdir), fault)
        self._count(process)
        if code == 0 and process.last == STEPS:  # it was about to end anyway
            self._compare()
        elif code not in ENDS[fault.kind]:
            self._fail(f"after {fault} it ended with {code}", process)

    def _finish(self, process: Process) -> None:
        code = process.end()
        self._count(process)
        if code == 0:
            self._compare()
        else:
            self._fail(f"undisturbed, it ended with {code}", process)

    def _count(self, process: Process) -> None:
        if process.first is not None:
            self.tally.lost += max(0, self._reached - process.first)
            self._reached = process.last

    def _compare(self) -> None:
        if self.reference is not None and not same_parameters(self.workdir, self.reference):
            self.tally.failures.append(f"run {self.tally.finished} ended with other parameters")
        self.tally.finished += 1
        self._reached = 0

    def _fail(self, what: str, process: Process) -> None:
        said = " / ".join(process.log.read_text().splitlines()[-3:])
        self.tally.failures.append(f"run {self.tally.finished}: {what}: {said}")


def same_parameters(one: Path, other: Path) -> bool:
    """Whether the last checkpoints of two working directories are of the same step and hold the same bits."""
    (step, params), (another, others) = (load_parameters(workdir, "latest") for workdir in (one, other))
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(others), strict=True)
    return step == another and all(a.tobytes() == b.tobytes() for a, b in pairs)


def _newest(workdir: Path) -> Path:
    """The largest file of the newest checkpoint."""
    step = workdir / "checkpoints" / str(kept_steps(workdir)[-1])
    return max((path for path in step.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def _newest_bytes(workdir: Path) -> int:
    steps = kept_steps(workdir)
    files = (workdir / "checkpoints" / str(steps[-1])).rglob("*") if steps else []
    return sum(path.stat().st_size for path in files if path.is_file())


def damage(path: Path, fault: Fault) -> None:
    """Cut the file short, or flip the bits of a byte."""
    content = bytearray(path.read_bytes())
    place = int(fault.where * len(content))
    if fault.kind == "truncated checkpoint":
        path.write_bytes(content[:place])
        return
    content[place] ^= 0xFF
    path.write_bytes(content)


def _fill(ballast: Path, room: int) -> None:
    """Take all space of the disk but `room` bytes."""
    with ballast.open("wb") as file:
        system = os.statvfs(ballast.parent)
        if (free := system.f_bavail * system.f_frsize - room) > 0:
            os.posix_fallocate(file.fileno(), 0, free)


@contextmanager
def small_disk(directory: Path) -> Iterator[str | None]:
    """`directory` as a small file system of its own; gives why it is not, where it cannot be mounted."""
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(directory)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError as error:
        yield str(error)
        return
    if mounted.returncode:
        yield " ".join(mounted.stderr.split())
        return
    try:
        yield None
    finally:
        subprocess.run(["umount", str(directory)], check=True)


@dataclass(frozen=True)
class Chaos:
    """What became of the disturbed runs."""

    tally: Tally
    kinds: tuple[str, ...]
    without: str | None  # why no disk was filled

    @property
    def passed(self) -> bool:
        return not self.tally.failures and self.tally.finished > 0

    def as_dict(self) -> dict[str, Any]:
        row = {"system": "phrases, a tiny transformer"} | {kind: self.tally.injected[kind] for kind in self.kinds}
        if self.without:
            row[FULL_DISK] = f"left out, nothing can be mounted here: {self.without}"
        row |= {"faults": self.tally.injected.total(), "steps_lost": self.tally.lost, "runs": self.tally.finished}
        row["all_recovered"] = str(self.passed)
        row |= {f"failure {n}": text for n, text in enumerate(self.tally.failures, 1)}
        return {"name": "chaos", "device": f"{os.cpu_count()} CPUs", "rows": [row], "ceiling": {}}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=5, help="for how long to disturb (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="which faults, and when (default: 0)")


def run(arguments: argparse.Namespace) -> Chaos:
    with tempfile.TemporaryDirectory() as temporary, small_disk(Path(temporary) / "disk") as without:
        scratch = Path(temporary)
        kinds = tuple(kind for kind in KINDS if without is None or kind != FULL_DISK)
        undisturbed = Runs(scratch, scratch)
        undisturbed.finish()
        if undisturbed.tally.failures:
            raise RuntimeError(undisturbed.tally.failures[0])
        disturbed = Runs(scratch / "disk", scratch, undisturbed.disk / "run0")
        until = time.monotonic() + 60 * arguments.minutes
        for fault in faults(arguments.seed, kinds):
            if time.monotonic() > until or disturbed.tally.failures:
                break
            disturbed.disturb(fault)
        if not disturbed.tally.failures:
            disturbed.finish()
    return Chaos(disturbed.tally, kinds, without)
