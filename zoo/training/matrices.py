"""Parameters as the vectors and matrices of the papers, whatever the layout of their arrays.

A scanned stack keeps the parameters of all its layers in one array, with a leading axis `layers`
(`zoo.nn.stacks.Stack`). Attention keeps its matrices as `[width, heads, size]` and `[heads, size, width]`.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import optax
from flax.core.meta import replace_boxed, unbox
from flax.traverse_util import flatten_dict, unflatten_dict

PyTree = Any
STACK = "layers"
VECTORS = ("bias", "scale")  # the bias of a gate or head is a row of a larger array, and still a vector


def is_matrix(path: str, dimensions: int) -> bool:
    """Whether the parameter at `path` (its names, with `/` between them), an array of so many dimensions, is a matrix
    of weights or a table of embeddings, in each layer: no bias, gain or other vector."""
    parents, _, name = path.rpartition("/")
    return name not in VECTORS and dimensions - (STACK in parents.split("/")) >= 2


def matrices(params: PyTree) -> PyTree:
    """A mask for optax: whether each parameter of nested dictionaries (boxed or not) is a matrix."""
    flat = flatten_dict(params, sep="/")
    return unflatten_dict({path: is_matrix(path, unbox(leaf).ndim) for path, leaf in flat.items()}, sep="/")


def by_matrix(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """`rule`, applied to each layer of a stack separately, with the matrices of attention in two dimensions.

    It is for rules that depend on whole arrays, such as Adafactor, which keeps sums of rows and columns, and bounds the
    root mean square of an update.
    """

    def init(params):
        return {name: _over_layers(name, rule.init)(part) for name, part in _parts(params).items()}

    def update(gradient, state, params):
        gradients, every = _parts(gradient), _parts(params)
        changes, states = {}, {}
        for name, part in gradients.items():
            changes[name], states[name] = _over_layers(name, rule.update)(part, state[name], every[name])
        shapes = flatten_dict(params, sep="/")
        flat = {path: leaf.reshape(shapes[path].shape) for part in changes.values() for path, leaf in part.items()}
        return unflatten_dict(flat, sep="/"), states

    return optax.GradientTransformation(init, update)


def _over_layers(name: str, function: Callable) -> Callable:
    return jax.vmap(function) if name else function


def _parts(tree: PyTree) -> dict[str, dict[str, Any]]:
    """The leaves by their paths, with each stack under its own name, and all others under ''."""
    parts: dict[str, dict[str, Any]] = {}
    for path, leaf in flatten_dict(tree, sep="/").items():
        before, stack, _ = f"/{path}".partition(f"/{STACK}/")
        name = f"{before}/{STACK}".strip("/").replace("/", "_") if stack else ""
        parts.setdefault(name, {})[path] = _as_matrix(path, leaf)
    return parts


def _as_matrix(path: str, boxed: Any) -> Any:
    """Attention's matrices with heads and head size merged into one axis; anything else unchanged."""
    *parents, parent, name = ("", *path.split("/"))
    array, first = unbox(boxed), int(STACK in parents)
    if name != "kernel" or array.ndim - first != 3 or parent not in ("query", "key", "value", "output"):
        return boxed
    start = first + (parent != "output")
    merged = (*array.shape[:start], math.prod(array.shape[start : start + 2]), *array.shape[start + 2 :])
    if array is boxed:
        return array.reshape(merged)
    names = (*boxed.names[: start + 1], *boxed.names[start + 2 :])
    return replace_boxed(boxed, array.reshape(merged)).replace(names=names)
