"""The pictures of the report, in the style of `zoo.plotting`."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.claims.power_law import PowerLaw
from zoo.plotting.pictures import panel, picture

MARKERS = "os^D"
Lines = Mapping[str, tuple[Sequence[float], Sequence[float]]]  # by name: x, y


def draw_parallelism(path: str | PathLike, speeds: Lines, shares: Lines, steps: Lines) -> None:
    """Tokens/s of an update, its share of the ceiling, and its products that wait for each other, over the length."""
    with picture(path, size=(11, 3.6)) as figure:
        left, middle, right = figure.subplots(1, 3)
        _lines(panel(left, "training", "length of a row", "tokens/s"), speeds)
        _lines(panel(middle, "share of the measured peak", "length of a row", "%"), shares)
        _lines(panel(right, "products one after the other", "length of a row"), steps)
        for axes in (left, middle, right):
            _by_doubling(axes, [x for xs, _ in speeds.values() for x in xs])
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:,g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        left.legend()


def draw_recall(path: str | PathLike, accuracies: Lines, chance: float) -> None:
    """Accuracy in hundredths over the distance, and that of a guess."""
    with picture(path, size=(6.5, 4)) as figure:
        axes = panel(figure.subplots(), "recall of a symbol k positions back", "k", "accuracy, %")
        _lines(axes, accuracies)
        axes.axhline(100 * chance, color="0.5", linestyle=":", label="a guess")
        axes.set_ylim(0, 103)
        _by_doubling(axes, [x for xs, _ in accuracies.values() for x in xs])
        axes.legend()


def draw_scaling(
    path: str | PathLike, fitted: Sequence[dict[str, Any]], checked: dict[str, Any] | None, laws: Mapping[str, PowerLaw]
) -> None:
    """Loss over parameters and over compute, with the fitted lines, their 95 % bands, and the run that checks them.

    A run has `parameters`, and lists `compute` and `losses`; `laws` has one of `parameters` and one of `compute`.
    """
    with picture(path, size=(10, 4.2)) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        panel(left, "after the same text", "parameters without embeddings", "held-out loss, nats")
        panel(right, "along each run", "floating-point operations")
        runs = [*fitted, *([checked] if checked else [])]
        left.plot([r["parameters"] for r in fitted], [r["losses"][-1] for r in fitted], "o", label="fitted")
        for run in fitted:
            right.plot(run["compute"], run["losses"], color="0.6", linewidth=0.9)
        if checked:
            left.plot([checked["parameters"]], [checked["losses"][-1]], "s", color="C1", label="predicted, then run")
            right.plot(checked["compute"], checked["losses"], color="C1")
        if "parameters" in laws:
            _band(left, laws["parameters"], [r["parameters"] for r in runs])
        if "compute" in laws:
            _band(right, laws["compute"], [c for r in runs for c in r["compute"]], from_fit=True)
        for axes in (left, right):
            axes.set_xscale("log")
            axes.legend()


def _band(axes: Axes, law: PowerLaw, xs: Sequence[float], from_fit: bool = False) -> None:
    import numpy as np

    first = float(np.exp(min(law.points))) if from_fit else min(xs)
    grid = np.geomspace(first, max(xs), 60)
    low, high = zip(*(law.interval(x) for x in grid), strict=True)
    axes.plot(grid, [law(x) for x in grid], color="C0", linestyle="--", label=f"power law, exponent {law.exponent:.3f}")
    axes.fill_between(grid, low, high, color="C0", alpha=0.12, label="95 % for one more run")


def _lines(axes: Axes, lines: Lines) -> None:
    for (name, (xs, ys)), marker in zip(lines.items(), MARKERS, strict=False):
        axes.plot(xs, ys, marker=marker, markersize=4, label=name)


def _by_doubling(axes: Axes, xs: Sequence[float]) -> None:
    axes.set_xscale("log", base=2)
    ticks = sorted(set(xs))
    axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
    axes.minorticks_off()
