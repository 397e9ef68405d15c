"""Parameters as the steps of a search read them."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.typing import DTypeLike

from zoo.decoding.ensemble import Ensemble
from zoo.models.base import Decodable
from zoo.nn.placement import platform
from zoo.nn.quantization import Quantized
from zoo.nn.stacks import apart

# Parameters that are only read in the type that the model computes in: kernels of `Dense`, and tables of `Embedding`.
MULTIPLIED = ("kernel", "table")


def arranged(model: Decodable, params: Any) -> Any:
    """`params`, arranged for the device; a search finds the same with them.

    On a CPU, every step would slice the matrices of each layer out of those of all, and convert them. Here the layers
    are taken apart once, with their matrices in the type that the model computes in.
    """
    if platform() != "cpu" or not isinstance(params, Mapping):
        return params
    if isinstance(model, Ensemble):
        return {name: arranged(one, params[name]) for one, name in zip(model.members, sorted(params), strict=True)}
    dtype = getattr(getattr(model, "config", None), "dtype", jnp.float32)
    flat = {path: _read_as(path, leaf, dtype) for path, leaf in flatten_dict(params).items()}
    return apart(unflatten_dict(flat))


def _read_as(path: tuple[str, ...], leaf: Any, dtype: DTypeLike) -> Any:
    return leaf if isinstance(leaf, Quantized) or path[-1] not in MULTIPLIED else leaf.astype(dtype)
