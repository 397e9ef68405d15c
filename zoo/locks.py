"""One training at a time in a working directory, on a file system or in an object store."""

import errno
import fcntl
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoo.errors import UserError
from zoo.storage import AnyPath, is_remote, reached, write_whole

log = logging.getLogger("zoo")
LOCK = ".lock"
RENEWED_EVERY = 15.0  # seconds
EXPIRES_AFTER = 60.0  # seconds without a renewal
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@contextmanager
def alone_in(workdir: AnyPath) -> Iterator[None]:
    """Lock the working directory, which is made if necessary; the lock of a killed process is free again.

    On a file system the kernel frees the lock of a process that ends. An object store has no locks: there the holder
    renews a lease, and a lease that nobody has renewed for a minute is free.

    Raises a `UserError` that names the host and the process if another training holds it.
    """
    path = workdir / LOCK
    with reached(path):
        new = not workdir.exists()
        empty = new or not any(workdir.iterdir())
        workdir.mkdir(parents=True, exist_ok=True)
    try:
        with _leased(path) if is_remote(workdir) else _locked(path):
            yield
    finally:
        if empty and not is_remote(workdir) and [each.name for each in workdir.iterdir()] == [LOCK]:
            path.unlink()
            if new:
                workdir.rmdir()


def _holder() -> dict[str, Any]:
    return {"host": socket.gethostname(), "process": os.getpid()}


def _refused(path: AnyPath, holder: dict[str, Any]) -> UserError:
    who = f"process {holder.get('process', '?')} on {holder.get('host', '?')}"
    return UserError(f"{who} is training in {path.parent}: wait for it, stop it, or choose another --workdir")


def _read(path: AnyPath) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):  # gone, or being written
        return {}


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with reached(path):
        file = path.open("a+", encoding="utf-8")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _refused(path, _read(path)) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            log.warning("%s: this file system has no locks: make sure that only one training runs there", path.parent)
        file.truncate(0)
        file.write(json.dumps(_holder()))
        file.flush()
        yield


@contextmanager
def _leased(
    path: AnyPath, renewed_every: float = RENEWED_EVERY, expires_after: float = EXPIRES_AFTER
) -> Iterator[None]:
    mine = _holder() | {"lease": uuid.uuid4().hex}
    _await_expiry(path, mine, expires_after)

    def renew() -> None:
        write_whole(path, json.dumps(mine | {"renewed": time.time()}).encode())

    over = threading.Event()

    def keep() -> None:
        while not over.wait(renewed_every):
            try:
                renew()
            except Exception as error:  # the network may come back before the lease expires
                log.warning("cannot renew %s: %s", path, error)

    with reached(path):
        renew()
    time.sleep(min(1.0, renewed_every))  # another may have taken the same free lease
    if (holder := _read(path)).get("lease") != mine["lease"]:
        raise _refused(path, holder)
    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        path.unlink(missing_ok=True)


def _await_expiry(path: AnyPath, mine: dict[str, Any], expires_after: float) -> None:
    """Wait until the lease at `path` is free: removed, of a process of this machine that has ended, or not renewed for
    `expires_after` seconds. Raises `UserError` if it is renewed. Clocks of two hosts are not compared."""
    first, began = _read(path), time.monotonic()
    if not first or (first.get("host") == mine["host"] and not _lives(first["process"])):
        return
    log.info("%s: waiting %.0f s to see whether the training that holds it still runs", path.parent, expires_after)
    while time.monotonic() - began < expires_after:
        time.sleep(expires_after / 20)
        if not (now := _read(path)):
            return
        if now != first:
            raise _refused(path, now)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        pass
    return True
