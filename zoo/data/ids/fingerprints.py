"""Names of training data by content, so that a run notices when its data has changed."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np


class Fingerprint:
    """A digest of arrays in their order; the boundaries between them count too."""

    def __init__(self):
        self._digest = hashlib.blake2b(digest_size=16)

    def add(self, array: np.ndarray) -> None:
        self._digest.update(f"{array.dtype.name}{array.shape}".encode())
        self._digest.update(np.ascontiguousarray(array).data)

    def __str__(self) -> str:
        return self._digest.hexdigest()


def of_arrays(arrays: Iterable[np.ndarray]) -> str:
    """The fingerprint of `arrays`, such as the ids of all training examples."""
    fingerprint = Fingerprint()
    for array in arrays:
        fingerprint.add(array)
    return str(fingerprint)


def of_values(values: Any) -> str:
    """The fingerprint of plain values, such as the arguments that generate the data."""
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=16).hexdigest()
