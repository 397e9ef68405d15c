"""The contract of a task: what the trainer knows of translation, language modeling or classification."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import grain
import jax

from zoo.data.batches.base import Share
from zoo.data.tokenizers import Tokenizer
from zoo.errors import UserError
from zoo.storage import AnyPath, expanded
from zoo.tasks.label_losses import LabelSums
from zoo.tasks.losses import Sums
from zoo.tasks.metrics import Evaluation

log = logging.getLogger("zoo")
PyTree = Any
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Splits:
    """Where the splits of a task's data are: `train`, `valid` and `test` are locations; files are relative to `path`.
    `train_split`, `valid_split` and `test_split` name splits of a TFDS dataset, which is prepared only with
    `download`."""

    train: str = ""
    valid: str = ""
    test: str = ""
    path: str = ""
    train_split: str = "train"
    valid_split: str = "validation"
    test_split: str = "test"
    download: bool = False

    KINDS: ClassVar[str] = "a file or tfds:NAME"

    def where(self, split: str, location: str = "") -> str:
        """The location of a split, or `location` if it is given."""
        where = location or getattr(self, split)
        if not where:
            raise UserError(
                f"this experiment has no data.{split}: train with --config.data.{split}=, or eval with --data=, and "
                f"{self.KINDS}"
            )
        of_a_file = self.path and not where.startswith("tfds:") and not location
        return str(Path(expanded(self.path)) / expanded(where)) if of_a_file else where

    def tfds_split(self, split: str) -> str:
        return getattr(self, f"{split}_split")

    @property
    def size_key(self) -> str:
        """The field with the size of a batch."""
        raise NotImplementedError

    def planned_vocabularies(self) -> dict[str, int]:
        """The vocabulary fields of a model's config, as requested by this config, before there is any text."""
        raise NotImplementedError

    def batch_shapes(self, shards: int) -> Sequence[PyTree]:
        """The shapes of all batches that training may see, the longest last, with `jax.ShapeDtypeStruct` for arrays.

        Raises `UserError` if their rows do not divide by `shards`.
        """
        raise NotImplementedError


def check_positions(data: Any, model: Any) -> None:
    """Raises `UserError` if the rows of `data` are longer than the positions that `model` learns, if it has any."""
    if data.length > getattr(model, "max_length", data.length):
        raise UserError(
            f"data.length={data.length} is above model.max_length={model.max_length}, the positions that are learned: "
            "lower one or raise the other"
        )


def lacks_tokenizers(workdir: AnyPath, names: Sequence[str]) -> bool:
    """Whether the tokenizers with these names must be learned. Where there are parameters, never: another vocabulary
    would silently be wrong."""
    there = all(any((workdir / "tokenizer").glob(f"{name}.*")) for name in names)
    return not there and not (workdir / "checkpoints").exists()


def save_tokenizer(workdir: AnyPath, tokenizer: Tokenizer, kind: str, name: str = "text") -> None:
    """Save the tokenizer in the working directory, and log it."""
    tokenizer.save(workdir / "tokenizer", name)
    log.info("a vocabulary of %d %s: %s", tokenizer.size, kind, workdir / "tokenizer" / name)


@runtime_checkable
class Task(Protocol):
    """A task owns its tokenizers, its examples, its loss and its metrics; its files are in the working directory. A
    finished run is scored on the split `SUMMARY`."""

    SUMMARY: str
    workdir: AnyPath

    def vocabularies(self) -> dict[str, int]:
        """The fields of a model's config that the data decides."""
        ...

    def training_batches(self, shards: int, share: Share) -> grain.DatasetIterator:
        """The endless stream of batches, with this process's rows of each; the rows divide by `shards`."""
        ...

    def training_fingerprint(self) -> str:
        """A name for the content of the training data, wherever it is (`zoo.data.ids.fingerprints`)."""
        ...

    def training_shapes(self, shards: int) -> Sequence[PyTree]:
        """The shapes of all whole batches that `training_batches` may give, with `jax.ShapeDtypeStruct` for arrays."""
        ...

    def example_batch(self) -> PyTree:
        """A small batch to initialize a model with."""
        ...

    def loss(self, model: Any, params: PyTree, batch: PyTree, key: jax.Array | None = None) -> Sums | LabelSums:
        """Sums over the batch, never means; dropout with `key`."""
        ...

    def evaluate(self, model: Any, params: PyTree, split: str, location: str = "", most: int = 0) -> Evaluation:
        """Scores on a split or on the data at `location`; with `most`, on its first `most` examples."""
        ...


class TaskOfExperiments(Task, Protocol):
    """A task that an experiment can name, so `zoo.tasks.registry` lists it.

    `task(data, decoding, smoothing, workdir, seed)` makes one: `data` and `decoding` are instances of the classes that
    the registry has beside it, `smoothing` is `train.smoothing`. A task that has `epoch_steps() -> float`, the updates
    of one pass over its training data, can be trained by epochs.
    """

    @staticmethod
    def check(experiment: Any) -> None:
        """Raises `UserError` for an experiment that this task cannot train."""
        ...

    @staticmethod
    def selectable(data: Any) -> tuple[str, ...]:
        """The values of an evaluation by which the best checkpoint may be chosen."""
        ...

    def prepare(self) -> None:
        """Check that the data is there, and learn the tokenizer if the working directory has none."""
        ...
