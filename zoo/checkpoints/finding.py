"""Find the checkpoints of a directory, and the one that a name stands for."""

import itertools
import logging
import shlex
from os import PathLike

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from zoo.checkpoints.sealing import defect, missing
from zoo.errors import UserError
from zoo.storage import absolute

log = logging.getLogger("zoo")


def kept_steps(workdir: str | PathLike) -> list[int]:
    """The steps of the training checkpoints of `workdir` whose files are all there, ascending. Changes nothing, so it
    is safe while a run writes there."""
    return whole_steps(absolute(workdir) / "checkpoints")


def whole_steps(directory: epath.Path) -> list[int]:
    """The steps of the checkpoints in `directory` whose files are all there, ascending."""
    return [step for step in steps_of(directory) if missing(directory / str(step)) is None]


def steps_of(directory: epath.Path) -> list[int]:
    """The steps of committed checkpoints, ascending."""
    return sorted(ocp.utils.checkpoint_steps(directory))


def find(workdir: epath.Path, which: str) -> tuple[int, epath.Path]:
    """The step and the path of the whole checkpoint that `which` names; see `load_parameters`."""
    if which not in ("best", "latest", "average") and not which.isdecimal():
        raise UserError(f"no checkpoint is called {which!r}: use best, latest, average or the number of a step")
    directory = workdir / (which if which in ("best", "average") else "checkpoints")
    steps = steps_of(directory)
    if which in ("best", "average") and not steps:
        # `save_parameters` may just be replacing a checkpoint by another of the same step.
        for path in directory.glob("*.previous*"):
            return int(path.name.split(".")[0]), path
    if which == "best" and not steps:
        return find(workdir, "latest")
    if which == "average" and not steps:
        place = shlex.quote(str(workdir))
        raise UserError(f"{workdir} holds no average: make one with `python -m zoo average --last 5 {place}`")
    if not steps:
        raise UserError(
            f"no checkpoint in {directory}: train one with `train.py --workdir={shlex.quote(str(workdir))}`"
        )
    if not which.isdecimal():
        step = newest_whole(directory, steps)
        return step, directory / str(step)
    if int(which) not in steps:
        raise UserError(f"no checkpoint of step {which} in {directory}; there are: {', '.join(map(str, steps))}")
    path = directory / which
    if reason := defect(path):
        raise UserError(f"{path} is damaged: {reason}; restore a copy of it or choose another step")
    return int(which), path


def newest_whole(directory: epath.Path, steps: list[int]) -> int:
    """The newest undamaged checkpoint of `steps`, the same on all processes. Raises UserError if there is none."""
    whole = None
    if jax.process_index() == 0:
        reasons = ((step, defect(directory / str(step))) for step in reversed(steps))
        for step, reason in reasons:
            if reason is None:
                whole = step
                break
            log.warning("%s is damaged: %s; trying the one before it", directory / str(step), reason)
    whole = int(multihost_utils.broadcast_one_to_all(np.int64(-1 if whole is None else whole)))
    if whole < 0:
        raise UserError(
            f"every checkpoint in {directory} is damaged, the newest is {directory / str(steps[-1])}: "
            f"restore a copy of it, or delete {directory} to start over"
        )
    return whole


def set_aside(path: epath.Path, suffix: str) -> None:
    """Rename to `<name>.<suffix>`, or to `<name>.<suffix>-2` and so on if that exists."""
    names = (f"{path.name}.{suffix}" + (f"-{n}" if n > 1 else "") for n in itertools.count(1))
    path.rename(next(target for name in names if not (target := path.parent / name).exists()))
