"""What reaches the terminal: the zoo's own log on standard error, and nothing of the libraries' chatter."""

import logging
import os
import sys
import warnings


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
    log.setLevel(logging.INFO)
    if not any(isinstance(handler, _StandardError) for handler in log.handlers):
        handler = _StandardError()
        handler.setFormatter(_Plain())
        log.addHandler(handler)
    log.propagate = False
    for library in ("jax", "orbax", "grain", "matplotlib", "tensorflow_datasets"):
        logging.getLogger(library).setLevel(logging.ERROR)
