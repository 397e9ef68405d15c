"""The log on the terminal: the zoo's own messages on standard error, without those of the libraries."""

import logging
import logging.handlers
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # slow to import, and not needed for help
    from zoo.storage import AnyPath, Growing

KEPT_BYTES = 1 << 20  # of a host's log; the one before it may be as large
PUBLISHED_EVERY = 30.0  # seconds, to an object store


class _Plain(logging.Formatter):
    """The bare message; warnings and errors have their level in front."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno < logging.WARNING else f"zoo: {record.levelname.lower()}: {text}"


class _StandardError(logging.StreamHandler):
    """Writes to the current `sys.stderr`, which may be replaced."""

    def __init__(self):
        logging.Handler.__init__(self)

    @property
    def stream(self):
        return sys.stderr


def set_up() -> None:
    """Set up the log; may be called again. Call it before JAX is imported, whose C++ side reads its log level from the
    environment."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    log = logging.getLogger("zoo")
    log.setLevel(logging.DEBUG)
    if not any(isinstance(handler, _StandardError) for handler in log.handlers):
        handler = _StandardError()
        handler.setFormatter(_Plain())
        handler.setLevel(logging.INFO)
        log.addHandler(handler)
    log.propagate = False
    for library in ("jax", "orbax", "grain", "matplotlib", "tensorflow_datasets", "gcsfs"):
        logging.getLogger(library).setLevel(logging.ERROR)


def only_warnings() -> None:
    """Show only warnings: for all processes of a run but the first."""
    for handler in logging.getLogger("zoo").handlers:
        handler.setLevel(logging.WARNING)


class _Kept(logging.handlers.RotatingFileHandler):
    """Writes to a file of `logs`, which it publishes now and then, and when the process ends."""

    def __init__(self, logs: "Growing", name: str):
        self._logs, self._due = logs, 0.0
        super().__init__(logs.fetch(name), maxBytes=KEPT_BYTES, backupCount=1, encoding="utf-8")

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + PUBLISHED_EVERY
            try:
                self._logs.publish()
            except Exception:
                self.handleError(record)

    def close(self) -> None:
        super().close()
        self._logs.close()


@contextmanager
def kept(directory: "AnyPath", name: str) -> Iterator[None]:
    """In the `with` block, also write the log, with times, to the file `name` of `directory`, which keeps the latest
    part."""
    from zoo.storage import Growing

    handler = _Kept(Growing(directory), name)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log = logging.getLogger("zoo")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()
