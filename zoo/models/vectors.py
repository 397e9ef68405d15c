"""The vectors that a trained model has for the pieces of its vocabulary and for positions."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Float

from zoo.errors import UserError
from zoo.nn.positions import LAYOUTS, sinusoids

EMBEDDING = "embedding/table"
POSITIONS = ("learned_positions/table", "positions/table")


def embeddings(params: Any, side: str = "source") -> Float[np.ndarray, "V E"]:
    """The table of the pieces that a model reads on this `side`; of a model with one vocabulary, its only one.

    Raises `UserError` for a model without such a table.
    """
    tables = {path: leaf for path, leaf in flatten_dict(params, sep="/").items() if path.endswith(EMBEDDING)}
    if not tables:
        raise UserError("this model has no table of embeddings")
    return np.asarray(next((leaf for path, leaf in tables.items() if side in path), next(iter(tables.values()))))


def positions(config: Any, params: Any, length: int) -> Float[np.ndarray, "T E"]:
    """What is added to the embeddings of the first positions, `length` of them or as many as were learned.

    Raises `UserError` for a model that has nothing of the kind, as recurrent ones.
    """
    layout = getattr(config, "positions", "")
    if layout in LAYOUTS:
        return np.asarray(sinusoids(jnp.arange(length), config.width, layout))
    flat = flatten_dict(params, sep="/")
    table = next((leaf for path, leaf in flat.items() if path.endswith(POSITIONS)), None)
    if table is None:
        raise UserError("this model has no vectors for positions")
    return np.asarray(table[:length])
