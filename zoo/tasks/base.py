"""The contract of a task: what the trainer knows of translation, language modeling or classification."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import grain
import jax

from zoo.data.pipeline import Share
from zoo.tasks.losses import Sums
from zoo.tasks.metrics import Evaluation

PyTree = Any
SPLITS = ("train", "valid", "test")


def lacks_tokenizers(workdir: Path, names: Sequence[str]) -> bool:
    """Whether the tokenizers of these names are to be learned; beside parameters another vocabulary would be wrong
    without a word."""
    there = all(any((workdir / "tokenizer").glob(f"{name}.*")) for name in names)
    return not there and not (workdir / "checkpoints").exists()


@runtime_checkable
class Task(Protocol):
    """A task owns its tokenizers, its examples, its loss and its metrics; its files lie in the working directory."""

    workdir: Path

    def vocabularies(self) -> dict[str, int]:
        """The fields of a model's config that the data decides."""
        ...

    def training_batches(self, shards: int, share: Share) -> grain.DatasetIterator:
        """The endless stream of batches, this process's rows of each; rows divide by `shards`."""
        ...

    def example_batch(self) -> PyTree:
        """A small batch to initialize a model with."""
        ...

    def loss(self, model: Any, params: PyTree, batch: PyTree, key: jax.Array | None = None) -> Sums:
        """Sums over the batch, never means; dropout with `key`."""
        ...

    def evaluate(self, model: Any, params: PyTree, split: str, location: str = "", most: int = 0) -> Evaluation:
        """Scores on a split or on the data at `location`, on its first `most` examples if given."""
        ...
