"""A trace of five steps for TensorBoard's profiler."""

import logging
from pathlib import Path
from typing import Any

import jax

log = logging.getLogger("zoo")
STEPS = 5


class Profile:
    """Traces the steps of this process from `first` on (0: none) into `directory`. `close` it at the end."""

    def __init__(self, first: int, directory: Path):
        self._steps = range(first, first + STEPS) if first else range(0)
        self._directory = directory
        self._began: int | None = None

    def before(self, steps: range, state: Any) -> None:
        """Use it before each call of the device, with the arrays that the previous one computes. The steps of a call
        are traced together."""
        asked = any(step in self._steps for step in steps)
        if self._began is None and asked:
            jax.profiler.start_trace(str(self._directory))
            self._began = steps[0]
        elif not asked:
            self.close(state)

    def close(self, state: Any) -> None:
        """End a running trace, once `state` is computed."""
        if self._began is None:
            return
        began, self._began = self._began, None
        jax.block_until_ready(state)
        jax.profiler.stop_trace()
        log.info("the steps from %d on are traced: look at them with TensorBoard", began)
