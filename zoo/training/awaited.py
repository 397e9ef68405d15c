"""Read batches ahead of the steps that need them, and wait for them, but not for ever."""

import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Semaphore, Thread
from typing import Any

import grain

LOOKS_EVERY = 0.2  # seconds
AHEAD = 4  # batches


class Awaited(grain.DatasetIterator):
    """The batches of an iterator, read ahead in a thread of their own, so that waiting for them can stop.

    Its state is always the one after the last batch that was given out, whatever has been read since: an iterator that
    waits for data may be unable to give its state.
    """

    def __init__(self, batches: grain.DatasetIterator):
        super().__init__()
        self._batches, self._state = batches, batches.get_state()
        self._reader: _Reader | None = None
        self._waiting: list[tuple[Any, Any]] = []  # read, but not given out yet

    def __next__(self) -> Any:
        return self.unless(lambda: False)[0]

    def unless(self, stopped: Callable[[], bool], count: int = 1) -> list[Any] | None:
        """The next `count` batches, or None if `stopped()` becomes true first; the next call then begins with the same
        batch."""
        self.start_prefetch()
        while len(self._waiting) < count:
            try:
                self._waiting.append(self._reader.take(LOOKS_EVERY))
            except Empty:
                if stopped():
                    return None
        given, self._waiting = self._waiting[:count], self._waiting[count:]
        self._state = given[-1][1]
        return [batch for batch, _ in given]

    def get_state(self) -> Any:
        return self._state

    def set_state(self, state: Any) -> None:
        if self._reader is not None:
            self._reader.end()
            self._reader.join()
        self._reader, self._waiting = None, []
        self._batches.set_state(state)
        self._state = state

    def start_prefetch(self) -> None:
        if self._reader is None:
            self._reader = _Reader(self._batches)
            weakref.finalize(self, self._reader.end)
            self._reader.start()


class _Reader(Thread):
    """Reads batches, `AHEAD` of them before they are taken."""

    def __init__(self, batches: grain.DatasetIterator):
        super().__init__(daemon=True)
        self._batches, self._ended = batches, False
        self._read: SimpleQueue[tuple[Any, Any] | BaseException] = SimpleQueue()
        self._wanted = Semaphore(AHEAD)

    def take(self, timeout: float) -> tuple[Any, Any]:
        """A batch and the state after it. Raises `Empty` if none is read in time, or the error of reading it."""
        found = self._read.get(timeout=timeout)
        self._wanted.release()
        if isinstance(found, BaseException):
            raise found
        return found

    def end(self) -> None:
        """Read no more after the batch that is being read."""
        self._ended = True
        self._wanted.release()

    def run(self) -> None:
        while self._wanted.acquire() and not self._ended:
            try:
                self._read.put((next(self._batches), self._batches.get_state()))
            except BaseException as error:
                self._read.put(error)
