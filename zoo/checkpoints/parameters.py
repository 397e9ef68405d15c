"""Read the parameters of a checkpoint alone, and average those of several.

One rule: the parameters of a checkpoint are those that training evaluates at its step. That is the moving average if
there is one (`optimizer.ema`), else what the optimizer updates. Loading, scoring and averaging all read them here.
"""

import json
from collections.abc import Callable
from os import PathLike
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jaxtyping import PyTree

from zoo.checkpoints.finding import find, steps_of
from zoo.errors import UserError
from zoo.storage import absolute


def load_parameters(
    workdir: str | PathLike,
    which: str = "best",
    like: PyTree | None = None,
    only: Callable[[str], bool] = lambda path: True,
) -> tuple[int, PyTree]:
    """The parameters of a checkpoint as (step, params); the optimizer's state is not read.

    `which` is "best" (the latest when there is no best), "latest", "average" or the number of a step. They are host
    arrays, or have the shapes, types and shardings of `like`. If `like` is only a part of the parameters, `only` tells
    whether a path belongs to it.

    Raises UserError if there is no such checkpoint, if it is damaged, or if its shapes differ from those of `like`.
    """
    workdir = absolute(workdir)
    step, path = find(workdir, which)
    if like is not None:
        saved = ocp.tree.to_flat_dict({"params": saved_tree(path)["params"]}, sep="/")
        part = {name: leaf for name, leaf in saved.items() if only(name.removeprefix("params/"))}
        check_fit(path, part, {"params": like})
    return step, _read_parameters(path, like)


def load_optimizer(workdir: str | PathLike, which: str, like: PyTree) -> PyTree:
    """The state of the optimizer in a checkpoint of training, with the structure, shapes and shardings of `like`, which
    may be a part of it.

    Raises UserError if there is none, as in `best` and `average`, or if it belongs to another optimizer.
    """
    _, path = find(absolute(workdir), which)
    tree = saved_tree(path)
    if "optimizer" not in tree:
        raise UserError(
            f"{path} has only parameters: name a checkpoint of training, such as `latest`, to take its optimizer too"
        )
    there, here = _shapes(tree["optimizer"]), _shapes(like)
    if differing := sorted(name for name in here if there.get(name) != here[name]):
        name = differing[0]
        raise UserError(
            f"{path} has the state of another optimizer: {name} is {there.get(name, 'absent')} there, {here[name]} "
            "here; use its config, or begin with a new state"
        )
    return _restored(path, "optimizer", like)


def saved_parameters(workdir: str | PathLike, which: str = "best") -> PyTree:
    """The names and shapes that `load_parameters` would read, without the arrays; raises the same errors."""
    return _parameters_in(find(absolute(workdir), which)[1])


def average_parameters(workdir: str | PathLike, steps: list[int]) -> PyTree:
    """The mean of the parameters at `steps`, as host arrays of the saved types; summed in float64, one checkpoint at a
    time."""
    total, types = None, None
    for step in steps:
        _, params = load_parameters(workdir, str(step))
        types = jax.tree.map(lambda leaf: leaf.dtype, params)
        addend = jax.tree.map(lambda leaf: leaf.astype(np.float64), params)
        total = addend if total is None else jax.tree.map(np.add, total, addend)
    return jax.tree.map(lambda leaf, dtype: (leaf / len(steps)).astype(dtype), total, types)


def best_score(workdir: str | PathLike, name: str) -> tuple[int, float] | None:
    """The step of the checkpoint in `best/`, and its value of an evaluation, such as `bleu`; None if there is none."""
    directory = absolute(workdir) / "best"
    for step in reversed(steps_of(directory)):
        value = json.loads((directory / str(step) / "progress" / "metadata").read_text()).get(name)
        return None if value is None else (step, value)
    return None


def _evaluated(tree: PyTree) -> str:
    """The name of the evaluated parameters in a checkpoint."""
    return "ema" if tree.get("ema") else "params"


def _parameters_in(path: epath.Path) -> PyTree:
    tree = saved_tree(path)
    return tree[_evaluated(tree)]


def saved_tree(path: epath.Path) -> PyTree:
    """The names and shapes of a checkpoint's arrays, without reading them."""
    return ocp.PyTreeCheckpointHandler().metadata(path / "state").tree


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    """{path: shape} of the arrays of a tree; a typed random key counts as the integers that it is saved as."""

    def shape(leaf: Any) -> tuple[int, ...]:
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.eval_shape(jax.random.key_data, leaf).shape
        return tuple(leaf.shape)

    flat = ocp.tree.to_flat_dict(tree, sep="/")
    return {name: shape(leaf) for name, leaf in flat.items() if hasattr(leaf, "shape")}


def check_fit(path: epath.Path, saved: PyTree, like: PyTree) -> None:
    """Raise UserError, naming parameters first, unless `saved` at `path` has the arrays and shapes of `like`."""
    there, here = _shapes(saved), _shapes(like)
    differing = sorted(
        (name for name in there.keys() | here.keys() if there.get(name) != here.get(name)),
        key=lambda name: (not name.startswith("params/"), name),
    )
    if not differing:
        return
    shown = "; ".join(f"{n} is {there.get(n, 'absent')} there, {here.get(n, 'absent')} here" for n in differing[:3])
    more = f" (and {len(differing) - 3} more)" if len(differing) > 3 else ""
    raise UserError(f"{path} belongs to another model: {shown}{more}; use its config, or another working directory")


def _read_parameters(path: epath.Path, like: PyTree | None) -> PyTree:
    tree = saved_tree(path)
    name = _evaluated(tree)
    if like is not None:
        return _restored(path, name, like)
    wanted = {name: tree[name]}
    restore_args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    args = ocp.args.PyTreeRestore(item=wanted, restore_args=restore_args, partial_restore=True)
    return ocp.PyTreeCheckpointHandler().restore(path / "state", args=args)[name]


def _restored(path: epath.Path, name: str, like: PyTree) -> PyTree:
    """What a checkpoint has under `name`, or as much of it as `like` has, with its shapes and shardings."""
    wanted = {name: like}
    restore_args = ocp.checkpoint_utils.construct_restore_args(wanted)
    args = ocp.args.PyTreeRestore(item=wanted, restore_args=restore_args, partial_restore=True)
    return ocp.PyTreeCheckpointHandler().restore(path / "state", args=args)[name]
