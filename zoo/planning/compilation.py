"""Compile the step of `train` for devices that are not here, and read its memory."""

import dataclasses
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from zoo.experiment import Experiment
from zoo.models import registry
from zoo.parallel.mesh import batch_shards, make_mesh, resolved
from zoo.parallel.rules import batch_sharding, parameter_count
from zoo.planning.absent import compiled, compiler, needed_bytes
from zoo.planning.chips import Topology
from zoo.planning.gpus import Hosts
from zoo.planning.prediction import Prediction, predict
from zoo.planning.program import Program
from zoo.training.loop import matrix_parameters, update
from zoo.training.lora import adapted


@dataclass(frozen=True)
class Memory:
    """Bytes on each chip: the state and the batch, temporaries, results that do not replace the state, and the
    program."""

    arguments: int
    temporaries: int
    results: int = 0
    program: int = 0

    @classmethod
    def of(cls, program: jax.stages.Compiled) -> "Memory":
        """As the compiler has laid it out."""
        stats = program.memory_analysis()
        return cls(
            stats.argument_size_in_bytes,
            stats.temp_size_in_bytes,
            stats.output_size_in_bytes - stats.alias_size_in_bytes,
            stats.generated_code_size_in_bytes,
        )

    @property
    def peak(self) -> int:
        return self.arguments + self.temporaries + self.results + self.program


@dataclass(frozen=True)
class Plan:
    """`prediction` is None if the program does not fit; `memory` is then what it would need. Compiling with `compiler`
    took `compile_seconds`, and `processor_seconds` of all cores together."""

    topology: Topology | Hosts
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
            plain["prediction"] |= {name: getattr(self.prediction, name) for name in read} | {
                "leaves_out": self.prediction.leaves_out
            }
        return plain


def plan(experiment: Experiment, topology: Topology | Hosts, devices: list[Any]) -> Plan:
    """Compile the experiment's step for its mesh over the devices, and read its costs."""
    within, across = resolved(experiment.mesh, len(devices), _slices(experiment, topology))
    across = {axis: n for axis, n in across.items() if n > 1}
    mesh = make_mesh(experiment.mesh, devices)
    config = model_config(experiment)
    model, task = registry.of(config), experiment.make_task(Path())
    batch = abstract_batch(experiment, mesh)
    shapes, _, step = update(
        task, adapted(model, experiment.lora), experiment.train, experiment.rule(), mesh, experiment.seed
    )
    began = time.perf_counter(), time.process_time()
    lowered = step.lower(shapes, batch)
    known = (topology, within | across, parameter_count(shapes.params), math.prod(batch.inputs.shape))
    try:
        program, text = compiled(lowered, topology)
    except jax.errors.JaxRuntimeError as error:
        size, whole = needed_bytes(error)
        memory = Memory(0 if whole else _on_each((shapes, batch)), size)
        return Plan(*known, memory, None, compiler(topology), *_since(began))
    taken = _since(began)
    matrices = matrix_parameters(model, shapes.params, task.example_batch())
    # TPU programs number the chips of one slice, GPU programs the devices of all hosts.
    axes = (dict(mesh.shape), None) if isinstance(topology, Hosts) else (within, across)
    prediction = predict(Program(text, *axes), topology, mesh, config, batch, matrices)
    return Plan(*known, Memory.of(program), prediction, compiler(topology), *taken)


def _slices(experiment: Experiment, topology: Topology | Hosts) -> int:
    """Slices of TPUs; or where the mesh names what lies between hosts of GPUs, those, as `make_mesh` has it."""
    if isinstance(topology, Topology):
        return topology.slices
    return topology.hosts if set(experiment.mesh.across().values()) != {1} else 1


def _since(began: tuple[float, float]) -> tuple[float, float]:
    return time.perf_counter() - began[0], time.process_time() - began[1]


def model_config(experiment: Experiment) -> Any:
    """With the vocabulary that `data` asks for, to compute in what the chip multiplies."""
    dtype = experiment.train.compute_dtype
    dtype = "bfloat16" if dtype == "auto" else dtype
    return experiment.model.config(dtype=dtype, **experiment.data.planned_vocabularies())


def abstract_batch(experiment: Experiment, mesh: Mesh) -> Any:
    """The shapes of the longest training batch."""
    longest = experiment.data.batch_shapes(batch_shards(mesh) * experiment.train.accumulate)[-1]
    where = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), longest)


def _on_each(shapes: Any) -> int:
    """Bytes of a tree of shapes on each chip."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(shapes))
