"""The attention explorer: one self-contained HTML page, for a notebook cell or a browser without a network.

The page draws with D3, which is included in it. Weights are stored in steps of 1/255.
"""

import base64
import html
import json
import re
from dataclasses import dataclass
from importlib.resources import files
from os import PathLike
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float

HEIGHT = 720  # pixels of a notebook cell
NAMES = {"encoder": "Encoder self-attention", "decoder": "Decoder self-attention", "cross": "Encoder-decoder attention"}
PARTS = ("explorer.html", "explorer.css", "explorer.js", "d3.min.js")
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class Look:
    """One kind of attention: `weights[l, h, t, s]` says how much piece `queries[t]` looks at piece `keys[s]`."""

    name: str
    queries: tuple[str, ...]
    keys: tuple[str, ...]
    weights: Float[np.ndarray, "L H T S"]


@dataclass(frozen=True)
class Step:
    """A piece of text, and the likeliest pieces at its position, each with its probability."""

    piece: str
    alternatives: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Inspection:
    """All attentions of a model on one text. `steps[t]` belongs to `queries[t]` of the looks that write the text."""

    title: str
    looks: tuple[Look, ...]
    steps: tuple[Step, ...]


class Explorer:
    """The page of one inspection. As the last value of a notebook cell it shows itself; `save` writes it to a file."""

    def __init__(self, inspection: Inspection):
        self.inspection = inspection

    def page(self) -> str:
        """The whole page. It loads nothing, and no text in it can become code."""
        part = {name: (files("zoo.plotting") / "page" / name).read_text(encoding="utf-8") for name in PARTS}
        filled = {
            "POLICY": POLICY,
            "TITLE": html.escape(self.inspection.title),
            "STYLE": part["explorer.css"],
            "D3": part["d3.min.js"],
            "CODE": part["explorer.js"],
            "DATA": _embedded(_plain(self.inspection)),
        }
        # In one pass, so that %CODE% in a text is not replaced.
        return re.sub("%([A-Z0-9]+)%", lambda match: filled[match[1]], part["explorer.html"])

    def save(self, path: str | PathLike) -> None:
        """Write the page, on a file system or to an object store."""
        epath.Path(path).write_text(self.page())

    def _repr_html_(self) -> str:
        framed = html.escape(self.page(), quote=True)
        style = f"width: 100%; height: {HEIGHT}px; border: 0"
        return f'<iframe srcdoc="{framed}" sandbox="allow-scripts" style="{style}"></iframe>'


def explore(inspection: Inspection) -> Explorer:
    """A page to explore every layer and head of every attention of `inspection`."""
    return Explorer(inspection)


def _plain(inspection: Inspection) -> dict[str, Any]:
    steps = [{"piece": s.piece, "alternatives": [list(a) for a in s.alternatives]} for s in inspection.steps]
    return {"title": inspection.title, "looks": [_plain_look(look) for look in inspection.looks], "steps": steps}


def _plain_look(look: Look) -> dict[str, Any]:
    weights = np.rint(255 * np.clip(np.nan_to_num(look.weights), 0, 1)).astype(np.uint8)
    return {
        "name": NAMES.get(look.name, look.name),
        "writes": look.name != "encoder",
        "queries": look.queries,
        "keys": look.keys,
        "shape": weights.shape,
        "weights": base64.b64encode(weights.tobytes()).decode("ascii"),
    }


def _embedded(data: Any) -> str:
    """JSON that cannot close the script element around it."""
    text = json.dumps(data, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
