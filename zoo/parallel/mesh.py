"""One mesh for everything: `(data, fsdp, tensor, sequence)`."""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

import jax
from jax.sharding import AxisType, Mesh

from zoo.errors import UserError


@dataclass(frozen=True)
class MeshConfig:
    """How many devices each axis has; one of them may be -1, which is all that the others leave.

    A batch is split over `data` and `fsdp`; parameters and optimizer over `fsdp`, and over `tensor` where heads,
    feed-forward and vocabulary allow it; positions over `sequence`.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    sequence: int = 1


def sizes(config: MeshConfig, devices: int) -> tuple[int, ...]:
    """The axes' sizes with -1 resolved; raises `UserError` where they do not multiply up to `devices`."""
    asked = astuple(config)
    text = ", ".join(f"{f.name}={n}" for f, n in zip(fields(config), asked, strict=True))
    if asked.count(-1) > 1 or any(n == 0 or n < -1 for n in asked):
        raise UserError(f"mesh ({text}): sizes are at least 1, and only one of them may be -1 (the rest)")
    known = math.prod(n for n in asked if n != -1)
    resolved = tuple(devices // known if n == -1 else n for n in asked)
    if math.prod(resolved) != devices:
        raise UserError(f"mesh ({text}) does not multiply up to the {devices} devices here: change config.mesh")
    return resolved


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh over `devices` (default: all). Its axes are `Auto`: under JAX's default, `Explicit`, Linen's logical axes fail."""
    names = tuple(f.name for f in fields(config))
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh(
        sizes(config, len(devices)), names, axis_types=(AxisType.Auto,) * len(names), devices=devices
    )


def batch_shards(mesh: Mesh) -> int:
    """Into how many parts the rows of a batch are split."""
    return mesh.shape["data"] * mesh.shape["fsdp"]
