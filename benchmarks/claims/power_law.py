"""Power laws: `loss = scale * x ** -exponent`, a straight line of logarithms (Kaplan et al. 2020, eq. 1.1)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95


@dataclass(frozen=True)
class PowerLaw:
    """The least-squares line through (log x, log loss). Intervals hold at 95 % if the residuals are normal."""

    exponent: float
    exponent_interval: tuple[float, float]
    scale: float
    deviation: float
    points: tuple[float, ...]  # log x

    @classmethod
    def fitted(cls, x: Sequence[float], loss: Sequence[float]) -> "PowerLaw":
        """Raises `ValueError` for fewer than three points."""
        if len(x) < 3:
            raise ValueError(f"{len(x)} points: a power law with an interval needs three")
        logs = np.log(np.asarray(x, float))
        line = stats.linregress(logs, np.log(np.asarray(loss, float)))
        residuals = np.log(np.asarray(loss, float)) - line.intercept - line.slope * logs
        spread = stats.t.ppf(0.5 + LEVEL / 2, len(x) - 2)
        slope, error = -float(line.slope), float(line.stderr)
        deviation = float(np.sqrt(np.sum(residuals**2) / (len(x) - 2)))
        interval = (slope - spread * error, slope + spread * error)
        return cls(slope, interval, float(np.exp(line.intercept)), deviation, tuple(map(float, logs)))

    def __call__(self, x: float) -> float:
        return self.scale * x**-self.exponent

    def interval(self, x: float) -> tuple[float, float]:
        """Where the loss of one more run at `x` lies."""
        logs = np.asarray(self.points)
        distance = (np.log(x) - logs.mean()) ** 2 / np.sum((logs - logs.mean()) ** 2)
        half = stats.t.ppf(0.5 + LEVEL / 2, len(logs) - 2) * self.deviation * np.sqrt(1 + 1 / len(logs) + distance)
        return float(self(x) * np.exp(-half)), float(self(x) * np.exp(half))


def frontier(curves: Sequence[tuple[Sequence[float], Sequence[float]]]) -> tuple[list[float], list[float]]:
    """The points of several curves that no other point betters with as little compute, in order of compute."""
    points = sorted((x, loss) for xs, losses in curves for x, loss in zip(xs, losses, strict=True))
    best = []
    for x, loss in points:
        if not best or loss < best[-1][1]:
            best.append((x, loss))
    return [x for x, _ in best], [loss for _, loss in best]
