"""Vectors as pictures: positional encodings, and the neighbours of a word among the embeddings."""

from collections.abc import Mapping, Sequence
from os import PathLike

import numpy as np
from jaxtyping import Float

from zoo.plotting.pictures import SIGNED, panel, picture

Neighbours = Sequence[tuple[str, float]]  # pieces with their cosines, the nearest first


def draw_positions(vectors: Float[np.ndarray, "T E"], title: str, path: str | PathLike) -> None:
    """Write a picture of the vectors of positions, a row each, and of the cosine between any two of them."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    most = np.abs(vectors).max()
    with picture(path, title, size=(10, 4.2)) as figure:
        left, right = figure.subplots(1, 2)
        image = left.imshow(vectors, cmap=SIGNED, vmin=-most, vmax=most, aspect="auto", interpolation="nearest")
        left.set(title="vectors", xlabel="number in the vector", ylabel="position")
        figure.colorbar(image, ax=left)
        image = right.imshow(unit @ unit.T, cmap=SIGNED, vmin=-1, vmax=1, interpolation="nearest")
        right.set(title="cosine of two positions", xlabel="position", ylabel="position")
        figure.colorbar(image, ax=right)
        figure.suptitle(title, parse_math=False)


def nearest(
    table: Float[np.ndarray, "V E"], vector: Float[np.ndarray, "E"], count: int, left_out: Sequence[int] = ()
) -> list[tuple[int, float]]:
    """The rows of `table` with the largest cosine to `vector`, and those cosines; without the rows `left_out`."""
    lengths = np.linalg.norm(table, axis=1) * np.linalg.norm(vector)
    cosines = table @ vector / np.maximum(lengths, 1e-12)
    cosines[list(left_out)] = -np.inf
    rows = np.argsort(-cosines, kind="stable")[:count]
    return [(int(row), float(cosines[row])) for row in rows if np.isfinite(cosines[row])]


def draw_neighbours(neighbours: Mapping[str, Neighbours], title: str, path: str | PathLike) -> None:
    """Write a picture with a panel for each word: the pieces whose embeddings lie nearest to its own."""
    most = max(map(len, neighbours.values()))
    texts = [title, *neighbours, *(piece for near in neighbours.values() for piece, _ in near)]
    with picture(path, *texts, size=(3.2 * len(neighbours) + 0.6, 0.28 * most + 1.3)) as figure:
        panels = figure.subplots(1, len(neighbours), squeeze=False, sharex=True)[0]
        for axes, (word, near) in zip(panels, neighbours.items(), strict=True):
            panel(axes, word, "cosine").grid(axis="y", visible=False)
            axes.barh(range(len(near)), [cosine for _, cosine in near])
            axes.set_yticks(range(len(near)), [piece for piece, _ in near], parse_math=False)
            axes.invert_yaxis()
        figure.suptitle(title, parse_math=False)
