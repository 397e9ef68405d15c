"""Orbax in one place: the checkpoints of a working directory, each sealed with checksums of its files.

    checkpoints/<step>/   the latest few, written while training goes on: state, position in the data, progress
    best/<step>/          the one with the best score, parameters only
    average/<step>/       the mean of several, parameters only

Each `<step>/` is an ordinary Orbax checkpoint with one more file, `checksums.json`. Orbax makes a checkpoint appear
whole or not at all; what happens to its bytes afterwards (a truncated copy, a bad disk) neither Orbax nor its storage
notices in every case, and an altered weight is worse than a lost one. So nothing is read that its seal does not match.
"""

import itertools
import json
import logging
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from os import PathLike
from typing import Any

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from etils import epath
from grain.checkpoint import CheckpointSave
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from zoo.errors import UserError
from zoo.storage import absolute

log = logging.getLogger("zoo")

_SEAL = "checksums.json"
# Orbax writes these two after the seal; they hold times, and nothing that is restored.
_UNSEALED = {_SEAL, "_CHECKPOINT_METADATA", "commit_success.txt"}
_CHUNK_BYTES = 1 << 24


def _not_from_libraries(record: logging.LogRecord) -> bool:
    return not any(f"/{library}/" in record.pathname for library in ("orbax", "grain"))


# Both narrate every save through absl's logger, and raise whatever they log as an error: the reader gets that once.
absl_logging.get_absl_logger().addFilter(_not_from_libraries)


class Checkpoints:
    """The checkpoints of a working directory: `checkpoints/<step>/` (the latest `keep`) and `best/<step>/` (one).

    Every process of a run makes one and calls the same methods in the same order. Remains of a save that was killed
    are removed on construction, so two runs must not share a directory.
    """

    def __init__(self, workdir: str | PathLike, keep: int = 3):
        self.workdir = absolute(workdir)
        self.directory = self.workdir / "checkpoints"
        self._manager = _SealedManager(self.directory, keep)

    def save(self, step: int, state: PyTree, data: grain.DatasetIterator | None, progress: dict[str, Any]) -> None:
        """Copy `state` (a tree of possibly sharded arrays) to the host and write it while training goes on.

        The position of the iterator `data` and `progress` (JSON) go into the same checkpoint. A step that is there
        already is left as it is. Waits for the previous save.

        Raises UserError when this or the previous save found no space left; the last checkpoint is then still there.
        """
        items = {"state": ocp.args.StandardSave(state), "progress": ocp.args.JsonSave(progress)}
        if data is not None:
            items["data"] = CheckpointSave(data)
        self._manager.save(step, items)

    def restore(self, like: PyTree, data: grain.DatasetIterator | None) -> tuple[int, PyTree, dict[str, Any]] | None:
        """The newest whole checkpoint as (step, state, progress), or None when there is none at all.

        `like` (arrays, or `jax.ShapeDtypeStruct` with shardings) gives structure, shapes, types and shardings, on any
        mesh. `data` is moved to its saved position, whatever the number of processes. A checkpoint that is not whole is
        logged and set aside as `<step>.broken`, so that it neither counts among those to keep nor stands in the way of
        the same step.

        Raises UserError when none is whole, or when the parameters differ in shape from those of `like`.
        """
        self.wait()
        steps = _steps(self.directory)
        if not steps:
            return None
        step = _newest_whole(self.directory, steps)
        if jax.process_index() == 0:
            for broken in (s for s in steps if s > step):
                _set_aside(self.directory / str(broken), "broken")
        multihost_utils.sync_global_devices("zoo.checkpoints.restore")
        self._manager.reload()
        path = self.directory / str(step)
        _check_fit(path, _saved_tree(path), like)
        items = {"state": ocp.args.StandardRestore(like), "progress": ocp.args.JsonRestore()}
        restored = self._manager.restore(step, items)
        if data is not None:
            data.set_state(json.loads(_position(path).read_text()))
            data.start_prefetch()
        return step, restored.state, restored.progress

    def save_best(self, step: int, params: PyTree, metrics: dict[str, Any]) -> None:
        """Replace `best/` by these parameters. Returns when they are written; until then the old best stands."""
        save_parameters(self.workdir / "best", step, params, metrics)

    def steps(self) -> list[int]:
        """The steps of the checkpoints whose files are all there, ascending."""
        return kept_steps(self.workdir)

    def wait(self) -> None:
        """Return when the save under way is on disk. Raises UserError when it found no space left."""
        self._manager.wait()

    def close(self) -> None:
        """`wait`, and end the threads of Orbax."""
        self._manager.close()


def kept_steps(workdir: str | PathLike) -> list[int]:
    """The steps of the training checkpoints of `workdir` whose files are all there, ascending. Touches nothing, so it
    may be asked while a run is writing there."""
    directory = absolute(workdir) / "checkpoints"
    return [step for step in _steps(directory) if _missing(directory / str(step)) is None]


def save_parameters(directory: str | PathLike, step: int, params: PyTree, metrics: dict[str, Any]) -> None:
    """Make `directory/<step>/` the one checkpoint there: `params` alone, and `metrics` as its progress.

    Returns when it is written; a reader finds the old or the new one at any moment. Raises UserError on a full disk.
    """
    directory = absolute(directory)
    same_step = directory / str(step)
    if jax.process_index() == 0 and same_step.exists():
        _set_aside(same_step, "previous")
    multihost_utils.sync_global_devices("zoo.checkpoints.save_parameters")
    manager = _SealedManager(directory, keep=1)
    manager.save(step, {"state": ocp.args.StandardSave({"params": params}), "progress": ocp.args.JsonSave(metrics)})
    manager.close()
    if jax.process_index() == 0:
        for previous in directory.glob("*.previous*"):
            previous.rmtree()


def load_parameters(workdir: str | PathLike, which: str = "best", like: PyTree | None = None) -> tuple[int, PyTree]:
    """The parameters of a checkpoint as (step, params); the optimizer's state is not read.

    `which` is "best" (the latest when there is no best), "latest", "average" or the number of a step. They come as
    host arrays, or with the shapes, types and shardings of `like`.

    Raises UserError when there is no such checkpoint, when it is not whole, or when its shapes are not those of `like`.
    """
    workdir = absolute(workdir)
    step, path = _find(workdir, which)
    if like is not None:
        _check_fit(path, {"params": _saved_tree(path)["params"]}, {"params": like})
    return step, _read_parameters(path, like)


def saved_parameters(workdir: str | PathLike, which: str = "best") -> PyTree:
    """The names and shapes of what `load_parameters` would read, without its arrays; raises as it does."""
    return _saved_tree(_find(absolute(workdir), which)[1])["params"]


def average_parameters(workdir: str | PathLike, steps: list[int]) -> PyTree:
    """The mean of the parameters at `steps`, as host arrays of the saved types; summed in float64, one at a time."""
    total, types = None, None
    for step in steps:
        _, params = load_parameters(workdir, str(step))
        types = jax.tree.map(lambda leaf: leaf.dtype, params)
        addend = jax.tree.map(lambda leaf: leaf.astype(np.float64), params)
        total = addend if total is None else jax.tree.map(np.add, total, addend)
    return jax.tree.map(lambda leaf, dtype: (leaf / len(steps)).astype(dtype), total, types)


class _SealedManager:
    """An `ocp.CheckpointManager` that seals each checkpoint just before it appears, and says when a disk is full."""

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

    def close(self) -> None:
        with self._out_of_space():
            self._orbax.close()

    def _seal(self) -> None:
        """Called by Orbax in its thread of process 0, between the last byte and the renaming that commits."""
        unfinished = self.directory.glob(f"{self._saving}.orbax-checkpoint-tmp*")
        # Object stores cannot rename: there Orbax writes in place and commits by one last file.
        directory = next(unfinished, self.directory / str(self._saving))
        with ThreadPoolExecutor() as pool:
            names = _files(directory)
            facts = pool.map(lambda name: _size_and_checksum(directory / name), names)
            (directory / _SEAL).write_text(json.dumps(dict(zip(names, facts, strict=True))))

    @contextmanager
    def _out_of_space(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # An OSError, or the storage library's ValueError around its text.
            if not any(reason in str(error) for reason in ("No space left on device", "Disk quota exceeded")):
                raise
            raise UserError(
                f"no space left in {self.directory}; free some and run the same command again: "
                "it goes on from the last checkpoint"
            ) from error


def _steps(directory: epath.Path) -> list[int]:
    """The steps of committed checkpoints, ascending."""
    return sorted(ocp.utils.checkpoint_steps(directory))


def _find(workdir: epath.Path, which: str) -> tuple[int, epath.Path]:
    """The step and the path of the whole checkpoint that `which` names; see `load_parameters`."""
    if which not in ("best", "latest", "average") and not which.isdecimal():
        raise UserError(f"no checkpoint is called {which!r}: use best, latest, average or the number of a step")
    directory = workdir / (which if which in ("best", "average") else "checkpoints")
    steps = _steps(directory)
    if which in ("best", "average") and not steps:
        # The moment in which `save_parameters` replaces a checkpoint by another of the same step.
        for path in directory.glob("*.previous*"):
            return int(path.name.split(".")[0]), path
    if which == "best" and not steps:
        return _find(workdir, "latest")
    if not steps:
        raise UserError(f"no checkpoint in {directory}: train one with `train.py --workdir={workdir}`")
    if not which.isdecimal():
        step = _newest_whole(directory, steps)
        return step, directory / str(step)
    if int(which) not in steps:
        raise UserError(f"no checkpoint of step {which} in {directory}; there are: {', '.join(map(str, steps))}")
    path = directory / which
    if reason := _defect(path):
        raise UserError(f"{path} is not whole: {reason}; restore a copy of it or choose another step")
    return int(which), path


def _newest_whole(directory: epath.Path, steps: list[int]) -> int:
    """The newest of `steps` that is as it was written, on all processes. Raises UserError when none is."""
    whole = None
    if jax.process_index() == 0:
        reasons = ((step, _defect(directory / str(step))) for step in reversed(steps))
        for step, reason in reasons:
            if reason is None:
                whole = step
                break
            log.warning("%s is not whole: %s; trying the one before it", directory / str(step), reason)
    whole = int(multihost_utils.broadcast_one_to_all(np.int64(-1 if whole is None else whole)))
    if whole < 0:
        raise UserError(
            f"no checkpoint in {directory} is whole, the newest is {directory / str(steps[-1])}: "
            f"restore a copy of it, or delete {directory} to start over"
        )
    return whole


def _set_aside(path: epath.Path, suffix: str) -> None:
    """Rename to `<name>.<suffix>`, or to `<name>.<suffix>-2` and so on where that is taken."""
    names = (f"{path.name}.{suffix}" + (f"-{n}" if n > 1 else "") for n in itertools.count(1))
    path.rename(next(target for name in names if not (target := path.parent / name).exists()))


def _files(directory: epath.Path) -> list[str]:
    """The files under `directory` that a seal covers, as relative paths."""
    walked = list(directory.walk())
    top = walked[0][0]  # in a store, without its gs://
    relative = (str(root.relative_to(top) / name) for root, _, names in walked for name in names if name)
    return sorted(name for name in relative if name not in _UNSEALED)


def _size_and_checksum(path: epath.Path) -> tuple[int, int]:
    """Bytes and CRC-32 of a file."""
    size, checksum = 0, 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            size, checksum = size + len(chunk), zlib.crc32(chunk, checksum)
    return size, checksum


def _sealed(directory: epath.Path) -> dict[str, list[int]] | None:
    """What `checksums.json` says: {file: [bytes, CRC-32]}; None when it is absent or unreadable."""
    try:
        return json.loads((directory / _SEAL).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def _missing(directory: epath.Path) -> str | None:
    """The first file that is gone or of another length, in words; None when all are there."""
    sealed = _sealed(directory)
    if sealed is None:
        return f"its {_SEAL} is missing or damaged"
    for name, (size, _) in sealed.items():
        path = directory / name
        if not path.exists():
            return f"{name} is missing"
        if (length := path.stat().length) != size:
            return f"{name} has {length:,} of {size:,} bytes"
    return None


def _defect(directory: epath.Path) -> str | None:
    """Why the checkpoint is not as it was written, in words; None when it is, byte for byte."""
    if reason := _missing(directory):
        return reason
    sealed = _sealed(directory)
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda name: _size_and_checksum(directory / name), sealed)
        altered = [name for name, facts in zip(sealed, found, strict=True) if list(facts) != sealed[name]]
    return f"the bytes of {altered[0]} have changed" if altered else None


def _saved_tree(path: epath.Path) -> PyTree:
    """Names and shapes of what a checkpoint holds, without its arrays."""
    return ocp.PyTreeCheckpointHandler().metadata(path / "state").tree


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    """{path: shape} of the arrays of a tree; a typed random key counts as the integers that it is saved as."""

    def shape(leaf: Any) -> tuple[int, ...]:
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.eval_shape(jax.random.key_data, leaf).shape
        return tuple(leaf.shape)

    flat = ocp.tree.to_flat_dict(tree, sep="/")
    return {name: shape(leaf) for name, leaf in flat.items() if hasattr(leaf, "shape")}


def _check_fit(path: epath.Path, saved: PyTree, like: PyTree) -> None:
    """Raise UserError, naming parameters first, when `saved` at `path` has not the arrays and shapes of `like`."""
    there, here = _shapes(saved), _shapes(like)
    differing = sorted(
        (name for name in there.keys() | here.keys() if there.get(name) != here.get(name)),
        key=lambda name: (not name.startswith("params/"), name),
    )
    if not differing:
        return
    shown = "; ".join(f"{n} is {there.get(n, 'absent')} there, {here.get(n, 'absent')} here" for n in differing[:3])
    more = f" (and {len(differing) - 3} more)" if len(differing) > 3 else ""
    raise UserError(f"{path} is of another model: {shown}{more}; use its config, or another working directory")


def _position(path: epath.Path) -> epath.Path:
    """Where this process's position in the data is. Another number of processes than saved it reads on from that of
    the first: a position counts global batches."""
    process, count = jax.process_index(), jax.process_count()
    own = path / "data" / f"process_{process}-of-{count}.json"
    found = own if own.exists() else next((path / "data").glob("process_0-of-*.json"), None)
    if found is None:
        raise UserError(f"{path} holds no position in the data for process {process} of {count}: train again")
    return found


def _read_parameters(path: epath.Path, like: PyTree | None) -> PyTree:
    if like is None:
        wanted = {"params": _saved_tree(path)["params"]}
        restore_args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    else:
        wanted = {"params": like}
        restore_args = ocp.checkpoint_utils.construct_restore_args(wanted)
    args = ocp.args.PyTreeRestore(item=wanted, restore_args=restore_args, partial_restore=True)
    return ocp.PyTreeCheckpointHandler().restore(path / "state", args=args)["params"]
