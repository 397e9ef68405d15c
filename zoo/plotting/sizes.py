"""The loss of models of different sizes."""

from collections.abc import Mapping
from os import PathLike

from zoo.plotting.pictures import panel, picture


def draw_by_size(runs: Mapping[str, tuple[int, float]], path: str | PathLike) -> None:
    """Write a picture of the best validation loss against the number of parameters, both on logarithmic scales, where a
    power law is a straight line. `runs` has both for each name."""
    with picture(path, *runs, size=(6.5, 4.2)) as figure:
        axes = panel(figure.subplots(), "best validation loss", "parameters", "loss, nats a token")
        points = sorted(runs.values())
        axes.plot(*zip(*points, strict=True), marker="o", linewidth=0.8)
        for name, point in runs.items():
            place = {"xytext": (5, 4), "textcoords": "offset points"}
            axes.annotate(name, point, **place, fontsize="x-small", color="0.3", parse_math=False)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.margins(0.12)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}")
