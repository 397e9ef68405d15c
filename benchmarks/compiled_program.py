"""Compiles a training step for an absent device, with whatever version of the zoo is on the path.

`python compiled_program.py SPEC DIRECTORY` leaves `program.txt` and `memory.json` in the directory. It uses only old
parts of the zoo's interface, so that `benchmarks compiled --against=GIT_REF` can run it on older states of the code.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np


def lowered(spec: dict[str, Any], devices: list[Any]) -> tuple[Any, int]:
    """The step of the model that `spec` names on one device, and how many parameters it has."""
    from zoo.models import build
    from zoo.models.base import LanguageBatch, Seq2SeqBatch
    from zoo.parallel.mesh import MeshConfig, make_mesh
    from zoo.parallel.rules import batch_sharding, parameter_count
    from zoo.tasks.losses import cross_entropy
    from zoo.training.optimizers import OptimizerConfig, optimizer
    from zoo.training.step import born, make_step

    model = build(spec["family"], spec["size"], **spec["changes"])
    mesh = make_mesh(MeshConfig(), devices)
    ids = jax.ShapeDtypeStruct((spec["rows"], spec["length"]), np.int32, sharding=batch_sharding(mesh))
    causal = spec["family"] == "gpt"
    batch = LanguageBatch(ids, ids) if causal else Seq2SeqBatch(ids, ids, ids)
    example = jax.tree.map(lambda _: np.ones((1, 2), np.int32), batch)

    def loss(params: Any, batch: Any, key: jax.Array) -> Any:
        readout = model.apply({"params": params}, batch, train=True, rngs={"dropout": key}).readout
        return cross_entropy(readout, batch.labels, spec["smoothing"], -1 if causal else 0)

    rule = optimizer(OptimizerConfig(peak=1e-4, clip=1.0), model.config.width, 1000)
    shapes, _ = born(lambda key: model.init(key, example)["params"], rule, mesh, 0, False)
    return make_step(loss, rule, mesh, shapes).lower(shapes, batch), parameter_count(shapes.params)


def main(spec: dict[str, Any], directory: Path) -> None:
    jax.config.update("jax_platforms", "cpu")  # no plugin is to look for devices
    from jax.experimental import topologies

    devices = list(topologies.get_topology_desc(**spec["devices"]).devices)[:1]
    step, parameters = lowered(spec, devices)
    began = time.perf_counter()
    dumps = {"xla_dump_to": str(directory / "dumps"), "xla_dump_hlo_as_text": True}
    program = step.compile(compiler_options=spec["options"] | dumps)
    seconds = time.perf_counter() - began
    (text,) = (directory / "dumps").glob("*after_optimizations.txt")
    text.rename(directory / "program.txt")
    stats = program.memory_analysis()
    kept = {"arguments": stats.argument_size_in_bytes, "temporaries": stats.temp_size_in_bytes}
    found = kept | {"parameters": parameters, "compile_seconds": seconds}
    (directory / "memory.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))
