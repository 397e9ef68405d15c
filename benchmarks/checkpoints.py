"""What checkpoints cost: the time that saving takes from the steps, and the time to go on from one of full size.

The first row trains GPT nano on the embedded text twice, with a checkpoint every so many steps and without any, through
the loop that `train` runs: `blocked` is the share of the time for which it waits in `save`, `slowdown` by how much a
stretch of steps with a checkpoint is longer than one without. The second restores the parameters of GPT-1 with Adam's
moments from this machine's disk, verified as always, its files not in memory.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax

from zoo.checkpoints import Checkpoints
from zoo.experiment import Experiment, from_file
from zoo.models import registry
from zoo.parallel.mesh import make_mesh
from zoo.parallel.rules import parameter_count
from zoo.training.loop import Training, update
from zoo.training.step import TrainState

NEVER = str(10**9)
DATA = {"data.test": "", "train.evaluation_size": "16", "train.evaluate_every": NEVER, "train.log_every": NEVER}


@dataclass(frozen=True)
class Costs:
    """One row for saving, one for restoring."""

    rows: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
        return {"name": "checkpoints", "device": device, "rows": self.rows, "ceiling": {}}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--every", type=int, default=50, help="steps between two checkpoints (default: 50)")
    parser.add_argument("--saves", type=int, default=3, help="checkpoints that are timed (default: 3)")
    parser.add_argument("--nano", default="nano", help="size of the GPT that is trained (default: nano)")
    parser.add_argument("--full", default="gpt1", help="size of the GPT that is restored (default: gpt1)")


def run(arguments: argparse.Namespace) -> Costs:
    with tempfile.TemporaryDirectory() as directory:
        return Costs([saving(arguments, Path(directory)), restoring(arguments.full, Path(directory) / "full")])


def saving(arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """A run with checkpoints beside one without."""
    steps, every = arguments.every * (arguments.saves + 1), arguments.every
    with_them = timed_run(arguments.nano, directory / "saving", steps, every)
    without = timed_run(arguments.nano, directory / "not", steps, int(NEVER))
    stretches = [statistics.median(_stretches(stamps, every)) for stamps in (with_them.began, without.began)]
    return {
        "system": f"gpt/{arguments.nano}, a checkpoint every {every} steps",
        "parameters": with_them.parameters,
        "step_seconds": stretches[1] / every,
        "save_seconds": statistics.median(with_them.saves),
        "blocked": statistics.median(with_them.saves) / stretches[0],
        "slowdown": stretches[0] / stretches[1] - 1,
    }


@dataclass(frozen=True)
class Timed:
    """When the steps of a run began, and the seconds that the loop waited in each `save` but the last."""

    began: list[float]
    saves: list[float]
    parameters: int


def timed_run(size: str, workdir: Path, steps: int, every: int) -> Timed:
    experiment = _experiment(size, {"train.steps": str(steps), "train.checkpoint_every": str(every)})
    task = experiment.make_task(workdir)
    task.prepare()
    model, mesh = registry.of(experiment.model_config(task, "float32")), make_mesh(experiment.mesh)
    training = Training(task, model, experiment.train, experiment.optimizer, mesh, 0)
    began, saves, step, save = [], [], training.step, training.checkpoints.save

    def stamped(*operands: Any) -> Any:
        began.append(time.perf_counter())
        return step(*operands)

    def waited(*operands: Any) -> None:
        start = time.perf_counter()
        save(*operands)
        saves.append(time.perf_counter() - start)

    training.step, training.checkpoints.save = stamped, waited
    training.run({})
    return Timed(began, saves[:-1], parameter_count(training.shapes.params))


def _stretches(began: list[float], every: int) -> list[float]:
    """The seconds of each stretch of so many steps with what follows its last; the first stretch compiles."""
    return [began[end] - began[end - every] for end in range(2 * every, len(began), every)]


def restoring(size: str, workdir: Path) -> dict[str, Any]:
    """A checkpoint of a model and its optimizer, written and read back."""
    experiment = _experiment(size, {})
    task = experiment.make_task(workdir)
    model = registry.of(experiment.model.config(dtype="float32", vocabulary=experiment.data.vocabulary))
    shapes, fresh, _ = update(task, model, experiment.train, experiment.optimizer, make_mesh(experiment.mesh), 0)
    checkpoints = Checkpoints(workdir)
    state = jax.block_until_ready(_as_trained(fresh()))
    blocked = _seconds(lambda: checkpoints.save(1, state, None, {}))
    written = blocked + _seconds(checkpoints.wait)
    checkpoints.close()
    del state
    size_bytes = _forget(workdir)
    reader = Checkpoints(workdir)
    return {
        "system": f"gpt/{size} with Adam's moments",
        "parameters": parameter_count(shapes.params),
        "bytes": size_bytes,
        "save_seconds": blocked,
        "written_seconds": written,
        "restore_seconds": _seconds(lambda: jax.block_until_ready(reader.restore(shapes, None)[1])),
    }


def _as_trained(state: TrainState) -> TrainState:
    """With noise for Adam's moments, since nothing but zeros would be compressed to nothing."""

    def noise(leaf: jax.Array) -> jax.Array:
        return jax.random.normal(jax.random.key(leaf.size), leaf.shape, leaf.dtype) if leaf.ndim else leaf

    return replace(state, optimizer=jax.tree.map(noise, state.optimizer))


def _experiment(size: str, changes: dict[str, str]) -> Experiment:
    return from_file(f"gpt.py:{size}", tuple((DATA | changes).items()))


def _seconds(action: Callable[[], Any]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _forget(directory: Path) -> int:
    """Have the files read from disk again; gives their bytes."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return sum(path.stat().st_size for path in files)
