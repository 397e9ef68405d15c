"""Start from parameters with the rows of another vocabulary."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Float, PyTree

from zoo.data.specials import SPECIALS, UNK
from zoo.data.tokenizers import Tokenizer


@dataclass(frozen=True)
class Matched:
    """How the rows of a new vocabulary are made from those of an old one: row `i` is the mean of the rows `old[i]`, or
    of all rows if that is empty. `kept`, `composed` and `mean` count the three kinds."""

    old: tuple[tuple[int, ...], ...]
    kept: int
    composed: int

    @property
    def mean(self) -> int:
        return len(self.old) - self.kept - self.composed

    def __str__(self) -> str:
        return (
            f"{self.kept} of {len(self.old)} pieces kept, {self.composed} composed of the old pieces that spell them, "
            f"{self.mean} begun as the mean"
        )

    def applied(self, table: Float[np.ndarray, "..."], axis: int) -> Float[np.ndarray, "..."]:
        """The new table, from an old one whose `axis` is the vocabulary."""
        rows = np.moveaxis(np.asarray(table), axis, 0)
        mean = rows.mean(axis=0)
        new = np.stack([rows[list(old)].mean(axis=0) if old else mean for old in self.old])
        return np.moveaxis(new, 0, axis).astype(table.dtype)


def matched(old: Tokenizer, new: Tokenizer) -> Matched:
    """A piece keeps its row where the old vocabulary has it; else it is the mean of the pieces that the old tokenizer
    makes of it. The specials are the same in all vocabularies."""
    known = {old.piece(row): row for row in reversed(range(len(SPECIALS), old.size))}
    rows, kept, composed = [(row,) for row in range(len(SPECIALS))], len(SPECIALS), 0
    surfaces = [new.piece(row) for row in range(len(SPECIALS), new.size)]
    lacking = [surface.replace("▁", " ").strip() for surface in surfaces if surface not in known]
    spelled = iter(old.encode(lacking))
    for surface in surfaces:
        if surface in known:
            rows.append((known[surface],))
            kept += 1
            continue
        parts = tuple(row for row in next(spelled) if row != UNK)
        rows.append(parts)
        composed += bool(parts)
    return Matched(tuple(rows), kept, composed)


@dataclass(frozen=True)
class Transfer:
    """From an old vocabulary to a new one, for each side of a model; `boxed` are the shapes of the new parameters with
    the names of their axes, and `sizes` those of the old vocabularies."""

    sides: Mapping[str, Matched]
    sizes: Mapping[str, int]
    boxed: PyTree

    @classmethod
    def of(cls, old: Mapping[str, Tokenizer], new: Mapping[str, Tokenizer], boxed: PyTree) -> "Transfer":
        """Tokenizers by the names of their files; a joint one serves both sides."""

        def side(tokenizers: Mapping[str, Tokenizer], name: str) -> Tokenizer:
            return next(tokenizers[n] for n in (name, "joint", "text") if n in tokenizers)

        names = ("text",) if "text" in new else ("source", "target")
        found = {name: matched(side(old, name), side(new, name)) for name in names}
        return cls(found, {name: side(old, name).size for name in names}, boxed)

    def __str__(self) -> str:
        told = {str(found): name for name, found in reversed(list(self.sides.items()))}
        return "; ".join(
            f"{name} vocabulary: {found}" if len(told) > 1 else f"vocabulary: {found}" for found, name in told.items()
        )

    def _tables(self, paths: Iterable[str]) -> dict[str, tuple[str, int]]:
        """{those of the paths that have a vocabulary axis: the side that it is of, and the axis}."""
        boxes = flatten_dict(self.boxed, sep="/")
        named = {path: getattr(boxes[path], "names", ()) for path in paths}
        only = "text" if "text" in self.sides else ""
        return {
            path: (only or ("source" if "source" in path else "target"), names.index("vocab"))
            for path, names in named.items()
            if "vocab" in names
        }

    def shapes(self, like: Mapping[str, Any]) -> dict[str, Any]:
        """The shapes of the old parameters, for those of the new, by their paths. Rows behind the vocabulary, as those
        of the tokens that a classifier adds, are in both."""
        found = dict(like)
        for path, (side, axis) in self._tables(like).items():
            leaf = like[path]
            count = self.sizes[side] + leaf.shape[axis] - len(self.sides[side].old)
            shape = tuple(count if i == axis else n for i, n in enumerate(leaf.shape))
            found[path] = jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=replicated_like(leaf.sharding))
        return found

    def applied(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The new parameters, from the old ones, by their paths."""
        found = dict(params)
        for path, (side, axis) in self._tables(params).items():
            table = np.moveaxis(np.asarray(jax.device_get(params[path])), axis, 0)
            known = self.sizes[side]
            new = np.concatenate([self.sides[side].applied(table[:known], 0), table[known:]])
            found[path] = np.moveaxis(new, 0, axis)
        return found


def replicated_like(where: jax.sharding.Sharding | None) -> jax.sharding.Sharding | None:
    """A sharding over the same devices that fits any shape."""
    if isinstance(where, jax.sharding.NamedSharding):
        return jax.sharding.NamedSharding(where.mesh, jax.sharding.PartitionSpec())
    return where
