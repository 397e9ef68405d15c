"""What reaches the terminal: the zoo's own log on standard error, and nothing of the libraries' chatter."""

import logging
import logging.handlers
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KEPT_BYTES = 1 << 20  # of a host's log; as much again is there of what came before


class _Plain(logging.Formatter):
    """The message alone, with its level in front from a warning on."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno < logging.WARNING else f"zoo: {record.levelname.lower()}: {text}"


class _StandardError(logging.StreamHandler):
    """Writes to what `sys.stderr` is at that moment, so that it can be replaced."""

    def __init__(self):
        logging.Handler.__init__(self)

    @property
    def stream(self):
        return sys.stderr


def set_up() -> None:
    """Idempotent, and before JAX is imported, whose C++ side reads its level of talk from the environment."""
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
    for library in ("jax", "orbax", "grain", "matplotlib", "tensorflow_datasets"):
        logging.getLogger(library).setLevel(logging.ERROR)


def only_warnings() -> None:
    """For all processes of a run but the first, whose terminal is enough."""
    for handler in logging.getLogger("zoo").handlers:
        handler.setLevel(logging.WARNING)


@contextmanager
def kept(path: Path) -> Iterator[None]:
    """Meanwhile the last of all that is said, with its time, stands in the file `path` as well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=KEPT_BYTES, backupCount=1, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log = logging.getLogger("zoo")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()
