"""What checkpoints cost: the time that saving takes from training, and the time to restore one of full size.

The first row trains GPT nano on the embedded text with the loop of `train`. Steps are timed in stretches; every other
stretch begins with a checkpoint, which is written while the steps go on. `blocked` is the share of such a stretch that
the loop waits in `save`, `slowdown` is how much longer it takes than a stretch without. The second row restores GPT-1's
parameters with Adam's moments from this machine's disk, verified as always, with cold files.
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
        return Costs([saving(arguments, Path(directory) / "nano"), restoring(arguments.full, Path(directory) / "full")])


def saving(arguments: argparse.Namespace, workdir: Path) -> dict[str, Any]:
    """Stretches of steps with a checkpoint and without, in turn; what comes before the first compiles."""
    every, stretches = arguments.every, 2 * arguments.saves
    changes = {"train.steps": str(every * (stretches + 1)), "train.checkpoint_every": str(2 * every)}
    experiment = _experiment(arguments.nano, changes)
    task = experiment.make_task(workdir)
    task.prepare()
    model, mesh = registry.of(experiment.model_config(task, "float32")), make_mesh(experiment.mesh)
    training = Training(task, model, experiment.train, experiment.optimizer, mesh, 0)
    without, with_one, saves = map(statistics.median, timed_stretches(training, every))
    return {
        "system": f"gpt/{arguments.nano}, a checkpoint every {every} steps",
        "parameters": parameter_count(training.shapes.params),
        "step_seconds": without / every,
        "save_seconds": saves,
        "blocked": saves / with_one,
        "slowdown": with_one / without - 1,
    }


def timed_stretches(training: Training, every: int) -> tuple[list[float], list[float], list[float]]:
    """The seconds of the stretches without a checkpoint, of those with one, and of the `save` in each of these."""
    began, saves, step, save = [], [], training.step, training.checkpoints.save

    def stamped(*operands: Any) -> Any:
        began.append(time.perf_counter())
        return step(*operands)

    def waited(*operands: Any) -> None:
        saves.append(_seconds(lambda: save(*operands)))

    training.step, training.checkpoints.save = stamped, waited
    training.run({})
    # A save comes after its step, so a stretch is from the beginning of a last step to that of another.
    starts = range(every - 1, len(began) - every, every)
    seconds = [began[start + every] - began[start] for start in starts]
    return seconds[::2], seconds[1::2], saves[:-1]


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
