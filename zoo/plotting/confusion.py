"""The confusion matrix of a classifier."""

from collections.abc import Sequence
from os import PathLike

import numpy as np

from zoo.plotting.pictures import SHADES, picture


def draw_confusion(table: Sequence[Sequence[int]], labels: Sequence[str], title: str, path: str | PathLike) -> None:
    """Write a picture of the confusion matrix: rows are true labels, columns are predictions, shaded by the share of
    the row."""
    counts = np.asarray(table)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.5 + 0.8 * len(labels)
    with picture(path, *labels, title, size=(side + 1, side)) as figure:
        axes = figure.subplots()
        axes.imshow(shares, cmap=SHADES, vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            dark = shares[row, column] > 0.5
            text = f"{count:,}\n{100 * shares[row, column]:.0f} %"
            axes.text(column, row, text, ha="center", va="center", fontsize="small", color="white" if dark else "black")
        axes.set_xticks(range(len(labels)), labels)
        axes.set_yticks(range(len(labels)), labels)
        for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            text.set_parse_math(False)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.set_title(title, parse_math=False)
