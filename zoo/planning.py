"""What a training step will take on a TPU slice, from compiling it here without one.

The step is the one that `train` runs, compiled by the TPU's own compiler for that slice. Memory is what the compiler
allots. The time is a roofline of the compiled program (Williams et al. 2009): each kernel takes the longer of its
products at the chip's peak and its memory traffic at full bandwidth; messages that the compiler has put beside kernels
cost what exceeds these, the others are added.
"""

import dataclasses
import importlib.util
import math
import os
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from zoo.data.batching import Buckets, LanguageBatch, Seq2SeqBatch
from zoo.errors import UserError
from zoo.experiment import Experiment, ModelChoice
from zoo.models import registry
from zoo.parallel.chips import GIB, Topology
from zoo.parallel.mesh import MeshConfig, batch_shards, make_mesh
from zoo.parallel.program import Program
from zoo.parallel.rules import batch_sharding, parameter_count
from zoo.tasks.language_modeling import LanguageModelingData
from zoo.training.loop import matrix_parameters, update

LEFT_OUT = (
    "the time between kernels and to start a message, products whose shapes leave parts of the matrix unit idle, work "
    "of the vector unit that memory traffic does not hide, congestion, input, evaluation and checkpoints"
)
BYTES_PER_PARAMETER = 12  # float32 parameters and Adam's two moments
MOST_TENSOR = 8  # beyond, the messages of every layer outweigh what it saves


@dataclass(frozen=True)
class Memory:
    """Bytes on each chip: the state and the batch, what comes and goes during the step, results that do not take the
    place of the state, and the program."""

    arguments: int
    temporaries: int
    results: int = 0
    program: int = 0

    @property
    def peak(self) -> int:
        return self.arguments + self.temporaries + self.results + self.program


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
    """Of one step: FLOPs of all chips as compiled and as the formula has them (with what is computed again), seconds of
    kernels and of messages, and the whole."""

    flops: float
    formula_flops: float
    model_flops: float
    kernel_seconds: float
    traffic: tuple[Traffic, ...]
    chips: int
    peak_flops: float

    @property
    def step_seconds(self) -> float:
        hidden = sum(t.seconds for t in self.traffic if t.overlapped)
        exposed = sum(t.seconds for t in self.traffic if not t.overlapped)
        return max(self.kernel_seconds, hidden) + exposed

    @property
    def mfu(self) -> float:
        """Model FLOPs utilization (Chowdhery et al. 2022, appendix B): nothing computed twice is counted."""
        return self.model_flops / (self.step_seconds * self.chips * self.peak_flops)


@dataclass(frozen=True)
class Plan:
    """`prediction` is None where the compiler found no room; `memory` then holds all that it would have needed.
    Compiling took `compile_seconds`, and `processor_seconds` of all cores together."""

    topology: Topology
    mesh: dict[str, int]
    parameters: int
    tokens: int
    memory: Memory
    prediction: Prediction | None
    compile_seconds: float
    processor_seconds: float

    @property
    def fits(self) -> bool:
        return self.prediction is not None and self.memory.peak <= self.topology.chip.memory

    def as_dict(self) -> dict[str, Any]:
        """Plain values: bytes, seconds, FLOPs."""
        plain = dataclasses.asdict(self) | {"topology": str(self.topology), "fits": self.fits}
        plain["memory"] |= {"peak": self.memory.peak, "available": self.topology.chip.memory}
        if self.prediction:
            plain["prediction"] |= {"step_seconds": self.prediction.step_seconds, "mfu": self.prediction.mfu}
            plain["prediction"]["leaves_out"] = LEFT_OUT
        return plain


def slice_devices(topology: Topology) -> list[Any]:
    """Devices to compile for. Raises `UserError` where libtpu, which has the compiler, is missing."""
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("plan compiles with libtpu, which is not installed: pip install 'seqzoo[tpu]'")
    from jax.experimental import topologies

    # Else libtpu asks a server of Google Cloud which machine it is on, and waits.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-16")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # two plans at a time do not fight over chips
    return list(topologies.get_topology_desc(platform="tpu", topology_name=str(topology)).devices)


def plan(experiment: Experiment, topology: Topology, devices: list[Any]) -> Plan:
    """Compile the experiment's step for its mesh over the slice, and read what it takes."""
    mesh = make_mesh(experiment.mesh, devices)
    config = model_config(experiment)
    model, task = registry.of(config), experiment.make_task(Path())
    batch = abstract_batch(experiment, mesh)
    shapes, _, step = update(task, model, experiment.train, experiment.optimizer, mesh, experiment.seed)
    began = time.perf_counter(), time.process_time()
    lowered = step.lower(shapes, batch)
    parameters, tokens = parameter_count(shapes.params), math.prod(batch.inputs.shape)
    known = (topology, dict(mesh.shape), parameters, tokens)
    try:
        compiled, text = _compiled(lowered)
    except jax.errors.JaxRuntimeError as error:
        return Plan(*known, _needed(error), None, *_since(began))
    taken = _since(began)
    stats = compiled.memory_analysis()
    memory = Memory(
        stats.argument_size_in_bytes,
        stats.temp_size_in_bytes,
        stats.output_size_in_bytes - stats.alias_size_in_bytes,
        stats.generated_code_size_in_bytes,
    )
    matrices = matrix_parameters(model, shapes.params, task.example_batch())
    prediction = predict(Program(text, dict(mesh.shape)), topology, mesh, config, batch, matrices)
    return Plan(*known, memory, prediction, *taken)


def _compiled(lowered: jax.stages.Lowered) -> tuple[jax.stages.Compiled, str]:
    """The program, and its text as the compiler itself writes it: `as_text` fails where a libtpu that is newer than
    JAX's own XLA has fused messages in ways that the latter cannot read."""
    with tempfile.TemporaryDirectory() as directory:
        compiled = lowered.compile(compiler_options={"xla_dump_to": directory, "xla_dump_hlo_as_text": True})
        (file,) = Path(directory).glob("*.after_optimizations.txt")
        return compiled, file.read_text(encoding="utf-8")


def _since(began: tuple[float, float]) -> tuple[float, float]:
    return time.perf_counter() - began[0], time.process_time() - began[1]


def model_config(experiment: Experiment) -> Any:
    """With the vocabulary that `data` asks for, to compute in what the chip multiplies."""
    data, dtype = experiment.data, experiment.train.compute_dtype
    dtype = "bfloat16" if dtype == "auto" else dtype
    if isinstance(data, LanguageModelingData):
        return experiment.model.config(dtype=dtype, vocabulary=data.vocabulary)
    target = data.target_vocabulary or data.vocabulary
    return experiment.model.config(dtype=dtype, source_vocabulary=data.vocabulary, target_vocabulary=target)


def abstract_batch(experiment: Experiment, mesh: Mesh) -> LanguageBatch | Seq2SeqBatch:
    """The shapes of a training batch; of translation, those of its longest sentences."""
    data, shards = experiment.data, batch_shards(mesh) * experiment.train.accumulate
    if isinstance(data, LanguageModelingData):
        rows, length = data.batch_rows, data.length
        if rows % shards:
            raise UserError(
                f"data.batch_rows={rows} does not divide by {shards}, the parts of a batch (mesh.data times mesh.fsdp "
                f"times train.accumulate): use {-(-rows // shards) * shards}, or another --mesh"
            )
        fields = ("inputs", "labels", "segments", "positions") if data.packing == "segments" else ("inputs", "labels")
    else:
        if data.batch_sentences:
            buckets = Buckets.of_sentences(data.max_length, data.batch_sentences, shards, data.steps)
        else:
            buckets = Buckets.up_to(data.max_length, data.batch_tokens, shards, data.steps)
        rows, length, fields = buckets.counts[-1], buckets.boundaries[-1], ("source", "inputs", "labels")
    ids = jax.ShapeDtypeStruct((rows, length), np.int32, sharding=batch_sharding(mesh))
    kind = LanguageBatch if isinstance(data, LanguageModelingData) else Seq2SeqBatch
    return kind(**dict.fromkeys(fields, ids))


def attention_flops(config: Any, rows: int, length: int, passes: int = 3) -> float:
    """Of the products of queries with keys and of weights with values, whole tables: `2 · 2 · T · S · E` a layer and
    row in each of the forward pass and, twice as much, the backward one (Chowdhery et al. 2022, appendix B)."""
    if not hasattr(config, "heads"):
        return 0.0
    width = config.heads * (getattr(config, "head_size", 0) or config.width // config.heads)
    # An encoder attends to itself; a decoder with a source to itself and to the source.
    tables = 1 if not hasattr(config, "source_vocabulary") else 3
    return 4.0 * passes * tables * config.layers * rows * length**2 * width


def predict(
    program: Program, topology: Topology, mesh: Mesh, config: Any, batch: LanguageBatch | Seq2SeqBatch, matrices: int
) -> Prediction:
    """The roofline of a compiled step. `matrices` counts the parameters that each token is multiplied by."""
    chip, (rows, length) = topology.chip, batch.inputs.shape
    kernels = sum(max(k.flops / chip.flops, k.bytes / chip.bandwidth) * k.times for k in program.kernels)
    model_flops = 6.0 * matrices * rows * length + attention_flops(config, rows, length)
    again = _computed_again(config, matrices) * rows * length
    again += attention_flops(config, rows, length, passes=1) if again else 0.0
    totals: dict[tuple, list[float]] = {}
    for message in program.collectives:
        total = totals.setdefault((message.kind, message.axes, message.overlapped), [0, 0, 0.0])
        total[0] += message.bytes * message.times
        total[1] += message.times
        total[2] += message.seconds_per_bandwidth * message.times / topology.bandwidth(mesh, message.axes)
    traffic = tuple(
        Traffic(kind, axes, int(size), int(count), seconds, overlapped)
        for (kind, axes, overlapped), (size, count, seconds) in sorted(totals.items())
    )
    flops = program.flops * mesh.size
    return Prediction(flops, model_flops + again, model_flops, kernels, traffic, mesh.size, chip.flops)


def _computed_again(config: Any, matrices: int) -> float:
    """FLOPs for each token that rematerialization adds: the layers' products once more, but not the last of each where
    its output goes into a sum alone, of which the gradient needs nothing."""
    if not getattr(config, "remat", False):
        return 0.0
    readout = getattr(config, "target_vocabulary", getattr(config, "vocabulary", 0)) * config.width
    stacks = 2 if hasattr(config, "target_vocabulary") else 1
    last = stacks * config.layers * config.ffn * config.width if config.norm == "pre" else 0
    return 2.0 * (matrices - readout - last)


def _needed(error: jax.errors.JaxRuntimeError) -> Memory:
    """What the compiler says that a step would have needed; anything else that it says is a defect."""
    used = re.search(r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm", str(error))
    if used is None:
        raise error
    return Memory(0, int(float(used[1]) * 2 ** (10 * (1 + "KMGT".index(used[2])))))


def remedies(experiment: Experiment, topology: Topology) -> Iterator[tuple[str, Experiment]]:
    """What may make a step fit, mildest first: activations computed again, smaller batches, other meshes."""
    config = model_config(experiment)
    if not getattr(config, "remat", True):
        changes = dict(experiment.model.changes) | {"remat": True}
        choice = ModelChoice(experiment.model.name, experiment.model.size, changes)
        experiment = dataclasses.replace(experiment, model=choice)
        yield "--config.model.remat=true", experiment
    key = "batch_rows" if isinstance(experiment.data, LanguageModelingData) else "batch_tokens"
    size = getattr(experiment.data, key)
    for smaller in (size // 2, size // 4):
        data = dataclasses.replace(experiment.data, **{key: smaller})
        yield f"--config.data.{key}={smaller}", dataclasses.replace(experiment, data=data)
    for mesh in meshes(experiment, topology):
        yield f"--mesh={mesh_text(mesh)}", dataclasses.replace(experiment, mesh=mesh)


def mesh_text(mesh: MeshConfig) -> str:
    return f"data={mesh.data},fsdp={mesh.fsdp},tensor={mesh.tensor}"


def meshes(experiment: Experiment, topology: Topology) -> list[MeshConfig]:
    """The meshes that make sense on a slice: `tensor` divides the heads and the feed-forward layer, `fsdp` the width;
    the rows of a batch divide by the rest; and parameters and optimizer alone would fit."""
    config = model_config(experiment)
    parameters = _parameters(config, experiment)
    found = []
    for tensor in _powers(topology.size):
        heads, ffn = getattr(config, "heads", 1), getattr(config, "ffn", 1)
        if tensor > MOST_TENSOR or heads % tensor or ffn % tensor:
            continue
        for fsdp in _powers(topology.size // tensor):
            state = BYTES_PER_PARAMETER * parameters / (fsdp * tensor)
            mesh = MeshConfig(data=topology.size // tensor // fsdp, fsdp=fsdp, tensor=tensor)
            if config.width % fsdp == 0 and state < topology.chip.memory and _cuts(experiment, mesh):
                found.append(mesh)
    # Of those with the same tensor, the least cut (one gather fewer) and the most cut (the least memory).
    ends = [
        mesh
        for tensor in sorted({mesh.tensor for mesh in found})
        for same in [[mesh for mesh in found if mesh.tensor == tensor]]
        for mesh in dict.fromkeys((same[0], same[len(same) // 2], same[-1]))
    ]
    return ends


def _cuts(experiment: Experiment, mesh: MeshConfig) -> bool:
    shards = mesh.data * mesh.fsdp * experiment.train.accumulate
    if isinstance(experiment.data, LanguageModelingData):
        return experiment.data.batch_rows % shards == 0
    return experiment.data.batch_tokens >= experiment.data.max_length * shards


def _parameters(config: Any, experiment: Experiment) -> int:
    model, batch = registry.of(config), experiment.make_task(Path()).example_batch()
    return parameter_count(jax.eval_shape(lambda: model.init(jax.random.key(0), batch)["params"]))


def _powers(most: int) -> list[int]:
    return [2**n for n in range(most.bit_length()) if most % 2**n == 0]


def in_gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB"
