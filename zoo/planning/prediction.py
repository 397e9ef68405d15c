"""Predict the time of a compiled training step, at best, from the work and traffic of its kernels.

On a TPU each kernel takes the longer of its products at the chip's peak and its memory traffic at full bandwidth: the
roofline (Williams et al. 2009). On a GPU the whole step takes the sum of the two, at the rates that products and copies
were measured to reach: most kernels do one or the other, and one after the other. Messages that the compiler has put
beside kernels cost what exceeds these; the others are added.
"""

import math
from dataclasses import dataclass
from typing import Any

from jax.sharding import Mesh

from zoo.planning.chips import Chip, Topology
from zoo.planning.gpus import Hosts
from zoo.planning.program import Program

LEFT_OUT = (
    "the time between kernels and to start a message, products whose shapes leave parts of the matrix unit idle, work "
    "of the vector unit that memory traffic does not hide, congestion, input, evaluation and checkpoints"
)
GPU_LEFT_OUT = (
    "the launches of kernels and the start of a message, products that are too small for the card, caches, what timing "
    "its products on the card would choose, congestion, input, evaluation and checkpoints"
)


@dataclass(frozen=True)
class Traffic:
    """Bytes that one kind of message carries over some axes of the mesh in a step, and the seconds they take."""

    kind: str
    axes: tuple[str, ...]
    bytes: int
    messages: int
    seconds: float
    overlapped: bool


@dataclass(frozen=True)
class Prediction:
    """The prediction for one step: FLOPs of all chips as compiled and by the formula (with recomputation), bytes that
    the kernels of one chip move, seconds of kernels and of messages, and in total."""

    flops: float
    formula_flops: float
    model_flops: float
    kernel_seconds: float
    traffic: tuple[Traffic, ...]
    chips: int
    peak_flops: float
    bytes: int = 0
    leaves_out: str = LEFT_OUT

    @property
    def step_seconds(self) -> float:
        hidden = sum(t.seconds for t in self.traffic if t.overlapped)
        exposed = sum(t.seconds for t in self.traffic if not t.overlapped)
        return max(self.kernel_seconds, hidden) + exposed

    @property
    def flops_by_formula(self) -> float:
        """FLOPs read from the program over those of the formula: far from 1, the reading missed something."""
        return self.flops / self.formula_flops

    @property
    def mfu(self) -> float:
        """Model FLOPs utilization (Chowdhery et al. 2022, appendix B): recomputation does not count."""
        return self.model_flops / (self.step_seconds * self.chips * self.peak_flops)


def attention_flops(config: Any, rows: int, length: int, passes: int = 3) -> float:
    """Of the products of queries with keys and of weights with values, whole tables: `2 · 2 · T · S · E` a layer and
    row in each of the forward pass and, twice as much, the backward one (Chowdhery et al. 2022, appendix B)."""
    if not hasattr(config, "heads"):
        return 0.0
    width = config.heads * (getattr(config, "head_size", 0) or config.width // config.heads)
    # An encoder attends to itself; a decoder with a source to itself and to the source.
    tables = 1 if not hasattr(config, "source_vocabulary") else 3
    return 4.0 * passes * tables * config.layers * rows * length**2 * width


def kernel_seconds(program: Program, chip: Chip) -> float:
    """Of all kernels of a step: on a GPU, one with rates that were reached, the sum of products and traffic; on a TPU
    the longer of both, kernel by kernel."""
    if chip.reached:
        return program.flops / chip.reached.flops + program.bytes / chip.reached.bandwidth
    return sum(max(k.flops / chip.flops, k.bytes / chip.bandwidth) * k.times for k in program.kernels)


def predict(
    program: Program, topology: Topology | Hosts, mesh: Mesh, config: Any, batch: Any, matrices: int
) -> Prediction:
    """Predict the time of a compiled step. `matrices` is the number of parameters that each token is multiplied by."""
    chip, (*rows, length) = topology.chip, batch.inputs.shape
    rows = math.prod(rows)
    model_flops = 6.0 * matrices * rows * length + attention_flops(config, rows, length)
    again = _computed_again(config, matrices) * rows * length
    again += attention_flops(config, rows, length, passes=1) if again else 0.0
    totals: dict[tuple, list[float]] = {}
    for message in program.collectives:
        total = totals.setdefault((message.kind, message.axes, message.overlapped), [0, 0, 0.0])
        total[0] += message.bytes * message.times
        total[1] += message.times
        between_slices = message.axes[0].startswith("dcn_")
        bandwidth = chip.network if between_slices else topology.bandwidth(mesh, message.axes)
        total[2] += message.seconds_per_bandwidth * message.times / bandwidth
    traffic = tuple(
        Traffic(kind, axes, int(size), int(count), seconds, overlapped)
        for (kind, axes, overlapped), (size, count, seconds) in sorted(totals.items())
    )
    flops = program.flops * mesh.size
    times = (kernel_seconds(program, chip), traffic)
    left_out = GPU_LEFT_OUT if chip.reached else LEFT_OUT
    return Prediction(flops, model_flops + again, model_flops, *times, mesh.size, chip.flops, program.bytes, left_out)


def _computed_again(config: Any, matrices: int) -> float:
    """FLOPs for each token that rematerialization adds: the layers' products once more, but not the last of each where
    its output goes into a sum alone, of which the gradient needs nothing."""
    if not getattr(config, "remat", False):
        return 0.0
    readout = getattr(config, "target_vocabulary", getattr(config, "vocabulary", 0)) * config.width
    stacks = 2 if hasattr(config, "target_vocabulary") else 1
    last = stacks * config.layers * config.ffn * config.width if config.norm == "pre" else 0
    return 2.0 * (matrices - readout - last)
