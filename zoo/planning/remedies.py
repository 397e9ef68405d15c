"""Alternatives to try: changes that may make a step fit, and sensible meshes."""

import dataclasses
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import jax

from zoo.errors import UserError
from zoo.experiment import Experiment, ModelChoice
from zoo.models import registry
from zoo.parallel.mesh import MeshConfig
from zoo.parallel.rules import parameter_count
from zoo.planning.chips import Topology
from zoo.planning.compilation import model_config
from zoo.planning.gpus import Hosts

BYTES_PER_PARAMETER = 12  # float32 parameters and Adam's two moments
MOST_TENSOR = 8  # beyond this, the messages of every layer cost more than it saves


def remedies(experiment: Experiment, topology: Topology | Hosts) -> Iterator[tuple[str, Experiment]]:
    """Changes that may make a step fit, mildest first: rematerialization, smaller batches, other meshes."""
    config = model_config(experiment)
    if not getattr(config, "remat", True):
        changes = dict(experiment.model.changes) | {"remat": True}
        choice = ModelChoice(experiment.model.name, experiment.model.size, changes)
        experiment = dataclasses.replace(experiment, model=choice)
        yield "--config.model.remat=true", experiment
    key = experiment.data.size_key
    size = getattr(experiment.data, key)
    for smaller in filter(None, (size // 2, size // 4)):
        data = dataclasses.replace(experiment.data, **{key: smaller})
        yield f"--config.data.{key}={smaller}", dataclasses.replace(experiment, data=data)
    for mesh in meshes(experiment, topology):
        yield f"--mesh={mesh_text(mesh)}", dataclasses.replace(experiment, mesh=mesh)


def mesh_text(mesh: MeshConfig) -> str:
    """The mesh in the form of `--mesh`."""
    sizes = mesh.within() | mesh.across()
    return ",".join(f"{axis}={n}" for axis, n in sizes.items() if n > 1) or "data=1"


def meshes(experiment: Experiment, topology: Topology | Hosts) -> list[MeshConfig]:
    """The first that a sweep tries: of each family the least cut (the least messages), the most cut (the least memory),
    and one between."""
    found: list[MeshConfig] = []
    for family in families(experiment, topology):
        found += dict.fromkeys((family[0], family[len(family) // 2], family[-1]))
    return found


def neighbours(experiment: Experiment, topology: Topology | Hosts, mesh: MeshConfig) -> list[MeshConfig]:
    """The neighbours of `mesh` in its family."""
    for family in families(experiment, topology):
        if mesh in family:
            place = family.index(mesh)
            return [family[n] for n in (place - 1, place + 1) if 0 <= n < len(family)]
    return []


def families(experiment: Experiment, topology: Topology | Hosts) -> list[list[MeshConfig]]:
    """The meshes that make sense on a slice, the same on each where there are several, `data` over them; in a family
    `fsdp` doubles from one to the next, and `data` has the rest.

    `tensor` and `sequence` divide the heads and what else they cut, `fsdp` the width, or the feed-forward layer and the
    heads; the rows of a batch divide by the rest; and parameters and optimizer alone would fit. Positions are cut where
    there are fewer rows than chips.
    """
    config, powers = model_config(experiment), _powers(min(topology.size, MOST_TENSOR))
    state = BYTES_PER_PARAMETER * _parameters(config, experiment)
    found: list[list[MeshConfig]] = []
    for tensor, sequence in product(powers, powers):
        chips, left = divmod(topology.size, tensor * sequence)
        enough = _rows(experiment) >= topology.slices * topology.size // tensor
        if left or not _divides(config, tensor, sequence) or (sequence > 1 and enough):
            continue
        family = [
            MeshConfig(chips // fsdp, fsdp, tensor, sequence, dcn_data=topology.slices)
            for fsdp in _powers(chips)
            if _splits(config, fsdp, tensor) and state / (fsdp * tensor) < topology.chip.memory
        ]
        found.append([mesh for mesh in family if _cuts(experiment, mesh)])
    return [family for family in found if family]


def _divides(config: Any, tensor: int, sequence: int) -> bool:
    heads, ffn = getattr(config, "heads", 1), getattr(config, "ffn", 1)
    return tensor * sequence <= MOST_TENSOR and heads % (tensor * sequence) == 0 and ffn % tensor == 0


def _splits(config: Any, fsdp: int, tensor: int) -> bool:
    """As `zoo.parallel.rules.sharding` does."""
    others = (getattr(config, name, 1) for name in ("ffn", "heads"))
    return config.width % fsdp == 0 or all(n % (fsdp * tensor) == 0 for n in others)


def _cuts(experiment: Experiment, mesh: MeshConfig) -> bool:
    """Whether the rows of every batch divide by the parts of the mesh, and its positions by `sequence`."""
    shards = mesh.dcn_data * mesh.data * mesh.fsdp * experiment.train.accumulate
    try:
        shapes = experiment.data.batch_shapes(shards)
    except UserError:
        return False
    return mesh.sequence == 1 or all(shape.inputs.shape[-1] % mesh.sequence == 0 for shape in shapes)


def _rows(experiment: Experiment) -> int:
    """Of the longest batch."""
    return experiment.data.batch_shapes(1)[-1].inputs.shape[0]


def _parameters(config: Any, experiment: Experiment) -> int:
    model, batch = registry.of(config), experiment.make_task(Path()).example_batch()
    return parameter_count(jax.eval_shape(lambda: model.init(jax.random.key(0), batch)["params"]))


def _powers(most: int) -> list[int]:
    return [2**n for n in range(most.bit_length()) if most % 2**n == 0]
