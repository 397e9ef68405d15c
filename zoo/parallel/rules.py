"""The table from the logical axes of parameters to the axes of the mesh."""

import math
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

PyTree = Any

RULES: dict[str, str | None] = {
    "embed": "fsdp",
    "mlp": "tensor",
    "heads": "tensor",
    "vocab": "tensor",
    "kv": None,
    "positions": None,
    "layers": None,
}


def sharding(mesh: Mesh | AbstractMesh, names: tuple[str | None, ...], shape: tuple[int, ...]) -> NamedSharding:
    """Where an array with these logical axes lies. An axis that its mesh axis does not divide stays whole."""
    axes = [RULES[name] if name is not None else None for name in names]
    fitting = [axis if axis and size % mesh.shape[axis] == 0 else None for axis, size in zip(axes, shape, strict=False)]
    return NamedSharding(mesh, PartitionSpec(*fitting))


def state_shardings(mesh: Mesh, abstract: PyTree) -> PyTree:
    """For a tree of shapes boxed with logical names (`jax.eval_shape` of an `init`): the tree of shardings, unboxed."""
    specs = nn.get_partition_spec(abstract)
    return jax.tree.map(lambda leaf, spec: sharding(mesh, tuple(spec), leaf.shape), nn.unbox(abstract), specs)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def place(batch: PyTree, mesh: Mesh) -> PyTree:
    """This process's rows as part of the global batch, on the devices."""
    where = batch_sharding(mesh)
    return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(where, rows), batch)


def parameter_count(tree: PyTree) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
