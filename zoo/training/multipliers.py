"""Factors of the learning rate, by the path of a parameter, for single layers, or for new rows.

A scanned stack holds its layers in one array, an unrolled one in separate arrays. A pattern means the same layers in
both: `layers_3`, or `layers[0:6]` with Python's slices.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Float

from zoo.errors import UserError, nearest

ADDED = "markers"  # the path of the rows that a model adds to a table of its donor
_SLICE = re.compile(r"layers\[(-?\d*)(:?)(-?\d*)\]")
_LAYER = re.compile(r"(?<![^/])layers(?:_(\d+))?(?=/)")
_CELL = re.compile(r"^(encoder|decoder)(?:_(\d+))?(?=/)")  # a layer of a recurrent model, which has no `layers`
_TABLES = re.compile(r"(^|/)(\w*embedding|positions)(/|$)")


@dataclass(frozen=True, eq=False)
class Multiplier:
    """`factor` for the parameters whose path matches `pattern`; with `layers`, only for these layers."""

    text: str
    pattern: re.Pattern
    factor: float
    layers: slice | None = None

    @classmethod
    def of(cls, text: str) -> "Multiplier":
        """From `PATTERN=NUMBER`, such as `body/embedding=0` or `body/layers[:6]=0.1`. Raises `UserError` for other
        text."""
        pattern, equals, number = text.rpartition("=")
        try:
            found = _SLICE.search(pattern)
            # The path may have a name in between: body/decoder/layers.
            path = _SLICE.sub(r"(?:\\w+/)?layers(?=/)", pattern, count=1) if found else pattern
            made = cls(text, re.compile(path), float(number), _slice(*found.groups()) if found else None)
        except (re.error, ValueError):
            made = None
        if made is None or not (equals and pattern and 0 <= made.factor < float("inf")):
            raise UserError(
                f"optimizer.multipliers: {text!r} is not PATTERN=NUMBER, as body/embedding=0 or body/layers[:6]=0.5"
            )
        return made

    def holds(self, path: str, layer: int | None, count: int) -> bool:
        """For the parameter at `path`, where a stack's part is called `layers`, of this `layer` of `count`."""
        if self.layers is not None:
            return layer in range(count)[self.layers] and bool(self.pattern.search(path))
        indexed = path if layer is None else _LAYER.sub(f"layers_{layer}", path)
        return bool(self.pattern.search(path) or self.pattern.search(indexed))


def _slice(start: str, colon: str, stop: str) -> slice:
    if not colon:
        first = int(start)
        return slice(first, first + 1 or None)
    return slice(int(start) if start else None, int(stop) if stop else None)


class Factors:
    """The factor of every parameter: one number, or one for each layer or row along its first axis."""

    def __init__(
        self, multipliers: Sequence[Multiplier], layer_decay: float = 1.0, added: Mapping[str, int] | None = None
    ):
        """`layer_decay` falls with depth as in BEiT (Bao et al. 2022): once for the highest layer of the encoder and of
        the decoder, once more for each below it and for the embeddings below all. `added` counts the last rows of a
        table, by its path, that are new: their path is `markers`, and they are as high as the head."""
        self.multipliers, self.decay, self.added = tuple(multipliers), layer_decay, dict(added or {})

    def of(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Float[np.ndarray, "..."]]:
        """The factors by path. Raises `UserError` for a multiplier that matches no parameter."""
        layers = _counted_layers(shapes)
        cells = {} if layers else _counted_cells(shapes)
        depth, used = max((*layers.values(), *cells.values()), default=0), set()

        def factor(path: str, layer: int | None = None, count: int = 0) -> float:
            found = [m for m in self.multipliers if m.holds(path, layer, count)]
            used.update(found)
            below = count - layer if layer is not None else 0
            if layer is None and _TABLES.search(path):
                below = depth + 1 if depth else 0
            elif cells and (cell := _CELL.search(path)):
                below = cells[cell[1]] - int(cell[2] or 0)
            return (found[0].factor if found else 1.0) * self.decay**below

        result = {}
        for path, shape in shapes.items():
            stack = _LAYER.search(path)
            plain = _LAYER.sub("layers", path)
            if stack is None and path in self.added:
                new = self.added[path]
                each = [factor(path)] * (shape[0] - new) + [factor(ADDED)] * new
            elif stack is None:
                each = [factor(path)]
            elif stack.group(1) is not None:
                each = [factor(plain, int(stack.group(1)), layers[plain[: stack.start()]])]
            else:
                each = [factor(plain, layer, shape[0]) for layer in range(shape[0])]
            result[path] = np.array(each if len(set(each)) > 1 else each[0], np.float32)
        self._check_used(used, list(shapes))
        return result

    def _check_used(self, used: set[Multiplier], paths: Sequence[str]) -> None:
        for multiplier in self.multipliers:
            if multiplier not in used:
                pattern = multiplier.text.rpartition("=")[0]
                known = {"/".join(path.split("/")[:depth]) for path in paths for depth in (1, 2)}
                known |= {ADDED} if self.added else set()
                raise UserError(
                    f"optimizer.multipliers: no parameter's path has {pattern!r} in it: {nearest(pattern, known)}"
                )


def _counted_layers(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The number of layers of the stack under each path."""
    counts: dict[str, int] = {}
    for path, shape in shapes.items():
        if (found := _LAYER.search(path)) is not None:
            count = shape[0] if found.group(1) is None else int(found.group(1)) + 1
            counts[path[: found.start()]] = max(count, counts.get(path[: found.start()], 0))
    return counts


def _counted_cells(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The numbers of layers of a recurrent model's encoder and decoder."""
    counts: dict[str, int] = {}
    for found in filter(None, map(_CELL.search, shapes)):
        counts[found[1]] = max(int(found[2] or 0) + 1, counts.get(found[1], 0))
    return counts


def multiplied(rule: optax.GradientTransformation, factors: Factors) -> optax.GradientTransformation:
    """`rule` for the parameters, layers and rows whose factor is not 0, with its updates multiplied by the factor. The
    others have no optimizer state, and do not count in the gradient's norm. Trees are nested dictionaries, of arrays or
    boxes of them."""

    def of(tree):
        flat = flatten_dict(tree, sep="/")
        return factors.of({path: jax.tree.leaves(leaf)[0].shape for path, leaf in flat.items()})

    def trained(tree, found):
        flat = flatten_dict(tree, sep="/")
        return unflatten_dict({p: _taken(leaf, found[p]) for p, leaf in flat.items() if found[p].any()}, sep="/")

    def init(params):
        return rule.init(trained(params, of(params)))

    def update(gradient, state, params):
        found = of(params)
        changes, state = rule.update(trained(gradient, found), state, trained(params, found))
        changes, every = flatten_dict(changes, sep="/"), flatten_dict(params, sep="/")
        whole = {path: _put(changes.get(path), leaf, found[path]) for path, leaf in every.items()}
        return unflatten_dict(whole, sep="/"), state

    return optax.GradientTransformation(init, update)


def _taken(leaf, factor: np.ndarray):
    """The rows of a parameter (or of a box of one) whose factor is not 0."""
    if factor.all():
        return leaf
    rows = np.flatnonzero(factor)
    part = jax.tree.map(lambda x: x[rows[0] : rows[-1] + 1] if len(rows) == np.ptp(rows) + 1 else x[rows], leaf)
    # A few rows may not divide by the shards of the whole.
    return part.replace(names=(None, *part.names[1:])) if hasattr(part, "names") else part


def _put(change, leaf, factor: np.ndarray):
    """The update of a whole parameter, from that of its trained rows."""
    if change is None:
        return jnp.zeros_like(leaf)
    if factor.ndim == 0:
        return change * factor
    rows = np.flatnonzero(factor)
    scaled = change * factor[rows].reshape(-1, *(1,) * (leaf.ndim - 1))
    return scaled if len(rows) == len(factor) else jnp.zeros_like(leaf).at[rows].set(scaled)
