"""The loss of models of different sizes."""

from collections.abc import Mapping
from os import PathLike

from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator

from zoo.plotting.pictures import panel, picture


def draw_by_size(runs: Mapping[str, tuple[int, float]], path: str | PathLike) -> None:
    """Write a picture of the best validation loss against the number of parameters, both on logarithmic scales, where a
    power law is a straight line. `runs` has both for each name."""
    with picture(path, *runs, size=(6.5, 4.2)) as figure:
        axes = panel(figure.subplots(), "best validation loss", "parameters", "loss, nats a token")
        axes.plot(*zip(*runs.values(), strict=True), "o")
        for name, point in runs.items():
            place = {"xytext": (5, 4), "textcoords": "offset points"}
            axes.annotate(name, point, **place, fontsize="x-small", color="0.3", parse_math=False)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.margins(0.12)
        for axis, places in ((axes.xaxis, LogLocator(subs=(1, 2, 5))), (axes.yaxis, MaxNLocator(6))):
            axis.set_major_locator(places)
            axis.set_major_formatter(EngFormatter(sep=""))
            axis.set_minor_locator(NullLocator())
