"""The GPUs, in one or several hosts, and the links between them.

Peaks are those of NVIDIA's data sheets for the SXM cards, dense bfloat16, read in 2026: NVLink and the network are half
of what they give for both directions, with one adapter for each GPU in a host of eight (DGX A100: 200 Gbit/s, DGX H100
and H200: 400 Gbit/s). What the compiler must know of a card is what the CUDA driver says of it.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from jax.sharding import Mesh

from zoo.errors import UserError, nearest
from zoo.parallel.devices import PEAK_FLOPS
from zoo.planning.chips import CHIPS, Chip, Reached, Topology


@dataclass(frozen=True)
class Card:
    """A `chip`, and what XLA must know of a card to compile for it: the driver's `name`, the CUDA compute `capability`,
    the number of streaming multiprocessors (`cores`), and for each its float32 `units`, most `threads` and `shared`
    memory in bytes; the `l2` cache in bytes and the `clock` in GHz."""

    chip: Chip
    name: str
    capability: tuple[int, int]
    cores: int
    units: int
    threads: int
    shared: int
    l2: int
    clock: float

    def target(self) -> str:
        """As a `GpuTargetConfigProto`, for a compiler that sees no such card."""
        return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {self.shared}
  threads_per_core_limit: {self.threads}
  core_count: {self.cores}
  fpus_per_core: {self.units}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {self.chip.bandwidth:.0f}
  l2_cache_size: {self.l2}
  clock_rate_ghz: {self.clock}
  device_memory_size: {self.chip.memory:.0f}
  shared_memory_per_block_optin: {self.shared - 1024}
  cuda_compute_capability {{ major: {self.capability[0]} minor: {self.capability[1]} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: 12 minor: 9 patch: 0 }}
device_description_str: "{self.name}"
"""


# Measured rates of a square product and a copy under JAX, one card each, 2026-11-25. No A100 was measured: it is given
# the same shares of its peaks as the H100.
_HOPPER = {"capability": (9, 0), "cores": 132, "units": 128, "threads": 2048, "shared": 233472, "l2": 50 * 2**20}
_H100 = Chip(PEAK_FLOPS["NVIDIA H100"], 84929347584, 3352e9, 450e9, 50e9, reached=Reached(756e12, 3.0e12))
_H200 = Chip(PEAK_FLOPS["NVIDIA H200"], 150754820096, 4917e9, 450e9, 50e9, reached=Reached(790e12, 4.3e12))
_A100 = Chip(PEAK_FLOPS["NVIDIA A100"], 85094039552, 2039e9, 300e9, 25e9, reached=Reached(238e12, 1.83e12))
CARDS = {
    "a100": Card(_A100, "NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, 2048, 167936, 40 * 2**20, 1.41),
    "h100": Card(_H100, "NVIDIA H100 80GB HBM3", clock=1.98, **_HOPPER),
    "h200": Card(_H200, "NVIDIA H200", clock=1.98, **_HOPPER),
}
JAX_SHARE = 0.75  # of a card's memory, which JAX takes unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise
MOST_IN_A_HOST = 8


@dataclass(frozen=True)
class Hosts:
    """Hosts of some GPUs each: any two in a host are joined by NVLink at full speed, hosts by their GPUs' adapters."""

    name: str
    hosts: int
    gpus: int
    slices: int = 1

    @classmethod
    def parse(cls, text: str, slices: int = 1) -> "Hosts":
        """Parse a text such as `h100:8`, or `h100:4x8` for four hosts of eight."""
        name, _, shape = text.partition(":")
        numbers = shape.split("x") if shape else ["1"]
        if not all(n.isdigit() and int(n) for n in numbers) or len(numbers) > 2 or int(numbers[-1]) > MOST_IN_A_HOST:
            raise UserError(
                f"--topology={text!r}: write the GPUs of a host, {MOST_IN_A_HOST} at most, as {name}:8, or hosts and "
                f"GPUs, as {name}:4x8"
            )
        if slices != 1:
            raise UserError(f"--slices={slices}: only for TPUs; write several hosts of GPUs as {name}:{slices}x8")
        return cls(name, int(numbers[0]) if len(numbers) == 2 else 1, int(numbers[-1]))

    @property
    def card(self) -> Card:
        return CARDS[self.name]

    @property
    def chip(self) -> Chip:
        """With the memory that JAX takes of it."""
        chip, share = self.card.chip, float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", JAX_SHARE))
        return replace(chip, memory=share * chip.memory)

    @property
    def size(self) -> int:
        return self.hosts * self.gpus

    def __str__(self) -> str:
        return f"{self.name}:{self.gpus}" if self.hosts == 1 else f"{self.name}:{self.hosts}x{self.gpus}"

    def bandwidth(self, mesh: Mesh, axes: Sequence[str]) -> float:
        """Bytes/s that a GPU can send around the rings of these mesh `axes`: between hosts, those of all its ring's
        adapters in a host, but never more than NVLink."""
        index = tuple(slice(None) if name in axes else 0 for name in mesh.axis_names)
        ring = [device.process_index for device in mesh.devices[index].flat]
        hosts = len(set(ring))
        return self.chip.link if hosts == 1 else min(self.chip.link, self.chip.network * math.ceil(len(ring) / hosts))


def topology(text: str, slices: int = 1) -> Topology | Hosts:
    """The devices of `--topology`: a slice of TPUs or hosts of GPUs. Raises `UserError` for others."""
    name = text.partition(":")[0]
    if name in CARDS:
        return Hosts.parse(text, slices)
    if name not in CHIPS:
        known = nearest(name, (*CHIPS, *CARDS))
        raise UserError(f"--topology={text!r}: no chip {name!r}: {known}, as v5e:4x4 or h100:8")
    return Topology.parse(text, slices)
