"""What else may be tried: what makes a step fit that does not, and the meshes that make sense."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from zoo.experiment import Experiment, ModelChoice
from zoo.models import registry
from zoo.parallel.chips import Topology
from zoo.parallel.mesh import MeshConfig
from zoo.parallel.rules import parameter_count
from zoo.planning.compilation import model_config
from zoo.tasks.language_modeling import LanguageModelingData

BYTES_PER_PARAMETER = 12  # float32 parameters and Adam's two moments
MOST_TENSOR = 8  # beyond, the messages of every layer outweigh what it saves


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
