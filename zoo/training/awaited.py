"""Wait for the next batch, but not for ever."""

from collections.abc import Callable
from concurrent import futures
from threading import Thread
from typing import Any

import grain

LOOKS_EVERY = 0.2  # seconds


class Awaited(grain.DatasetIterator):
    """The batches of an iterator, each fetched in a thread, so that waiting for it can stop.

    Its state is always the one after the last batch that was given out, even while the next is being fetched: an
    iterator that waits for data may be unable to give its state.
    """

    def __init__(self, batches: grain.DatasetIterator):
        super().__init__()
        self._batches, self._state = batches, batches.get_state()
        self._coming: futures.Future | None = None

    def __next__(self) -> Any:
        return self.unless(lambda: False)

    def unless(self, stopped: Callable[[], bool]) -> Any | None:
        """The next batch, or None if `stopped()` becomes true first; the next call then returns that batch."""
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
        except BaseException as error:  # raised where the batch is awaited
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
