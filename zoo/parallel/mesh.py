"""One mesh for everything: `(data, fsdp, tensor, sequence)`, over one slice or several."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh

from zoo.errors import UserError, check_choice

AXES = ("data", "fsdp", "tensor", "sequence")
REST = -1
# The sizes of the axes that a config leaves open; `data` takes the rest unless another axis does.
PRESETS: dict[str, dict[str, int]] = {
    "data": {},
    "fsdp": {"fsdp": REST},
    "fsdp+tensor": {"fsdp": REST, "tensor": 2},
    "fsdp+tensor+sequence": {"fsdp": REST, "tensor": 2, "sequence": 2},
}


@dataclass(frozen=True)
class MeshConfig:
    """The number of devices along each axis: 0 takes the value of `preset`, and one axis may be -1, the rest.

    `data` and `fsdp` shard the batch; `fsdp` shards parameters and optimizer, and so does `tensor` along heads,
    feed-forward and vocabulary; `sequence` shards positions. If the devices form several slices, joined by the slower
    network of a data center, these are the sizes within a slice, and `dcn_data`, `dcn_fsdp`, ... are the numbers of
    slices along each axis; one of them may be -1 as well. Hosts count as slices if the devices know of none.
    """

    data: int = 0
    fsdp: int = 0
    tensor: int = 0
    sequence: int = 0
    dcn_data: int = 1
    dcn_fsdp: int = 1
    dcn_tensor: int = 1
    dcn_sequence: int = 1
    preset: str = "data"

    def __post_init__(self):
        check_choice("mesh.preset", self.preset, PRESETS)
        for named in (self.within(), self.across()):
            if list(named.values()).count(REST) > 1 or any(n < 1 and n != REST for n in named.values()):
                raise UserError(f"mesh ({_text(named)}): sizes are at least 1, and only one may be -1 (the rest)")

    def within(self) -> dict[str, int]:
        """The sizes in a slice, with the open ones filled in."""
        given = {axis: n for axis in AXES if (n := getattr(self, axis))}
        sizes = dict.fromkeys(AXES, 1) | PRESETS[self.preset] | given
        rest = {} if "data" in given or REST in sizes.values() else {"data": REST}
        return sizes | rest

    def across(self) -> dict[str, int]:
        """The number of slices along each axis."""
        return {f"dcn_{axis}": getattr(self, f"dcn_{axis}") for axis in AXES}


def _text(named: dict[str, int]) -> str:
    return ", ".join(f"{axis}={n}" for axis, n in named.items())


def _resolved(named: dict[str, int], count: int, what: str) -> dict[str, int]:
    known = math.prod(n for n in named.values() if n != REST)
    sizes = {axis: count // known if n == REST else n for axis, n in named.items()}
    if math.prod(sizes.values()) != count:
        raise UserError(f"mesh ({_text(named)}) does not multiply up to the {count} {what} here: change config.mesh")
    return sizes


def resolved(config: MeshConfig, devices: int, slices: int = 1) -> tuple[dict[str, int], dict[str, int]]:
    """The sizes of all of `AXES` within a slice, and of their `dcn_*` over slices.

    Raises `UserError` if they do not multiply up to the `devices`, or those of `dcn_*` to the `slices`.
    """
    across = _resolved(config.across(), slices, "slices")
    return _resolved(config.within(), devices // slices, "devices of a slice" if slices > 1 else "devices"), across


def sizes(config: MeshConfig, devices: int, slices: int = 1) -> tuple[int, ...]:
    """The sizes of all of `AXES`, multiplied by those over slices; raises the errors of `resolved`."""
    within, across = resolved(config, devices, slices)
    return tuple(a * b for a, b in zip(across.values(), within.values(), strict=True))


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh over `devices` (default: all). Its axes are `Auto`: under JAX's default, `Explicit`, Linen's logical
    axes fail. Raises `UserError` for sizes that do not multiply up."""
    devices = jax.devices() if devices is None else devices
    return Mesh(arranged(config, devices), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def arranged(config: MeshConfig, devices: Sequence[Any]) -> np.ndarray:
    """`devices` as an array with one axis for each of `AXES`, physical neighbours next to each other."""
    if all(n == 1 for n in config.across().values()):
        return mesh_utils.create_device_mesh(sizes(config, len(devices)), devices, allow_split_physical_axes=True)
    attribute = "slice_index" if len({getattr(d, "slice_index", 0) for d in devices}) > 1 else "process_index"
    slices = len({getattr(device, attribute) for device in devices})
    within, across = resolved(config, len(devices), slices)
    return mesh_utils.create_hybrid_device_mesh(
        tuple(within.values()),
        tuple(across.values()),
        devices,
        process_is_granule=attribute == "process_index",
        allow_split_physical_axes=True,
    )


def batch_shards(mesh: Mesh) -> int:
    """The number of shards of the rows of a batch."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def check_heads(mesh: Mesh | AbstractMesh, heads: int | None) -> None:
    """Raise `UserError` unless a model's heads divide evenly among the devices; a recurrent model has `None`."""
    tensor, sequence = mesh.shape["tensor"], mesh.shape["sequence"]
    if heads is None and sequence > 1:
        raise UserError(f"mesh.sequence={sequence}: a recurrent model reads positions one by one: leave it at 1")
    if heads is not None and heads % (tensor * sequence):
        raise UserError(
            f"model.heads={heads} does not divide by mesh.tensor={tensor} times mesh.sequence={sequence}: change "
            "config.mesh, or model.heads"
        )
