"""The step that `train` runs, compiled for a slice by the TPU's own compiler, which also says what memory it takes."""

import dataclasses
import importlib.util
import math
import os
import re
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from zoo.data.batching import Buckets, LanguageBatch, Seq2SeqBatch
from zoo.errors import UserError
from zoo.experiment import Experiment
from zoo.models import registry
from zoo.parallel.chips import Topology
from zoo.parallel.mesh import batch_shards, make_mesh, resolved
from zoo.parallel.program import Program
from zoo.parallel.rules import batch_sharding, parameter_count
from zoo.planning.prediction import LEFT_OUT, Prediction, predict
from zoo.tasks.language_modeling import LanguageModelingData
from zoo.training.loop import matrix_parameters, update


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
class Plan:
    """`prediction` is None where the compiler found no room; `memory` then holds all that it would have needed.
    Compiling by `compiler` took `compile_seconds`, and `processor_seconds` of all cores together."""

    topology: Topology
    mesh: dict[str, int]
    parameters: int
    tokens: int
    memory: Memory
    prediction: Prediction | None
    compiler: str
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
            read = ("step_seconds", "mfu", "flops_by_formula")
            plain["prediction"] |= {name: getattr(self.prediction, name) for name in read} | {"leaves_out": LEFT_OUT}
        return plain


def slice_devices(topology: Topology) -> list[Any]:
    """Devices to compile for, of all slices. Raises `UserError` where libtpu, which has the compiler, is missing."""
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("plan compiles with libtpu, which is not installed: pip install 'seqzoo[tpu]'")
    from jax.experimental import topologies

    # Else libtpu asks a server of Google Cloud which machine it is on, and waits.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-16")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # two plans at a time do not fight over chips
    found = topologies.get_topology_desc(platform="tpu", topology_name=topology.slice, num_slices=topology.slices)
    return list(found.devices)


def plan(experiment: Experiment, topology: Topology, devices: list[Any]) -> Plan:
    """Compile the experiment's step for its mesh over the slice, and read what it takes."""
    within, across = resolved(experiment.mesh, len(devices), topology.slices)
    across = {axis: n for axis, n in across.items() if n > 1}
    mesh = make_mesh(experiment.mesh, devices)
    config = model_config(experiment)
    model, task = registry.of(config), experiment.make_task(Path())
    batch = abstract_batch(experiment, mesh)
    shapes, _, step = update(task, model, experiment.train, experiment.optimizer, mesh, experiment.seed)
    began = time.perf_counter(), time.process_time()
    lowered = step.lower(shapes, batch)
    parameters, tokens = parameter_count(shapes.params), math.prod(batch.inputs.shape)
    known = (topology, within | across, parameters, tokens)
    try:
        compiled, text = _compiled(lowered)
    except jax.errors.JaxRuntimeError as error:
        return Plan(*known, _needed(error, (shapes, batch)), None, _compiler(), *_since(began))
    taken = _since(began)
    stats = compiled.memory_analysis()
    memory = Memory(
        stats.argument_size_in_bytes,
        stats.temp_size_in_bytes,
        stats.output_size_in_bytes - stats.alias_size_in_bytes,
        stats.generated_code_size_in_bytes,
    )
    matrices = matrix_parameters(model, shapes.params, task.example_batch())
    prediction = predict(Program(text, within, across), topology, mesh, config, batch, matrices)
    return Plan(*known, memory, prediction, _compiler(), *taken)


def _compiler() -> str:
    return f"libtpu {version('libtpu')}"


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


def _needed(error: jax.errors.JaxRuntimeError, arguments: Any) -> Memory:
    """What the compiler says that a step would have needed, of all or beside its arguments; anything else that it says
    is a defect."""
    said = re.search(r"(Used|HLO temporaries) \(?([\d.]+)([KMGT])", str(error))
    if said is None:
        raise error
    size = int(float(said[2]) * 2 ** (10 * (1 + "KMGT".index(said[3]))))
    return Memory(0 if said[1] == "Used" else _on_each(arguments), size)


def _on_each(shapes: Any) -> int:
    """Bytes of a tree of shapes on each chip."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(shapes))
