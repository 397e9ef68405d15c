"""The table from the logical axes of parameters and activations to the axes of the mesh."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from zoo.errors import UserError
from zoo.parallel.mesh import batch_shards

PyTree = Any

# A mesh axis of size 1 shards nothing, so one table serves every preset.
RULES: dict[str, str | tuple[str, ...] | None] = {
    # parameters, and also their gradients and the optimizer's moments (Rajbhandari et al. 2020, ZeRO)
    "embed": "fsdp",
    "mlp": "tensor",
    "heads": "tensor",
    "vocab": "tensor",
    "kv": None,
    "positions": None,
    "layers": None,
    # activations
    "batch": ("data", "fsdp"),
    "length": "sequence",
    # attention needs every position, so each device has some of the heads for all (Jacobs et al. 2023, Ulysses)
    "attending": ("tensor", "sequence"),
}


def sharding(mesh: Mesh | AbstractMesh, names: tuple[str | None, ...], shape: tuple[int, ...]) -> NamedSharding:
    """The mesh axes of an array with these logical axes. A dimension that its mesh axis does not divide is not sharded.
    If that is the width of a matrix, `fsdp` also shards the dimension of `tensor`: 8 does not divide a width of 5,140,
    but it divides its feed-forward layer of 20,560.
    """
    axes = [RULES[name] if name is not None else None for name in names]
    fitting = [axis if axis and size % mesh.shape[axis] == 0 else None for axis, size in zip(axes, shape, strict=False)]
    if "fsdp" in axes and "fsdp" not in fitting and "tensor" in fitting:
        other = fitting.index("tensor")
        if shape[other] % (mesh.shape["tensor"] * mesh.shape["fsdp"]) == 0:
            fitting[other] = ("tensor", "fsdp")
    return NamedSharding(mesh, PartitionSpec(*fitting))


@contextmanager
def in_force(mesh: Mesh) -> Iterator[None]:
    """While a function is traced, its activations are sharded over `mesh` as the table says (`zoo.nn.placement`)."""
    with nn.logical_axis_rules(tuple(RULES.items())), jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        yield


def state_shardings(mesh: Mesh, abstract: PyTree) -> PyTree:
    """For a tree of shapes boxed with logical names (`jax.eval_shape` of an `init`): the tree of shardings, unboxed."""
    specs = nn.get_partition_spec(abstract)
    return jax.tree.map(lambda leaf, spec: sharding(mesh, tuple(spec), leaf.shape), nn.unbox(abstract), specs)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: rows over `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


@cache
def own_shards(mesh: Mesh) -> tuple[list[tuple[int, ...]], int]:
    """How the shards of a batch's rows are assigned to processes: groups of shards, each read by one process (or by
    several, if `tensor` or `sequence` spans them), and the number of this process's group.

    Raises `UserError` if processes would share some of their rows, but not all.
    """
    numbers = np.arange(batch_shards(mesh)).reshape(mesh.shape["data"], mesh.shape["fsdp"], 1, 1)
    held: dict[int, set[int]] = {}
    for device, number in zip(mesh.devices.flat, np.broadcast_to(numbers, mesh.devices.shape).flat, strict=True):
        held.setdefault(device.process_index, set()).add(int(number))
    groups = sorted({tuple(sorted(parts)) for parts in held.values()})
    if sum(map(len, groups)) != batch_shards(mesh) or len({len(group) for group in groups}) != 1:
        raise UserError(
            f"mesh ({', '.join(f'{axis}={n}' for axis, n in mesh.shape.items())}) cuts the rows of a batch across the "
            f"{len(held)} processes: let mesh.tensor times mesh.sequence divide the devices of one, or be a multiple"
        )
    return groups, groups.index(tuple(sorted(held[jax.process_index()])))


def place(batch: PyTree, mesh: Mesh) -> PyTree:
    """This process's rows as part of the global batch, on the devices.

    Raises `UserError` if the rows do not divide by this process's shards, or the positions by `sequence`.
    """
    where, (groups, own) = batch_sharding(mesh), own_shards(mesh)

    def placed(rows):
        each, left = divmod(rows.shape[0], len(groups[own]))
        if left or (rows.ndim > 1 and rows.shape[1] % mesh.shape["sequence"]):
            cut = f"{len(groups[own])} shards (mesh.data times mesh.fsdp) and mesh.sequence={mesh.shape['sequence']}"
            raise UserError(
                f"a batch of {rows.shape[0]} rows of {rows.shape[1:]} positions does not divide by {cut}: change "
                "config.mesh, or the rows and lengths of config.data"
            )

        def part(index):
            first = groups[own].index((index[0].start or 0) // each) * each
            return rows[first : first + each]

        return jax.make_array_from_callback((each * batch_shards(mesh), *rows.shape[1:]), where, part)

    return jax.tree.map(placed, batch)


def on_this_process(tree: PyTree, mesh: Mesh) -> PyTree:
    """`tree` itself for a single process. Each of several processes gets a whole copy on its first device, for
    computations of its own."""
    if jax.process_count() == 1:
        return tree
    whole = jax.jit(lambda tree: tree, out_shardings=replicated(mesh))(tree)
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), whole)


def parameter_count(tree: PyTree) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
