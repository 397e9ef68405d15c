"""Several processes as one run: how they find each other, what only the first does, and how they end together."""

import importlib.util
import logging
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils

from zoo.errors import UserError

log = logging.getLogger("zoo")
HEARTBEAT_SECONDS = 40  # seconds of silence after which a process counts as dead
GIVE_UP = {UserError: 2, KeyboardInterrupt: 130}  # exit codes; 1 for all else
# The variable that identifies each launcher that `jax.distributed` knows, and the one with the number of processes.
LAUNCHERS = {
    "SLURM": "SLURM_STEP_NUM_TASKS",
    "Open MPI": "OMPI_COMM_WORLD_SIZE",
    "TPU slice": "TPU_WORKER_HOSTNAMES",
    "TPU slices": "MEGASCALE_NUM_SLICES",
    "Kubernetes": "JOB_COMPLETION_INDEX",
    "JAX": "JAX_COORDINATOR_ADDRESS",
}
TPU_DEVICES = (Path("/dev/accel0"), Path("/dev/vfio/0"))


@dataclass(frozen=True)
class Processes:
    """The identity of this process, if no launcher gives it: number `process_id` of `process_count`, of which the first
    listens at `coordinator`, HOST:PORT. They wait for each other for `patience` seconds."""

    coordinator: str | None = None
    process_id: int | None = None
    process_count: int | None = None
    patience: int = 300

    def __post_init__(self):
        given = {f"--{k}": getattr(self, k) for k in ("coordinator", "process_id", "process_count")}
        missing = [flag for flag, value in given.items() if value is None]
        if 0 < len(missing) < len(given):
            raise UserError(
                f"{' and '.join(missing)} must be given as well: several processes need all of {', '.join(given)}"
            )
        if missing:
            return
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdecimal():
            raise UserError(f"--coordinator={self.coordinator}: write HOST:PORT of process 0, as 10.0.0.1:1234")
        if not self.process_id < self.process_count:
            raise UserError(
                f"--process_id={self.process_id} of --process_count={self.process_count}: count from 0 to "
                f"{self.process_count - 1}"
            )


def launcher() -> str | None:
    """The launcher that started several processes, from the environment; None if there is none."""
    for name, variable in LAUNCHERS.items():
        value = os.environ.get(variable, "")
        alone = value == "1" if value.isdecimal() and name != "Kubernetes" else "," not in value and name == "TPU slice"
        if value and not alone:
            return name
    has_tpu = any(path.exists() for path in TPU_DEVICES) and importlib.util.find_spec("libtpu")
    return "TPU metadata" if has_tpu and "TPU_SKIP_MDS_QUERY" not in os.environ else None


def connect(processes: Processes) -> None:
    """Join the other processes of the run, if there are any. Call it before anything else uses a device.

    Raises `UserError` if not all arrive in time.
    """
    explicit, found = processes.coordinator is not None, launcher()
    if not explicit and found is None:
        return
    who = f"process {processes.process_id} of {processes.process_count}" if explicit else f"a process of {found}"
    where = processes.coordinator or "the address that it gives"
    log.info("%s: waiting up to %d s for all at %s", who, processes.patience, where)
    if explicit and processes.process_id > 0:
        _wait_for(processes)
    if jax.config.jax_cpu_collectives_implementation is None:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # On CPUs, two programs in flight may start in different orders on different processes, and deadlock.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    try:
        jax.distributed.initialize(
            processes.coordinator,
            processes.process_count,
            processes.process_id,
            initialization_timeout=processes.patience,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{who} did not find the others at {where} within {processes.patience} s ({reason})") from error
    log.info("process %d of %d, all are here", jax.process_index(), jax.process_count())


def _wait_for(processes: Processes) -> None:
    """Wait until the coordinator listens. If it never does, JAX itself would end the process from C++."""
    host, _, port = processes.coordinator.rpartition(":")
    deadline = time.monotonic() + processes.patience
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"process {processes.process_id} of {processes.process_count}: no coordinator at "
                    f"{processes.coordinator} within {processes.patience} s ({error}): start process 0 there, or fix "
                    "--coordinator"
                ) from error
            time.sleep(0.5)


def is_first() -> bool:
    """Whether this process writes what is written only once."""
    return jax.process_index() == 0


def first_does(action: Callable[[], None]) -> None:
    """Run `action` in the first process while the others wait."""
    if is_first():
        action()
    multihost_utils.sync_global_devices(f"zoo.first_does.{getattr(action, '__qualname__', 'action')}")


class StopNotice:
    """Whether the run was asked to stop: by SIGTERM to one process, or by the preemption notice of a cluster. JAX
    passes it on to all processes, so that all stop after the same step. In its `with` block, SIGTERM only requests a
    stop. With `interrupts`, so does the first SIGINT (Ctrl-C, the stop button of a notebook); a second one interrupts.
    """

    def __init__(self, interrupts: bool = False):
        self._asked, self._calls = False, 0
        self._signals = (signal.SIGTERM, signal.SIGINT) if interrupts else (signal.SIGTERM,)
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopNotice":
        # With several processes JAX itself handles the signal. Only Python's main thread may set a handler.
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in self._signals}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: Any) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True

    def while_waiting(self) -> bool:
        """For a process that waits. One of several processes must not stop alone."""
        return self._asked and jax.process_count() == 1

    def after_call(self) -> bool:
        """Every process must call this after every call of a program that makes steps."""
        self._calls += 1  # JAX needs consecutive numbers
        return self._asked if jax.process_count() == 1 else multihost_utils.reached_preemption_sync_point(self._calls)


@contextmanager
def ending_together() -> Iterator[None]:
    """If one of several processes fails, report why and exit at once. The others then fail in their next exchange, or
    after `HEARTBEAT_SECONDS`; an orderly exit would wait for them while they wait for it."""
    try:
        yield
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        reason = " ".join(str(error).split())[:500] or type(error).__name__
        # JAX raises one of these errors when gloo reads from a peer that is gone.
        exchanged = isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in reason
        if not (exchanged or isinstance(error, UserError | KeyboardInterrupt)):
            traceback.print_exception(error)
        if exchanged:
            reason = (
                f"a peer is gone, or a device failed ({reason}): start all again, they resume from the last checkpoint"
            )
        log.error("process %d of %d ends: %s", jax.process_index(), jax.process_count(), reason)
        logging.shutdown()
        os._exit(next((code for kind, code in GIVE_UP.items() if isinstance(error, kind)), 1))
