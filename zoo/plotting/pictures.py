"""Pictures as files."""

from collections.abc import Sequence
from io import BytesIO
from os import PathLike

from etils import epath
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from zoo.errors import UserError
from zoo.storage import write_output


def format_of(path: str | PathLike) -> str:
    """The format that the ending of a file's name stands for, PNG without one.

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
