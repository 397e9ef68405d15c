"""Notices a step that does not end: a stuck peer, a lost network, missing data."""

import logging
import os
import statistics
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("zoo")
TIMES_THE_MEDIAN = 20
LEAST_SECONDS = 60.0  # a new shape may compile that long
REMEMBERED = 100


class Watchdog:
    """Warns when a step takes over 20 times the median of the earlier ones, and at least `least` seconds. After
    `patience` seconds it ends the process, so that its peers end too (0: never).
    """

    def __init__(self, patience: float, least: float = LEAST_SECONDS):
        self._patience, self._least = patience, least
        self._took: deque[float] = deque(maxlen=REMEMBERED)
        self._step: tuple[int, float] | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @contextmanager
    def over(self, step: int) -> Iterator[None]:
        """Watch the body of the `with` block."""
        began = time.monotonic()
        self._step = step, began
        try:
            yield
        finally:
            self._step = None
        self._took.append(time.monotonic() - began)

    def _watch(self) -> None:
        told = None
        while not self._over.wait(min(1.0, self._least)):
            if (watched := self._step) is None or not self._took:
                continue
            step, began = watched
            taken, median = time.monotonic() - began, statistics.median(self._took)
            if told != step and taken > max(TIMES_THE_MEDIAN * median, self._least):
                told = step
                after = f"; the process ends after {self._patience:g} s" if self._patience else ""
                log.warning(
                    "step %d has taken %.0f s, the median is %.2g s: is a peer stuck?%s", step, taken, median, after
                )
            if told == step and self._patience and taken > self._patience:
                log.error(
                    "step %d did not end within %.0f s: start again, it resumes from the last checkpoint", step, taken
                )
                logging.shutdown()
                os._exit(1)
