"""The progress of a run: the best evaluation, and sums since the last report."""

import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import jax

from zoo.parallel.devices import peak_flops
from zoo.tasks.label_losses import LabelSums
from zoo.tasks.losses import Sums

LOWER_IS_BETTER = ("loss", "perplexity")


class DivergedError(Exception):
    """Training diverged at `step`."""

    def __init__(self, step: int, what: str):
        super().__init__(what)
        self.step = step


@dataclass
class Progress:
    """The best evaluation, the number of rollbacks, and the current `Window`; saved with every checkpoint. `data` is
    the fingerprint of the training data, which older checkpoints lack.
    """

    best: float | None = None
    best_step: int = 0
    since_best: int = 0
    rollbacks: int = 0
    window: dict[str, Any] | None = None
    data: str = ""

    def better(self, value: float, select: str) -> bool:
        if math.isnan(value):
            return False
        if self.best is None:
            return True
        return value < self.best if select in LOWER_IS_BETTER else value > self.best

    def see(self, step: int, value: float, select: str) -> bool:
        """Add an evaluation; returns whether it is the best so far."""
        if not self.better(value, select):
            self.since_best += 1
            return False
        self.best, self.best_step, self.since_best = value, step, 0
        return True


@dataclass
class Window:
    """Sums since the last report. They survive a stop: a checkpoint keeps them as `saved`, and `Window(carried=saved)`
    continues from there. Times, and the tokens that measure the pace, are those of this process only.
    """

    began: float = field(default_factory=time.perf_counter)
    waited: float = 0.0
    paused: float = 0.0
    tokens: float = 0.0
    sums: Sums | LabelSums | None = None
    gradient_norm: float = 0.0
    carried: dict[str, float | None] | None = None

    def add(self, metrics: dict[str, Any]) -> None:
        sums = jax.tree.map(float, metrics["sums"])
        self.tokens += sums.tokens
        if self.carried is not None:
            self.sums, self.carried = type(sums)(**self.carried), None
        self.sums = sums if self.sums is None else jax.tree.map(lambda a, b: a + b, self.sums, sums)
        self.gradient_norm = float(metrics["gradient_norm"])

    @property
    def saved(self) -> dict[str, float | None] | None:
        """The sums as JSON, or None if there are none."""
        return self.carried if self.sums is None else asdict(self.sums)

    def values(self, rate: float, flops_per_token: float) -> dict[str, float]:
        elapsed = time.perf_counter() - self.began - self.paused
        pace = self.tokens / elapsed
        peak = peak_flops()
        speed = {
            "tokens_per_second": pace,
            **({"mfu": pace * flops_per_token / peak} if peak else {}),
            "learning_rate": rate,
            "gradient_norm": self.gradient_norm,
            "data_wait": self.waited / elapsed,
        }
        return self.sums.means() | speed
