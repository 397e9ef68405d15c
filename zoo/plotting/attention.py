"""Pictures of attention, as in Bahdanau et al. 2015, Figure 3: a row of a panel is a query, a column a key, named
across the top."""

from collections.abc import Sequence
from os import PathLike

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from zoo.plotting.pictures import SHADES, picture

LONGEST_SIDE = 7500  # pixels, the most that viewers open


def draw_attention(
    weights: Float[np.ndarray, "L H T S"],
    source: Sequence[str],
    target: Sequence[str],
    title: str,
    path: str | PathLike,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> None:
    """Write a picture with a panel for each layer (down) and head (across). `layers` and `heads` are their numbers in
    the titles, if any. All panels share one scale from 0 to 1."""
    rows, columns = weights.shape[:2]
    cell = 0.28 if rows * columns == 1 else 0.19  # inches
    left, top = (0.09 * max(map(len, labels)) + 0.35 for labels in (target, source))
    width = max(columns * (cell * len(source) + 0.25) + left + 0.9, 4.0)
    height = rows * (cell * len(target) + 0.35) + top + 0.5
    dpi = min(150, LONGEST_SIDE / max(width, height))
    with picture(path, *source, *target, title, size=(width, height), dpi=dpi, **{"font.size": 36 * cell}) as figure:
        panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for row, column in np.ndindex(rows, columns):
            axes = panels[row, column]
            image = draw_panel(axes, weights[row, column], source, target)
            if layers is not None and heads is not None:
                axes.set_title(f"layer {layers[row]}, head {heads[column]}")
        for axes in panels[1:].flat:
            axes.tick_params(labeltop=False)
        figure.colorbar(image, ax=panels, shrink=min(1.0, 2.5 / height), aspect=15, label="attention")
        size = max(7.0, min(11.0, 110 * width / max(len(title), 1)))
        figure.suptitle(_wrapped(title, int(width * 110 / size)), fontsize=size, parse_math=False)


def draw_panel(
    axes: Axes, weights: Float[np.ndarray, "T S"], source: Sequence[str], target: Sequence[str]
) -> AxesImage:
    """Draw one map of weights onto `axes`, white for 0 and dark for 1, with the source's pieces across the top and the
    target's down the left side."""
    image = axes.imshow(weights, vmin=0, vmax=1, cmap=SHADES, aspect="equal")
    # Text between two dollar signs would be read as mathematics.
    axes.set_xticks(range(len(source)), source, rotation=90, parse_math=False)
    axes.set_yticks(range(len(target)), target, parse_math=False)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    for side in axes.spines.values():
        side.set_color("0.8")
    return image


def _wrapped(text: str, width: int) -> str:
    """Lines of about `width` characters, broken between words; for a very long text, the beginning."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines if len(lines) <= 4 else [*lines[:3], f"{lines[3]} …"])
