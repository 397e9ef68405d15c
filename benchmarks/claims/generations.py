"""The models that are compared: one vector for the whole source, alignment, and attention alone, of equal size."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from zoo.models import registry

NAMES = {
    "cho": "fixed vector (Cho)",
    "rnnsearch": "aligned (RNNsearch)",
    "transformer": "attention alone (Transformer)",
}
_FIELDS: dict[str, Callable[[int], dict[str, Any]]] = {
    "cho": lambda width: {"embedding": width, "maxout": width},
    "rnnsearch": lambda width: {"embedding": width, "alignment": width, "maxout": width},
    "transformer": lambda width: {"layers": 2, "ffn": 4 * width, "heads": 4, "norm": "pre"},
}
_KNOWN = (16, 64, 256)  # widths whose parameters are counted
_STEP = 4  # of widths: heads divide them


@functools.cache
def sized(name: str, vocabulary: int, parameters: int) -> dict[str, Any]:
    """The fields of a `tiny` model that bring it closest to so many parameters."""
    counts = [registry.parameter_count(_config(name, vocabulary, width)) for width in _KNOWN]
    square, linear, constant = np.polyfit(_KNOWN, counts, 2)  # exact: every array has at most two axes of the width
    width = (-linear + math.sqrt(linear**2 - 4 * square * (constant - parameters))) / (2 * square)
    width = max(_STEP, _STEP * round(width / _STEP))
    return {"width": width, **_FIELDS[name](width)}


def config(name: str, vocabulary: int, parameters: int, **changes: Any) -> Any:
    """The model's config at the size that `sized` finds."""
    return _config(name, vocabulary, sized(name, vocabulary, parameters)["width"], **changes)


def _config(name: str, vocabulary: int, width: int, **changes: Any) -> Any:
    vocabularies = {f"{side}_vocabulary": vocabulary for side in ("source", "target")}
    fields = {"width": width, **_FIELDS[name](width), "dropout": 0.0}
    return registry.config(name, "tiny", **(fields | vocabularies | changes))
