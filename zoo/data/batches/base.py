"""Batches as arrays, and the share of them that a process reads."""

from dataclasses import dataclass

import numpy as np
from flax import struct
from jax.typing import ArrayLike
from jaxtyping import Bool, Int, Num


@struct.dataclass
class Seq2SeqBatch:
    """Pairs of sentences, padded with `PAD`. `inputs` is the target shifted right by one, after BOS; `labels` ends with
    EOS."""

    source: Int[ArrayLike, "B S"]
    inputs: Int[ArrayLike, "B T"]
    labels: Int[ArrayLike, "B T"]

    @classmethod
    def example(cls) -> "Seq2SeqBatch":
        """The smallest batch, to initialize a model with."""
        return cls(*(np.ones((1, 2), np.int32) for _ in range(3)))


@struct.dataclass
class LanguageBatch:
    """Text. `labels` holds the next token of each of `inputs`, or `NOTHING` where nothing is predicted.

    In a packed batch, `segments` numbers the documents of a row from 1 (0: padding), and `positions` counts from 0 in
    each document. Without them, every row is one document.
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
    """Labelled examples. Each has `K` answers to compare, and each answer is written in `N` orders: one sequence for
    each.

    `ends` is the position of a sequence's last token; padding follows. `labels` holds the next tokens, as in a
    `LanguageBatch`. `targets` holds the number of the true label, or the value of a regression. Where `labelled` is
    false there is no target, and the example has no weight.
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
    """The part of every global batch that a process reads: the `index`-th of `count` equal blocks of rows."""

    index: int = 0
    count: int = 1

    def of(self, rows: int) -> slice:
        each = rows // self.count
        return slice(self.index * each, (self.index + 1) * each)


ALONE = Share()
