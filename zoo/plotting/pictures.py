"""Pictures as files."""

from collections.abc import Sequence
from io import BytesIO
from os import PathLike

from matplotlib.figure import Figure
from matplotlib.legend import Legend

from zoo.storage import write_output


def save(figure: Figure, path: str | PathLike) -> None:
    """Write a PNG, on a file system or to an object store."""
    content = BytesIO()
    figure.savefig(content, format="png")
    write_output(path, content.getvalue())


def name_entries(legend: Legend, names: Sequence[str]) -> None:
    """Give the entries of a legend their names as they are: Matplotlib leaves out labels that begin with `_`, and
    reads what is between dollars as mathematics."""
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(name)
