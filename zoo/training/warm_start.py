"""Beginning with the parameters of another run."""

from collections.abc import Callable
from os import PathLike
from typing import Any

import jax

from zoo.checkpoints import load_parameters, saved_parameters
from zoo.models.gpt_classifier import begun_with, like_pretrained


def taken_over(workdir: str | PathLike, shapes: Any, fresh: Callable[[], Any]) -> tuple[int, Any]:
    """The step and the best parameters of `workdir`, with the `shapes` and shardings of those to begin with.

    Where those are a classifier's and it holds a language model, the classifier's body: of its own, which `fresh`
    makes, it keeps the rest. Raises `UserError` where names or shapes are others.
    """
    if "body" not in shapes or "body" in saved_parameters(workdir):
        return load_parameters(workdir, "best", shapes)
    step, body = load_parameters(workdir, "best", like_pretrained(shapes))
    params = begun_with(fresh(), body)
    return step, jax.tree.map(lambda leaf, like: jax.device_put(leaf, like.sharding), params, shapes)
