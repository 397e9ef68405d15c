"""How cost grows: the time of a training step and of a search, as one size at a time is doubled.

Training is that of a GPT, and the search that of a Transformer. All other sizes stay at the starting point. A fitted
exponent of 1 means that doubling the size doubles the time. Costs that do not depend on the size pull the fit below
that, so the exponent of the last doubling is given too.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import decoding, gpt_training
from benchmarks.measuring import median_seconds
from zoo.errors import UserError

GPT = {"rows": 8, "length": 128, "layers": 4, "width": 256, "vocabulary": 4096}
SEARCH = {"sentences": 8, "source_length": 32, "length": 32, "vocabulary": 8192, "beam": 4}
FACTORS = (0.25, 0.5, 1, 2, 4)
NAMES = {"rows": "batch", "layers": "depth", "sentences": "batch"}
HEAD = 64  # units of a head, whatever the width
REPEATS = 3
TICKS = (0.25, 0.5, 1, 2, 4, 8)  # of the picture


@dataclass(frozen=True)
class Growth:
    """The seconds that `work` took for each of the sizes of one kind."""

    work: str
    kind: str
    sizes: list[int]
    seconds: list[float]

    def exponent(self, last: int = 0) -> float:
        """The slope of log seconds over log size by least squares; of the `last` points only, if that is not 0."""
        return float(np.polyfit(np.log(self.sizes[-last:]), np.log(self.seconds[-last:]), 1)[0])

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "exponent": self.exponent(), "exponent_of_the_last_doubling": self.exponent(2)}


@dataclass(frozen=True)
class Scaling:
    growths: list[Growth]
    device: str

    def as_dict(self) -> dict[str, Any]:
        return {"name": "scaling", "device": self.device, "rows": [growth.as_dict() for growth in self.growths]}

    def text(self) -> str:
        lines = [f"scaling on {self.device}", f"{'work':8}{'size':12}{'exponent':>9}{'last':>7}  milliseconds"]
        for growth in self.growths:
            points = zip(growth.sizes, growth.seconds, strict=True)
            each = "  ".join(f"{size:,}: {1000 * seconds:.0f}" for size, seconds in points)
            exponents = f"{growth.exponent():9.2f}{growth.exponent(2):7.2f}"
            lines.append(f"{growth.work:8}{growth.kind:12}{exponents}  {each}")
        return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS), help="(default: train search)")
    parser.add_argument("--kinds", nargs="+", default=[], help="the sizes to vary, as batch or width (default: all)")
    parser.add_argument("--dtype", default="bfloat16", help="to compute in (default: bfloat16)")
    parser.add_argument("--factors", type=float, nargs="+", default=FACTORS, help="of the starting point")
    parser.add_argument("--picture", default="", metavar="FILE", help="draw the curves into FILE")


def run(arguments: argparse.Namespace) -> Scaling:
    cases = [
        (work, size)
        for work in arguments.works
        for size in WORKS[work].start
        if not arguments.kinds or NAMES.get(size, size) in arguments.kinds
    ]
    if not cases:
        known = sorted({NAMES.get(size, size) for work in arguments.works for size in WORKS[work].start})
        raise UserError(f"--kinds={' '.join(arguments.kinds)}: choose from {', '.join(known)}")
    growths = [_growth(arguments, work, size) for work, size in cases]
    if arguments.picture:
        draw(growths, Path(arguments.picture))
    return Scaling(growths, f"{jax.device_count()} x {jax.devices()[0].device_kind}")


def _growth(arguments: argparse.Namespace, work: str, size: str) -> Growth:
    start = WORKS[work].start
    sizes = [max(1, round(start[size] * factor)) for factor in arguments.factors]
    found = []
    for value in sizes:
        turn = WORKS[work].prepare(start | {size: value}, arguments.dtype)
        turn()
        found.append(median_seconds(turn, REPEATS))
    return Growth(work, NAMES.get(size, size), sizes, found)


def _training(sizes: dict[str, int], dtype: str) -> Callable[[], Any]:
    heads = max(1, sizes["width"] // HEAD)
    return gpt_training.prepare(sizes | {"heads": heads, "dtype": dtype, "updates": 1})


def _search(sizes: dict[str, int], dtype: str) -> Callable[[], Any]:
    return decoding.prepare(sizes | {"size": "small", "dtype": dtype, "quantize": "none"})


@dataclass(frozen=True)
class Work:
    """`prepare(sizes, dtype)` gives what does the work once; `start` has the sizes from which each one grows."""

    prepare: Callable[[dict[str, int], str], Callable[[], Any]]
    start: dict[str, int]


WORKS = {"train": Work(_training, GPT), "search": Work(_search, SEARCH)}


def draw(growths: list[Growth], path: Path) -> None:
    """A panel for each work: time over size, both relative to the starting point, on logarithmic axes."""
    from matplotlib.figure import Figure

    works = list(dict.fromkeys(growth.work for growth in growths))
    kinds = list(dict.fromkeys(growth.kind for growth in growths))  # of one color in every panel
    figure = Figure(figsize=(4.5 * len(works), 4), layout="constrained")
    for panel, work in zip(np.ravel(figure.subplots(1, len(works), sharey=True)), works, strict=True):
        for growth in (one for one in growths if one.work == work):
            middle = len(growth.sizes) // 2
            of_size, of_time = (np.array(values) / values[middle] for values in (growth.sizes, growth.seconds))
            label = f"{growth.kind.replace('_', ' ')} ({growth.exponent():.2f})"
            panel.plot(of_size, of_time, marker="o", color=f"C{kinds.index(growth.kind)}", label=label)
        reach = [1 / 4, 4]
        panel.plot(reach, reach, color="0.7", linestyle=":", label="in proportion (1)")
        panel.set(xscale="log", yscale="log", title=work, xlabel="size, times the starting point")
        panel.set_xticks(TICKS[:-1], [f"{tick:g}" for tick in TICKS[:-1]])
        panel.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
        panel.minorticks_off()
        panel.legend(title="size (exponent)", fontsize="small")
    figure.axes[0].set_ylabel("time, times that of the starting point")
    figure.savefig(path, dpi=120)
