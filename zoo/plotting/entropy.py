"""How widely each head looks around."""

from collections.abc import Mapping
from os import PathLike

import numpy as np
from jaxtyping import Float

from zoo.plotting.pictures import SHADES, picture

NAMES = {"encoder": "encoder", "decoder": "decoder", "cross": "decoder to source"}


def entropy(weights: Float[np.ndarray, "L H T S"]) -> Float[np.ndarray, "L H"]:
    """The entropy of a head's weights in bits, the mean over its queries: 0 where each looks at one piece, log2 S where
    all look everywhere alike."""
    weights = np.asarray(weights, np.float64)
    logs = np.log2(weights, out=np.zeros_like(weights), where=weights > 0)
    return -(weights * logs).sum(axis=-1).mean(axis=-1)


def draw_entropy(weights: Mapping[str, Float[np.ndarray, "L H _ _"]], title: str, path: str | PathLike) -> None:
    """Write a picture with a panel for each kind of attention: the entropy of every layer (down) and head (across)."""
    found = {name: entropy(table) for name, table in weights.items()}
    layers, heads = (max(table.shape[axis] for table in found.values()) for axis in (0, 1))
    most = max(float(table.max()) for table in found.values())
    size = (len(found) * max(0.55 * heads + 0.9, 2.6) + 1.2, 0.45 * layers + 1.7)
    with picture(path, title, size=size) as figure:
        panels = figure.subplots(1, len(found), squeeze=False)[0]
        for axes, (name, table) in zip(panels, found.items(), strict=True):
            image = axes.imshow(table, cmap=SHADES, vmin=0, vmax=max(most, 1e-9), aspect="auto")
            for (layer, head), bits in np.ndenumerate(table):
                colour = "white" if bits > 0.6 * most else "black"
                axes.text(head, layer, f"{bits:.1f}", ha="center", va="center", fontsize="small", color=colour)
            axes.set_xticks(range(table.shape[1]), range(1, table.shape[1] + 1))
            axes.set_yticks(range(table.shape[0]), range(1, table.shape[0] + 1))
            axes.tick_params(length=0)
            axes.set(title=NAMES.get(name, name), xlabel="head", ylabel="layer")
        figure.colorbar(image, ax=panels, label="entropy, bits")
        figure.suptitle(title, fontsize="medium", parse_math=False)
