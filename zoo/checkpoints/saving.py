"""Save while training continues, and restore what was saved."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from etils import epath
from grain.checkpoint import CheckpointSave
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from zoo.checkpoints.finding import kept_steps, newest_whole, set_aside, steps_of, whole_steps
from zoo.checkpoints.parameters import check_fit, saved_tree
from zoo.checkpoints.sealing import seal
from zoo.errors import UserError
from zoo.storage import absolute


def _not_from_libraries(record: logging.LogRecord) -> bool:
    return not any(f"/{library}/" in record.pathname for library in ("orbax", "grain"))


# Both log every save through absl's logger, and raise whatever they log as an error: the user should see it once.
absl_logging.get_absl_logger().addFilter(_not_from_libraries)


# Files of a working directory that give the outputs of the parameters their meaning: each checkpoint has a copy.
WITH_PARAMETERS = ("labels.json",)


class Checkpoints:
    """The checkpoints of a working directory: `checkpoints/<step>/` (the latest `keep`) and `best/<step>/` (one).

    Every process of a run makes one and calls the same methods in the same order. The constructor removes what a killed
    save left behind, so two runs must not share a directory.
    """

    def __init__(self, workdir: str | PathLike, keep: int = 3):
        self.workdir = absolute(workdir)
        self.directory = self.workdir / "checkpoints"
        self._manager = _SealedManager(self.directory, keep)

    def save(self, step: int, state: PyTree, data: grain.DatasetIterator | None, progress: dict[str, Any]) -> None:
        """Copy `state` (a tree of possibly sharded arrays) to the host and write it while training continues.

        The position of the iterator `data` and `progress` (JSON) go into the same checkpoint. A step that exists is
        left as it is. Waits for the previous save.

        Raises UserError if this or the previous save found no space left; the last checkpoint is then still there.
        """
        items = {"state": ocp.args.StandardSave(state), "progress": ocp.args.JsonSave(progress)}
        if data is not None:
            items["data"] = CheckpointSave(data)
        self._manager.save(step, items)

    def restore(self, like: PyTree, data: grain.DatasetIterator | None) -> tuple[int, PyTree, dict[str, Any]] | None:
        """The newest undamaged checkpoint as (step, state, progress), or None if there is no checkpoint.

        `like` (arrays, or `jax.ShapeDtypeStruct` with shardings) gives structure, shapes, types and shardings, on any
        mesh. `data` is moved to its saved position, whatever the number of processes. A damaged checkpoint is logged
        and renamed to `<step>.broken`, so that it neither counts among those to keep nor blocks the same step.

        Raises UserError if all are damaged, or if the parameters differ in shape from those of `like`.
        """
        self.wait()
        steps = steps_of(self.directory)
        if not steps:
            return None
        step = newest_whole(self.directory, steps)
        if jax.process_index() == 0:
            for broken in (s for s in steps if s > step):
                set_aside(self.directory / str(broken), "broken")
        multihost_utils.sync_global_devices("zoo.checkpoints.restore")
        self._manager.reload()
        path = self.directory / str(step)
        check_fit(path, saved_tree(path), like)
        items = {"state": ocp.args.StandardRestore(like), "progress": ocp.args.JsonRestore()}
        restored = self._manager.restore(step, items)
        if data is not None:
            data.set_state(json.loads(_position(path).read_text()))
            data.start_prefetch()
        return step, restored.state, restored.progress

    def save_best(self, step: int, params: PyTree, metrics: dict[str, Any]) -> None:
        """Replace `best/` by these parameters. Returns when they are written; until then the old best is there."""
        save_parameters(self.workdir / "best", step, params, metrics)

    def steps(self) -> list[int]:
        """The steps of the checkpoints whose files are all there, ascending."""
        return kept_steps(self.workdir)

    def check(self) -> None:
        """Raise the error of a pending save that has failed already; UserError if it found no space left."""
        self._manager.check()

    def wait(self) -> None:
        """Wait until the pending save is on disk. Raises UserError if it found no space left."""
        self._manager.wait()

    def close(self) -> None:
        """`wait`, and end the threads of Orbax."""
        self._manager.close()


def save_parameters(directory: str | PathLike, step: int, params: PyTree, metrics: dict[str, Any]) -> None:
    """Make `directory/<step>/` the only checkpoint there, with just `params`, and `metrics` as its progress.

    Returns when it is written; at any moment a reader finds the old or the new one. Raises UserError on a full disk.
    """
    directory = absolute(directory)
    same_step = directory / str(step)
    if jax.process_index() == 0 and same_step.exists():
        set_aside(same_step, "previous")
    multihost_utils.sync_global_devices("zoo.checkpoints.save_parameters")
    manager = _SealedManager(directory, keep=1)
    manager.save(step, {"state": ocp.args.StandardSave({"params": params}), "progress": ocp.args.JsonSave(metrics)})
    manager.close()
    if jax.process_index() == 0:
        for previous in directory.glob("*.previous*"):
            previous.rmtree()


class _SealedManager:
    """An `ocp.CheckpointManager` that seals each checkpoint just before it appears, and reports a full disk."""

    def __init__(self, directory: epath.Path, keep: int):
        self.directory = directory
        self._saving = None
        with self._out_of_space():
            self._orbax = ocp.CheckpointManager(
                directory,
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=ocp.checkpoint_managers.LatestN(keep),
                    cleanup_tmp_directories=True,
                    async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
                ),
            )
        self.reload = self._orbax.reload

    def save(self, step: int, items: dict[str, ocp.args.CheckpointArgs]) -> None:
        self.wait()
        if step in self._orbax.all_steps():
            return
        self._saving = step
        with self._out_of_space():
            self._orbax.save(step, args=ocp.args.Composite(**items), force=True)

    def restore(self, step: int, items: dict[str, ocp.args.CheckpointArgs]) -> ocp.args.Composite:
        return self._orbax.restore(step, args=ocp.args.Composite(**items))

    def wait(self) -> None:
        with self._out_of_space():
            self._orbax.wait_until_finished()

    def check(self) -> None:
        with self._out_of_space():
            self._orbax.check_for_errors()

    def close(self) -> None:
        with self._out_of_space():
            self._orbax.close()

    def _seal(self) -> None:
        """Orbax calls this in its thread of process 0, after the last byte and before the rename that commits."""
        unfinished = self.directory.glob(f"{self._saving}.orbax-checkpoint-tmp*")
        # Object stores cannot rename: there Orbax writes in place and commits by one last file.
        directory = next(unfinished, self.directory / str(self._saving))
        for name in WITH_PARAMETERS:
            if (source := self.directory.parent / name).exists():
                (directory / name).write_bytes(source.read_bytes())
        seal(directory)

    @contextmanager
    def _out_of_space(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # An OSError, or the storage library's ValueError around its text.
            if not any(reason in str(error) for reason in ("No space left on device", "Disk quota exceeded")):
                raise
            steps = whole_steps(self.directory)
            begins = f"it goes on from step {steps[-1]}" if steps else "it starts over, since no checkpoint was saved"
            raise UserError(
                f"no space left in {self.directory}: free some and run the same command again; {begins}"
            ) from error


def _position(path: epath.Path) -> epath.Path:
    """The file with this process's position in the data. If another number of processes saved it, that of the first: a
    position counts global batches."""
    process, count = jax.process_index(), jax.process_count()
    own = path / "data" / f"process_{process}-of-{count}.json"
    found = own if own.exists() else next((path / "data").glob("process_0-of-*.json"), None)
    if found is None:
        raise UserError(f"{path} holds no position in the data for process {process} of {count}: train again")
    return found
