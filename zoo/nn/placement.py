"""Where activations lie on the mesh, by the logical names of their axes.

Whoever runs a model says what the names mean (`zoo.parallel.rules.in_force`); where nobody does, they mean nothing.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array


def platform() -> str:
    """What the code will run on: the devices of the mesh, which need not be at hand while it is compiled."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def mesh_axes(*names: str | None) -> tuple[tuple[str, ...], ...]:
    """The axes of the mesh, of more than one device each, that every logical axis is cut over."""
    mesh, rules = jax.sharding.get_abstract_mesh(), dict(nn.get_logical_axis_rules())
    found = []
    for name in names:
        axes = rules.get(name) or ()
        axes = (axes,) if isinstance(axes, str) else axes
        found.append(tuple(axis for axis in axes if mesh.shape.get(axis, 1) > 1))
    return tuple(found)


def parts(name: str) -> int:
    """Into how many a logical axis is cut."""
    mesh = jax.sharding.get_abstract_mesh()
    return math.prod(mesh.shape[axis] for axis in mesh_axes(name)[0])


def placed(x: Array, *names: str | None) -> Array:
    """`x`, cut along the axes of these names; one whose size does not divide stays whole."""
    axes = mesh_axes(*names)
    fitting = [a if a and size % parts(name) == 0 else None for a, name, size in zip(axes, names, x.shape, strict=True)]
    if jax.sharding.get_abstract_mesh().empty or jax.sharding.get_abstract_mesh().size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*fitting))


def on_own_rows(kernel: Callable[..., Any], rows: tuple[Any, ...], everywhere: tuple[Any, ...]) -> Any:
    """`kernel(*rows, *everywhere)` on every device for its own rows, since XLA does not know how to cut a kernel.

    The mesh cuts the first axis of `rows` and of the results along the batch alone; `everywhere` is whole.
    """
    if jax.sharding.get_abstract_mesh().size <= 1:
        return kernel(*rows, *everywhere)
    own, whole = PartitionSpec(mesh_axes("batch")[0]), PartitionSpec()
    specs = (*(own for _ in rows), *(whole for _ in everywhere))
    return jax.shard_map(kernel, in_specs=specs, out_specs=own, check_vma=False)(*rows, *everywhere)
