"""Token ids of one text and of a pair."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

Ids = Int[np.ndarray, "_"]
TokenPair = tuple[Ids, Ids]
Indices = Sequence[int] | Int[np.ndarray, "_"]


def length(pair: TokenPair) -> int:
    """Positions that a pair needs: the longer side, with its EOS."""
    return max(len(pair[0]), len(pair[1])) + 1
