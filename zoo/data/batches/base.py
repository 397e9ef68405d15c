"""What models, losses and the trainer read: batches as arrays, and the part of them that a process reads."""

from dataclasses import dataclass

import numpy as np
from flax import struct
from jax.typing import ArrayLike
from jaxtyping import Bool, Int, Num


@struct.dataclass
class Seq2SeqBatch:
    """Pairs of sentences, padded with `PAD`. `inputs` is the target moved right behind BOS; `labels` ends with EOS."""

    source: Int[ArrayLike, "B S"]
    inputs: Int[ArrayLike, "B T"]
    labels: Int[ArrayLike, "B T"]

    @classmethod
    def example(cls) -> "Seq2SeqBatch":
        """The smallest batch, to initialize a model with."""
        return cls(*(np.ones((1, 2), np.int32) for _ in range(3)))


@struct.dataclass
class LanguageBatch:
    """Text, each of whose tokens is followed by its label. `labels` are `NOTHING` where nothing is to be predicted.

    In a packed batch `segments` numbers the documents of a row from 1, with 0 for padding, and `positions` starts at 0
    in each; without them every row is one stretch of text.
    """

    inputs: Int[ArrayLike, "B T"]
    labels: Int[ArrayLike, "B T"]
    segments: Int[ArrayLike, "B T"] | None = None
    positions: Int[ArrayLike, "B T"] | None = None

    @classmethod
    def example(cls) -> "LanguageBatch":
        """The smallest batch, to initialize a model with."""
        return cls(*(np.ones((1, 2), np.int32) for _ in range(2)))


@struct.dataclass
class LabelledBatch:
    """Examples to be told apart: of each, `K` answers to compare in `N` orders, a sequence of tokens each.

    `ends` is the place of a sequence's last token, behind which it is padded. `labels` are the tokens that follow those
    of `inputs`, as in a `LanguageBatch`. `targets` holds the number of the true label, or the value of a regression;
    where `labelled` is false there is none, and the example weighs nothing.
    """

    inputs: Int[ArrayLike, "B K N T"]
    labels: Int[ArrayLike, "B K N T"]
    ends: Int[ArrayLike, "B K N"]
    targets: Num[ArrayLike, "B"]
    labelled: Bool[ArrayLike, "B"]

    @classmethod
    def example(cls) -> "LabelledBatch":
        """The smallest batch, to initialize a model with."""
        tokens = np.ones((1, 1, 1, 2), np.int32)
        return cls(tokens, tokens, np.ones((1, 1, 1), np.int32), np.zeros(1, np.int32), np.ones(1, bool))


@dataclass(frozen=True)
class Share:
    """Which part of every global batch a process reads: the `index`-th of `count` equal blocks of rows."""

    index: int = 0
    count: int = 1

    def of(self, rows: int) -> slice:
        each = rows // self.count
        return slice(self.index * each, (self.index + 1) * each)


ALONE = Share()
