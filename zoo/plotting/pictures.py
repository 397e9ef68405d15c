"""Pictures as files."""

from os import PathLike

from etils import epath
from matplotlib.figure import Figure


def save(figure: Figure, path: str | PathLike) -> None:
    """Write a PNG, on a file system or to an object store."""
    with epath.Path(path).open("wb") as file:
        figure.savefig(file, format="png")
