"""Pictures as files, all in one style."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from os import PathLike
from typing import Any

import matplotlib
from cycler import cycler
from etils import epath
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from zoo.errors import UserError
from zoo.plotting.fonts import families
from zoo.storage import write_output

# Okabe and Ito's colours, which every kind of colour vision tells apart, the explorer's blue first.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5c5c5c")
SHADES = "Blues"  # of maps: white for 0, dark for 1
SIGNED = "PuOr"  # of maps with values below 0: white for 0
STYLE: dict[str, Any] = {
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.titlesize": "medium",
    "axes.edgecolor": "0.7",
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": "0.3",
    "ytick.color": "0.3",
    "legend.frameon": False,
    "legend.fontsize": "small",
}


@contextmanager
def picture(
    path: str | PathLike, *texts: str, size: tuple[float, float], dpi: float = 120, **settings: Any
) -> Iterator[Figure]:
    """A figure of `size` inches in the zoo's style, written to `path` at the end. It has the glyphs of `texts`, as far
    as they are installed; `settings` are matplotlib's own, of this picture alone."""
    with matplotlib.rc_context(STYLE | {"font.family": families("".join(texts))} | settings):
        figure = Figure(figsize=size, layout="constrained", dpi=dpi)
        FigureCanvasAgg(figure)
        yield figure
        save(figure, path)


def panel(axes: Axes, title: str = "", x: str = "", y: str = "") -> Axes:
    """Axes for lines and points, with a grid and these names; no name is read as mathematics."""
    axes.grid(True)
    axes.set_title(title, parse_math=False)
    axes.set_xlabel(x, parse_math=False)
    axes.set_ylabel(y, parse_math=False)
    return axes


def format_of(path: str | PathLike) -> str:
    """The format of a file's suffix, PNG without one.

    Raises `UserError` for one that matplotlib does not write.
    """
    ending = epath.Path(path).suffix.removeprefix(".").lower()
    known = FigureCanvasAgg.get_supported_filetypes()
    if ending and ending not in known:
        raise UserError(f"{path}: no picture can be written as .{ending}: end its name in .{', .'.join(sorted(known))}")
    return ending or "png"


def save(figure: Figure, path: str | PathLike) -> None:
    """Write a picture in the format of its name, on a file system or to an object store."""
    content = BytesIO()
    # Tight: what a layout leaves no room for, as the name beside a long label, is not cut off.
    figure.savefig(content, format=format_of(path), bbox_inches="tight")
    write_output(path, content.getvalue())


def name_entries(legend: Legend, names: Sequence[str]) -> None:
    """Give the entries of a legend their names as they are: Matplotlib leaves out labels that begin with `_`, and
    reads what is between dollars as mathematics."""
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(name)
