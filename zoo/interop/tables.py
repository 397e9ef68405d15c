"""Maps from the parameters of a foreign model to those of the zoo: one table per format, for both directions."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Int, PyTree

from zoo.errors import UserError
from zoo.interop.files import Tensors

TOGETHER = 2**24  # the largest array in bytes that is whole on the host; larger ones go to the device in parts
ROWS = 2**22  # bytes of such parts of a vocabulary's table, of which there are some copies while they are put in order
ABSENT = -1  # in a map of rows: a row that the other side does not have


@dataclass(frozen=True)
class Row:
    """One parameter and the foreign array that its numbers are in.

    Both are matrices here: of the parameter the first `inputs` axes by the rest, of the foreign array all columns from
    `part` on when they are cut into `parts` (a fused query, key and value), `transposed` where it maps from its last
    axis. The rows of a table of embeddings are the pieces of a `vocabulary`. `optional` arrays are zeros where absent.
    """

    path: str
    name: str
    inputs: int = 1
    part: int = 0
    parts: int = 1
    transposed: bool = False
    vocabulary: str = ""
    optional: bool = False
    as_row: bool = False  # a foreign vector has a leading axis of 1

    def matrix(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the parameter as a vector or a matrix."""
        if len(shape) == 1 or self.path.endswith("bias"):
            return (math.prod(shape),)
        return math.prod(shape[: self.inputs]), math.prod(shape[self.inputs :])

    def foreign(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the foreign array, for the shape of the parameter."""
        *rows, columns = self.matrix(shape)
        whole = (*rows, columns * self.parts)
        return (1, *whole) if self.as_row else whole[::-1] if self.transposed else whole

    def taken(self, array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """The parameter of `shape` from the foreign array."""
        whole = array[0] if self.as_row else array.T if self.transposed else array
        return np.split(whole, self.parts, axis=-1)[self.part].reshape(shape)


@dataclass(frozen=True)
class Section:
    """The rows of every layer of a stack: `layers` of them, foreign names behind `prefix` with the number in it."""

    stack: str
    prefix: str
    layers: int
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Piece:
    """A parameter, whole or layer `index` of a stacked one, and the foreign array of that `name`."""

    name: str
    row: Row
    index: int | None = None


@dataclass(frozen=True)
class Vocabulary:
    """`there[i]` is the foreign row of row `i` of the zoo, `here[j]` the zoo's row of the foreign row `j`. They differ
    where one side has a piece twice."""

    there: Int[np.ndarray, "V"]
    here: Int[np.ndarray, "W"]

    @classmethod
    def same(cls, size: int) -> "Vocabulary":
        return cls(np.arange(size), np.arange(size))


@dataclass(frozen=True)
class Table:
    """A whole model: `rows` outside its stacks, and its stacks. Foreign arrays that match `ignored` are computed from
    others. `vocabularies` tell for each name in `Row.vocabulary` which rows belong together.
    """

    rows: tuple[Row, ...]
    sections: tuple[Section, ...]
    ignored: str = r"$^"
    prefix: str = ""
    vocabularies: Mapping[str, "Vocabulary"] = field(default_factory=dict)

    def pieces(self, paths: Sequence[str]) -> dict[str, list[Piece]]:
        """{path of a parameter: where its numbers are}, for stacks that are scanned and those that are not."""
        found = {row.path: [Piece(self.prefix + row.name, row)] for row in self.rows}
        for section in self.sections:
            for row in section.rows:
                names = [self.prefix + section.prefix.format(i) + row.name for i in range(section.layers)]
                scanned = f"{section.stack}/layers/{row.path}"
                if scanned in paths:
                    found[scanned] = [Piece(name, row, i) for i, name in enumerate(names)]
                else:
                    for i, name in enumerate(names):
                        found[f"{section.stack}/layers_{i}/{row.path}"] = [Piece(name, row)]
        return found

    def foreign_shape(self, row: Row, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of a foreign array, for the shape of the parameter that it holds."""
        shape = row.foreign(shape)
        if not row.vocabulary:
            return shape
        axis = len(shape) - 1 if row.as_row else 0
        rows = len(self.vocabularies[row.vocabulary].here)
        return tuple(rows if i == axis else n for i, n in enumerate(shape))


def read(table: Table, tensors: Tensors, like: PyTree, part: bool = False) -> PyTree:
    """The parameters with the names, shapes and shardings of `like`, read one array at a time. There may be others if
    they are a `part` of a model.

    Raises UserError that names a foreign array which is missing, unknown or of another shape; then nothing was read.
    """
    shapes = flatten_dict(like, sep="/")
    pieces = table.pieces(list(shapes))
    if absent := sorted(shapes.keys() - pieces.keys()):
        raise UserError(f"this format has no place for the parameter {absent[0]}: use another model")
    _check(table, tensors, {path: (shapes[path], pieces[path]) for path in shapes})
    unknown = [] if part else unread(table, tensors, like)
    if unknown:
        raise UserError(
            f"{tensors.where(unknown[0])}: the weight {unknown[0]!r} is not of this model"
            + (f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else "")
            + ": take it out, or check that config.json belongs to it"
        )
    return unflatten_dict({path: _parameter(table, tensors, pieces[path], shapes[path]) for path in shapes}, sep="/")


def _check(table: Table, tensors: Tensors, wanted: Mapping[str, tuple[Any, list[Piece]]]) -> None:
    there = dict(tensors.shapes)
    for leaf, pieces in wanted.values():
        for piece in pieces:
            shape = leaf.shape if piece.index is None else leaf.shape[1:]
            expected = table.foreign_shape(piece.row, shape)
            if piece.name not in there and not piece.row.optional:
                raise UserError(f"the weight {piece.name!r} of shape {expected} is missing: is this a whole model?")
            if there.get(piece.name, expected) != expected:
                raise UserError(
                    f"{tensors.where(piece.name)}: the weight {piece.name!r} is of shape {there[piece.name]} and not "
                    f"{expected}, as config.json has it"
                )


def unread(table: Table, tensors: Tensors, like: PyTree) -> list[str]:
    """The names of the foreign arrays that hold none of the parameters in `like`."""
    paths = list(flatten_dict(like, sep="/"))
    pieces = table.pieces(paths)
    needed = {piece.name for path in paths for piece in pieces[path]}
    return [name for name in tensors.shapes if name not in needed and not re.fullmatch(table.ignored, name)]


def _parameter(table: Table, tensors: Tensors, pieces: list[Piece], leaf: Any) -> Array:
    """One parameter on its devices. A large one goes there part by part, so that it is never whole on the host."""
    where = getattr(leaf, "sharding", None)
    parts = _parts(table, tensors, pieces, leaf)
    if math.prod(leaf.shape) * 4 <= TOGETHER:
        whole = np.empty(leaf.shape, np.float32)
        for start, part in parts:
            whole[start : start + len(part)] = part
        return jax.device_put(whole.astype(leaf.dtype, copy=False), where)
    array = _zeros(leaf.shape, leaf.dtype, where)
    for start, part in parts:
        array = jax.block_until_ready(_written(where)(array, part, start))  # or parts pile up that wait to be written
    return array


@lru_cache
def _zeros_of(where: Any) -> Callable:
    return jax.jit(lambda shape, dtype: jnp.zeros(shape, dtype), static_argnums=(0, 1), out_shardings=where)


def _zeros(shape: tuple[int, ...], dtype: Any, where: Any) -> Array:
    return _zeros_of(where)(shape, dtype)


@lru_cache
def _written(where: Any) -> Callable:
    """Writes rows into an array in place."""

    def write(array: Array, part: Array, start: Int[Array, ""]) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(array, part.astype(array.dtype), start, 0)

    return jax.jit(write, donate_argnums=0, out_shardings=where)


def _parts(
    table: Table, tensors: Tensors, pieces: list[Piece], leaf: Any
) -> Iterator[tuple[int, Float[np.ndarray, "..."]]]:
    """A parameter as slices along its first axis, each with where it begins."""
    for piece in pieces:
        row = piece.row
        if row.vocabulary:
            yield from _pieces_of_text(table, tensors, piece, leaf)
        elif piece.name not in tensors.shapes:
            shape = leaf.shape if piece.index is None else leaf.shape[1:]
            array = np.zeros(shape, np.float32)
            yield (0, array) if piece.index is None else (piece.index, array[None])
        elif piece.index is None:
            yield 0, row.taken(tensors.read(piece.name), leaf.shape)
        else:
            yield piece.index, row.taken(tensors.read(piece.name), leaf.shape[1:])[None]


def _pieces_of_text(table: Table, tensors: Tensors, piece: Piece, leaf: Any) -> Iterator[tuple[int, np.ndarray]]:
    """The rows of a vocabulary in the zoo's order; those that are not there are the mean of all that are."""
    row, rows = piece.row, table.vocabularies[piece.row.vocabulary].there
    if len(leaf.shape) == 1:
        there = piece.name in tensors.shapes
        bias = tensors.read(piece.name).reshape(-1) if there else np.zeros(rows.max() + 1, np.float32)
        yield 0, np.where(rows == ABSENT, 0.0, bias[rows]).astype(np.float32)
        return
    if row.transposed:
        whole = tensors.read(piece.name)
        yield 0, np.where(rows[:, None] == ABSENT, whole.mean(axis=0), whole[rows]).T
        return
    step = max(1, ROWS // (4 * leaf.shape[1]))
    mean = _mean(tensors, piece.name, step) if (rows == ABSENT).any() else None
    for start in range(0, len(rows), step):
        wanted = rows[start : start + step]
        known = wanted[wanted != ABSENT]
        part = np.empty((len(wanted), leaf.shape[1]), np.float32)
        if len(known):
            part[wanted != ABSENT] = _gathered(tensors, piece.name, known, step)
        part[wanted == ABSENT] = mean
        yield start, part


def _gathered(tensors: Tensors, name: str, rows: Int[np.ndarray, "N"], step: int) -> Float[np.ndarray, "N E"]:
    """The named rows, those that stand together read together."""
    found, order = [], np.argsort(rows, kind="stable")
    in_order = rows[order]
    cuts = np.flatnonzero(np.diff(in_order) > 1) + 1
    for run in np.split(in_order, cuts):
        found.append(tensors.read(name, int(run[0]), int(run[-1]) + 1)[run - run[0]])
    gathered = np.empty((len(rows), found[0].shape[1]), np.float32)
    gathered[order] = np.concatenate(found)
    return gathered


def _mean(tensors: Tensors, name: str, step: int) -> Float[np.ndarray, "E"]:
    rows, width = tensors.shapes[name]
    total = np.zeros(width)
    for start in range(0, rows, step):
        total += tensors.read(name, start, min(start + step, rows)).sum(axis=0, dtype=np.float64)
    return (total / rows).astype(np.float32)


def written(table: Table, params: PyTree) -> Iterator[tuple[str, int, Callable[[], Float[np.ndarray, "..."]]]]:
    """What `read` reads: the name of every foreign array, how many numbers it has, about, and the function that makes
    it from the parameters of the zoo."""
    flat = flatten_dict(params, sep="/")
    by_name: dict[str, list[tuple[str, Piece]]] = {}
    pieces = table.pieces(list(flat))
    if absent := sorted(flat.keys() - pieces.keys()):
        raise UserError(f"this format has no place for the parameter {absent[0]}: write another format")
    for path in flat:
        for piece in pieces[path]:
            by_name.setdefault(piece.name, []).append((path, piece))
    for name, found in by_name.items():
        count = sum(flat[path].size // (1 if p.index is None else len(flat[path])) for path, p in found)
        yield name, count, partial(_joined, table, flat, sorted(found, key=lambda item: item[1].row.part))


def _joined(table: Table, flat: Mapping[str, Any], found: list[tuple[str, Piece]]) -> np.ndarray:
    columns = []
    for path, piece in found:
        leaf = flat[path] if piece.index is None else flat[path][piece.index]
        columns.append(np.asarray(leaf, np.float32).reshape(piece.row.matrix(leaf.shape)))
    row, whole = found[0][1].row, np.concatenate(columns, axis=-1)
    if row.vocabulary:
        whole = _to_foreign_rows(table, row, whole)
    whole = whole[None] if row.as_row else whole.T if row.transposed else whole
    return np.ascontiguousarray(whole)


def _to_foreign_rows(table: Table, row: Row, whole: np.ndarray) -> np.ndarray:
    here, axis = table.vocabularies[row.vocabulary].here, -1 if row.path == "output" else 0
    taken = np.take(whole, np.maximum(here, 0), axis=axis)
    absent = here == ABSENT
    return np.where(absent if axis == -1 or whole.ndim == 1 else absent[:, None], 0.0, taken).astype(np.float32)
