"""The TPU chips, and the links between them.

Figures are those of the makers' pages "TPU v4", "TPU v5e", "TPU v5p" and "TPU v6e" (cloud.google.com/tpu/docs), read in
2026. The bandwidth of a link is theirs for a chip, divided by the two links for each dimension of the torus, and by the
two directions. The network's is theirs for a pod, divided by its chips; for v4 and v5p, where it is not given, 200
Gbit/s for a host of four chips.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.sharding import Mesh

from zoo.errors import UserError, nearest
from zoo.parallel.devices import PEAK_FLOPS


@dataclass(frozen=True)
class Reached:
    """The measured rates of a square bfloat16 product and of a copy: FLOP/s, and bytes/s read and written together."""

    flops: float
    bandwidth: float


@dataclass(frozen=True)
class Chip:
    """`flops` are dense bfloat16 FLOP/s, `memory` is HBM in bytes, `bandwidth` its bytes/s, `link` the bytes/s of one
    interconnect link in one direction, `network` those of a chip's share of the data-center network. `shapes` are the
    available slices; a dimension of `ring` chips, or a multiple, is closed to a ring. `reached` holds the measured
    rates, if any."""

    flops: float
    memory: float
    bandwidth: float
    link: float
    network: float
    ring: int = 1
    shapes: tuple[str, ...] = ()
    reached: Reached | None = None


GIB = 2.0**30
_FLAT = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16")
CHIPS: dict[str, Chip] = {
    "v4": Chip(PEAK_FLOPS["TPU v4"], 32 * GIB, 1228e9, 50e9, 6.25e9, 4, _CUBES),
    "v5e": Chip(PEAK_FLOPS["TPU v5 lite"], 16 * GIB, 819e9, 50e9, 3.125e9, 16, _FLAT),
    "v5p": Chip(PEAK_FLOPS["TPU v5"], 95 * GIB, 2765e9, 100e9, 6.25e9, 4, _CUBES),
    "v6e": Chip(PEAK_FLOPS["TPU v6 lite"], 32 * GIB, 1638e9, 100e9, 12.5e9, 16, _FLAT),
}


@dataclass(frozen=True)
class Topology:
    """Slices: the chips' name, their number along each dimension of a slice's torus, and the number of slices that the
    data-center network joins."""

    name: str
    shape: tuple[int, ...]
    slices: int = 1

    @classmethod
    def parse(cls, text: str, slices: int = 1) -> "Topology":
        """Parse a text such as `v5e:4x4`. Raises `UserError` for a slice that does not exist, and for no slices."""
        if slices < 1:
            raise UserError(f"--slices={slices}: use at least 1")
        name, _, shape = text.partition(":")
        if name not in CHIPS:
            raise UserError(f"--topology={text!r}: no chip {name!r}: {nearest(name, CHIPS)}, as v5e:4x4")
        if shape not in CHIPS[name].shapes:
            raise UserError(f"--topology={text!r}: slices of {name} are {', '.join(CHIPS[name].shapes)}")
        return cls(name, tuple(map(int, shape.split("x"))), slices)

    @property
    def chip(self) -> Chip:
        return CHIPS[self.name]

    @property
    def size(self) -> int:
        """The chips of one slice."""
        return math.prod(self.shape)

    @property
    def slice(self) -> str:
        """One slice, as `parse` reads it."""
        return f"{self.name}:{'x'.join(map(str, self.shape))}"

    def __str__(self) -> str:
        return self.slice if self.slices == 1 else f"{self.slices} slices of {self.slice}"

    def bandwidth(self, mesh: Mesh, axes: Sequence[str]) -> float:
        """Bytes/s that a chip can send around the rings of these mesh `axes`.

        Each dimension of the torus along which they run gives one link, and two if the ring is closed: it must span the
        whole dimension, and the dimension must be closed.
        """
        lines = [_line(mesh, axis) for axis in axes]
        links = 0
        for dimension, length in enumerate(self.shape):
            steps = math.prod(len({chip[dimension] for chip in line}) for line in lines)
            if steps > 1:
                links += 2 if steps == length and self._closed(length) else 1
        return max(links, 1) * self.chip.link

    def _closed(self, length: int) -> bool:
        """A torus of three dimensions is made of whole cubes; of two, each dimension is closed separately."""
        whole = len(self.shape) == 2 or all(n % self.chip.ring == 0 for n in self.shape)
        return whole and length % self.chip.ring == 0


def _line(mesh: Mesh, axis: str) -> list[tuple[int, ...]]:
    """The coordinates of the chips along an axis of the mesh, at the beginning of all others."""
    index = tuple(slice(None) if name == axis else 0 for name in mesh.axis_names)
    return [_coordinates(device) for device in np.atleast_1d(mesh.devices[index])]


def _coordinates(device: Any) -> tuple[int, ...]:
    return tuple(device.coords)
