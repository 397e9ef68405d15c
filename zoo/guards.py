"""Guards of working directories: each holds one experiment, and nothing else is ever overwritten."""

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from zoo.errors import UserError
from zoo.experiment import Experiment, from_workdir
from zoo.locks import LOCK
from zoo.storage import AnyPath, reached, remove, write_whole

# What may change when a run resumes: how long, how often, where; not what is computed. A final dot means all keys
# below.
FREE = (
    "data.cache",
    "data.path",
    "data.vocabulary_files",
    "decoding.",
    "mesh.",
    "plugins.",
    "train.average_last",
    "train.checkpoint_every",
    "train.compile_ahead",
    "train.epochs",
    "train.evaluate_epochs",
    "train.evaluate_every",
    "train.keep",
    "train.log_every",
    "train.patience",
    "train.profile_at",
    "train.rollbacks",
    "train.spike",
    "train.steps",
    "train.steps_per_call",
    "train.stuck_after",
    "train.wandb",
)


@contextmanager
def starting(workdir: AnyPath, experiment: Experiment) -> Iterator[None]:
    """`open_workdir`, around everything that may fail before the first step: if it does, a new directory is removed
    again, and an old one keeps its config."""
    new, existed = _is_new(workdir, experiment), workdir.exists()
    if new:
        open_workdir(workdir, experiment)
    try:
        yield
    except (UserError, OSError):
        if new:
            for path in workdir.iterdir() if existed else (workdir,):
                if path.name != LOCK:  # `alone_in` holds it until this run has ended
                    remove(path)
        raise
    open_workdir(workdir, experiment)


def open_workdir(workdir: AnyPath, experiment: Experiment) -> None:
    """Make `workdir`, or check that the same experiment made it; then write `config.json` of this run."""
    _is_new(workdir, experiment)
    path = workdir / "config.json"
    with reached(path):
        write_whole(path, (json.dumps(experiment.as_dict(), indent=2) + "\n").encode())


def _is_new(workdir: AnyPath, experiment: Experiment) -> bool:
    """Whether `workdir` is new. Raises `UserError` if it holds another experiment, or anything else."""
    if (workdir / "config.json").exists():
        changed = differences(from_workdir(workdir).as_dict(), experiment.as_dict())
        if changed:
            raise UserError(
                f"{workdir} holds another experiment ({'; '.join(changed)}): choose another --workdir, or go on with "
                f"its own config: python train.py --workdir={shlex.quote(str(workdir))}"
            )
        return False
    if workdir.is_dir() and any(path.name != LOCK for path in workdir.iterdir()):
        raise UserError(f"{workdir} is not empty and no working directory: choose another --workdir")
    return True


def differences(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> list[str]:
    """What makes `new` another experiment than `old`, without the keys that are free to change."""
    found = []
    for key in sorted({*old, *new}):
        name, a, b = f"{path}{key}", old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{name}.")
        elif a != b and not any(f"{name}.".startswith(free if free.endswith(".") else f"{free}.") for free in FREE):
            found.append(f"{name} was {a!r}, now {b!r}")
    return found
