"""Batches of few shapes: examples of like length together, as many rows as a budget of tokens allows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flax import struct
from jax.typing import ArrayLike
from jaxtyping import Int

from zoo.data.tokenizers import BOS, EOS, PAD
from zoo.errors import UserError

Ids = Int[np.ndarray, "_"]
TokenPair = tuple[Ids, Ids]
Indices = Sequence[int] | Int[np.ndarray, "_"]
NOTHING = -1  # the label of a position that predicts nothing, and what fills a prompt up: any id from 0 on is a token


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


@dataclass(frozen=True)
class Buckets:
    """The shapes of batches: `boundaries` are lengths (EOS counted); each holds `tokens // boundary` rows, rounded down
    to a multiple of `rows_multiple` (the shards of a batch times the accumulated parts)."""

    tokens: int
    boundaries: tuple[int, ...]
    rows_multiple: int = 1

    def __post_init__(self):
        if self.tokens < self.boundaries[-1] * self.rows_multiple:
            each = f" on each of {self.rows_multiple} shards" if self.rows_multiple > 1 else ""
            raise UserError(
                f"data.batch_tokens={self.tokens} is below the longest sentence, data.max_length={self.boundaries[-1]}"
                f"{each}: use at least {self.boundaries[-1] * self.rows_multiple}, or a smaller data.max_length"
            )

    @classmethod
    def up_to(cls, max_length: int, tokens: int, rows_multiple: int = 1, steps: Sequence[int] = ()) -> "Buckets":
        """Boundaries `steps` (default: multiples of 8 that grow by about a third), cut at `max_length`."""
        if not steps:
            steps = [8]
            while steps[-1] < max_length:
                steps.append(-(-max(steps[-1] + 8, steps[-1] * 4 // 3) // 8) * 8)
        boundaries = (*(b for b in sorted(steps) if b < max_length), max_length)
        return cls(tokens, boundaries, rows_multiple)

    def rows(self, boundary: int) -> int:
        return self.tokens // boundary // self.rows_multiple * self.rows_multiple


def length(pair: TokenPair) -> int:
    """Positions that a pair needs: the longer side, with its EOS."""
    return max(len(pair[0]), len(pair[1])) + 1


def cut(pairs: Sequence[TokenPair], buckets: Buckets) -> list[tuple[int, list[int]]]:
    """Indices of `pairs` in batches: `(boundary, indices)`, no pair left out.

    What does not fill a batch moves to the next longer bucket, so that only the last batch can be partly filled.
    """
    lengths = np.array([length(pair) for pair in pairs])
    order = np.argsort(lengths, kind="stable")
    batches, waiting, start = [], [], 0
    for boundary in buckets.boundaries:
        end = int(np.searchsorted(lengths[order], boundary, side="right"))
        waiting += order[start:end].tolist()
        start, rows = end, buckets.rows(boundary)
        while len(waiting) >= rows:
            batches.append((boundary, waiting[:rows]))
            waiting = waiting[rows:]
    if waiting:
        longest = int(lengths[waiting].max())
        boundary = next(b for b in buckets.boundaries if b >= longest and buckets.rows(b) >= len(waiting))
        batches.append((boundary, waiting))
    return batches


def padded(pairs: Sequence[TokenPair], rows: int, boundary: int) -> Seq2SeqBatch:
    """The batch of `pairs`, `[rows, boundary]`; rows that are left over are empty and weigh nothing."""
    source = np.full((rows, boundary), PAD, np.int32)
    inputs, labels = source.copy(), source.copy()
    for row, (one, other) in enumerate(pairs):
        source[row, : len(one)], source[row, len(one)] = one, EOS
        inputs[row, 0], inputs[row, 1 : len(other) + 1] = BOS, other
        labels[row, : len(other)], labels[row, len(other)] = other, EOS
    return Seq2SeqBatch(source, inputs, labels)
