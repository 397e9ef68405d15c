"""Waiting for the next batch in a way that can be given up."""

from collections.abc import Callable
from concurrent import futures
from threading import Thread
from typing import Any

import grain

LOOKS_EVERY = 0.2  # seconds


class Awaited(grain.DatasetIterator):
    """The batches of an iterator, each fetched in a thread, so that the waiting one may stop waiting.

    Its state is that after the latest batch that was given out, also while the next one is being fetched: an iterator
    that is waiting for data may not tell its own.
    """

    def __init__(self, batches: grain.DatasetIterator):
        super().__init__()
        self._batches, self._state = batches, batches.get_state()
        self._coming: futures.Future | None = None

    def __next__(self) -> Any:
        return self.unless(lambda: False)

    def unless(self, stopped: Callable[[], bool]) -> Any | None:
        """The next batch, or None where `stopped()` becomes true before it is there; it is then the next of the next
        call."""
        if self._coming is None:
            self._coming = futures.Future()
            Thread(target=self._fetch, args=(self._coming,), daemon=True).start()
        while not futures.wait([self._coming], LOOKS_EVERY).done:
            if stopped():
                return None
        coming, self._coming = self._coming, None
        batch, self._state = coming.result()
        return batch

    def _fetch(self, coming: futures.Future) -> None:
        try:
            coming.set_result((next(self._batches), self._batches.get_state()))
        except BaseException as error:  # it is raised where the batch is awaited
            coming.set_exception(error)

    def get_state(self) -> Any:
        return self._state

    def set_state(self, state: Any) -> None:
        if self._coming is not None:
            futures.wait([self._coming])
            self._coming = None
        self._batches.set_state(state)
        self._state = state

    def start_prefetch(self) -> None:
        self._batches.start_prefetch()
