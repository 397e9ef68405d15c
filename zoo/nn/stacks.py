"""Depth: the same layer many times. A scan keeps compile time from growing with it, rematerialization memory."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from zoo.nn.placement import platform

PyTree = Any

# The deepest stack whose scan is written out, layer by layer, where it runs: a loop copies all that a layer keeps for
# the backward pass into arrays of all layers and out again, which costs more there than compiling every layer.
WRITTEN_OUT = {"gpu": 16, "cpu": 12}
# The same for decoding: a loop would copy every layer's parameters and cache at every step.
DECODED_APART = {"cpu": 24}
FIRST = "0"  # the name of the first layer in parameters that are taken apart


class Stack(nn.Module):
    """`length` layers, one after the other.

    `layer` makes one: a module with `__call__(x, given, train, weights) -> (x, extra)` and, for decoding,
    `step(x, cache, view) -> (x, extras)` and, where there is a source, `remember(memory) -> (memory, kept)`. What the
    layers give for whole sequences comes back stacked, with axis 0 for the layers.

    With `scan`, parameters carry a leading axis `layers` under one name, `layers`; without, each layer has a subtree of
    its own, `layers_0` and so on (`stacked` and `unstacked` convert). Caches are stacked, or a tuple of those of each
    layer, as decoding is fastest. A scanned stack also decodes with parameters that `apart` has taken apart. `remat`
    recomputes activations in the backward pass.
    """

    layer: Callable[..., nn.Module]
    length: int
    scan: bool = True
    remat: bool = False

    def setup(self):
        layer = self.layer
        written_out = self.length <= WRITTEN_OUT.get(platform(), 0) and not self.is_initializing()
        loop = self.scan and not written_out
        if self.remat:
            layer = nn.remat(layer, prevent_cse=not loop, static_argnums=(3, 4), methods=["__call__"])
        if self.scan:
            self.layers = _scanned(layer, self.length, unroll=1 if loop else self.length)()
        else:
            self.layers = [layer() for _ in range(self.length)]

    def __call__(self, x: Float[Array, "B T E"], given: PyTree, train: bool, weights: bool) -> tuple[Array, PyTree]:
        if self.scan and not self._has_apart():
            return self.layers(x, given, train, weights)
        x, extras = self._each(x, lambda layer, x: layer(x, given, train, weights))
        return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *extras)

    def empty(self, one: PyTree) -> PyTree:
        """Caches of all layers, from the empty one of a layer."""
        if self._apart():
            return (one,) * self.length
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (self.length, *leaf.shape)), one)

    def remember(self, memory: Float[Array, "B S E"]) -> PyTree:
        """What each layer keeps of the source."""
        if self._apart():
            return self._each(memory, lambda layer, memory: layer.remember(memory))[1]
        return self.layers.remember(memory)[1]

    def step(
        self, x: Float[Array, "B T E"], caches: tuple[PyTree, ...], view: PyTree
    ) -> tuple[Array, tuple[PyTree, ...]]:
        """`caches` are of several kinds, as many as a layer's `step` takes, and so is what comes back."""
        if not self._apart():
            return self.layers.step(x, caches, view)
        of_layers = zip(*caches, strict=True)
        x, extras = self._each(x, lambda layer, x: layer.step(x, next(of_layers), view))
        return x, tuple(zip(*extras, strict=True))

    def _apart(self) -> bool:
        """Whether decoding goes through the layers one by one."""
        return not self.scan or self._has_apart() or self.length <= DECODED_APART.get(platform(), 0)

    def _has_apart(self) -> bool:
        """Whether the parameters are those that `apart` gives."""
        return self.scan and FIRST in self.layers.variables.get("params", {})

    def _each(self, x: Array, apply: Callable) -> tuple[Array, tuple[PyTree, ...]]:
        extras = []
        for layer in self._bound_layers() if self.scan else self.layers:
            x, extra = apply(layer, x)
            extras.append(extra)
        return x, tuple(extras)

    def _bound_layers(self) -> Iterator[nn.Module]:
        """The layers of a scanned stack that has parameters, each with its own."""
        params = self.layers.variables["params"]
        each = [params[str(i)] for i in range(self.length)] if self._has_apart() else unstacked(params)
        for params in each:
            yield self.layer(parent=None).bind({"params": params})


def _scanned(layer: Callable[..., nn.Module], length: int, unroll: int) -> Callable[..., nn.Module]:
    """`layer` with its methods scanned over the axis `layers`."""
    lifted = {
        "variable_axes": {"params": 0},
        "split_rngs": {"params": True, "dropout": True},
        "length": length,
        "unroll": unroll,
        "metadata_params": {nn.PARTITION_NAME: "layers"},
    }
    axes = {"__call__": (nn.broadcast, nn.broadcast, nn.broadcast), "step": (0, nn.broadcast), "remember": ()}
    known = getattr(layer, "func", layer)
    methods = {name: lifted | {"in_axes": given} for name, given in axes.items() if hasattr(known, name)}
    return nn.scan(layer, methods=methods)


def stacked(layers: list[PyTree]) -> PyTree:
    """The parameters of single layers in the layout of a scanned stack."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)


def unstacked(layers: PyTree) -> list[PyTree]:
    """The parameters of a scanned stack, a tree for each layer."""
    length = jax.tree.leaves(layers)[0].shape[0]
    return [jax.tree.map(lambda leaf, i=i: leaf[i], layers) for i in range(length)]


def apart(params: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """`params` of a model, with those of layer `i` under `layers/i` in every scanned stack that decodes layer by layer.
    Otherwise each step slices them out of those of all layers."""
    found, deepest = {}, DECODED_APART.get(platform(), 0)
    for name, tree in params.items():
        if name == "layers" and FIRST not in tree and len(jax.tree.leaves(tree)[0]) <= deepest:
            found[name] = {str(i): layer for i, layer in enumerate(jax.jit(unstacked)(tree))}
        else:
            found[name] = apart(tree) if isinstance(tree, Mapping) else tree
    return found
