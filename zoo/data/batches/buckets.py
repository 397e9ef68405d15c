"""Batches of few shapes: examples of similar length together, with as many rows as a token budget allows, or a fixed
number of rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from zoo.data.batches.base import Seq2SeqBatch
from zoo.data.ids.base import TokenPair, length
from zoo.data.specials import BOS, EOS, PAD
from zoo.errors import UserError


@dataclass(frozen=True)
class Buckets:
    """The shapes of batches: `boundaries` are lengths (EOS counted), and `counts` how many rows go with each."""

    boundaries: tuple[int, ...]
    counts: tuple[int, ...]

    @classmethod
    def up_to(cls, max_length: int, tokens: int, rows_multiple: int = 1, steps: Sequence[int] = ()) -> "Buckets":
        """Each bucket has `tokens // boundary` rows, rounded down to a multiple of `rows_multiple` (the shards of a
        batch times the accumulated parts). The boundaries are `steps` (default: multiples of 8 that grow by about a
        third), cut at `max_length`."""
        if tokens < max_length * rows_multiple:
            each = f" on each of {rows_multiple} shards" if rows_multiple > 1 else ""
            raise UserError(
                f"data.batch_tokens={tokens} is below the longest sentence, data.max_length={max_length}{each}: use at "
                f"least {max_length * rows_multiple}, or a smaller data.max_length"
            )
        boundaries = padded_lengths(max_length, steps)
        return cls(boundaries, tuple(tokens // b // rows_multiple * rows_multiple for b in boundaries))

    @classmethod
    def of_sentences(cls, max_length: int, sentences: int, rows_multiple: int, steps: Sequence[int] = ()) -> "Buckets":
        """Each bucket has `sentences` rows, which `rows_multiple` must divide; the boundaries are those of `up_to`."""
        check_rows("batch_sentences", sentences, rows_multiple)
        boundaries = padded_lengths(max_length, steps)
        return cls(boundaries, (sentences,) * len(boundaries))

    def rows(self, boundary: int) -> int:
        return self.counts[self.boundaries.index(boundary)]


def check_rows(key: str, rows: int, parts: int) -> None:
    """Raise `UserError` unless the rows of a batch, set by `data.key`, divide by its parts."""
    if rows % parts:
        raise UserError(
            f"data.{key}={rows} does not divide by {parts}, the parts of a batch (mesh.data times mesh.fsdp times "
            f"train.accumulate): use {-(-rows // parts) * parts}, or another mesh"
        )


def shape_of_ids(*dims: int) -> jax.ShapeDtypeStruct:
    """The shape of token ids, for tracing."""
    return jax.ShapeDtypeStruct(dims, np.int32)


def padded_lengths(max_length: int, steps: Sequence[int] = ()) -> tuple[int, ...]:
    """`steps`, by default multiples of 8 that grow by about a third, cut at `max_length`."""
    if not steps:
        steps = [8]
        while steps[-1] < max_length:
            steps.append(-(-max(steps[-1] + 8, steps[-1] * 4 // 3) // 8) * 8)
    return (*(b for b in sorted(steps) if b < max_length), max_length)


def cut(pairs: Sequence[TokenPair], buckets: Buckets) -> list[tuple[int, list[int]]]:
    """Batches as `(boundary, indices)`; every pair is in one of them.

    Pairs that do not fill a batch move to the next longer bucket, so only the last batch can be partly filled.
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
    """The batch of `pairs`, `[rows, boundary]`; the remaining rows are empty and have no weight."""
    source = np.full((rows, boundary), PAD, np.int32)
    inputs, labels = source.copy(), source.copy()
    for row, (one, other) in enumerate(pairs):
        source[row, : len(one)], source[row, len(one)] = one, EOS
        inputs[row, 0], inputs[row, 1 : len(other) + 1] = BOS, other
        labels[row, : len(other)], labels[row, len(other)] = other, EOS
    return Seq2SeqBatch(source, inputs, labels)


def power_of_two(number: int) -> int:
    """The least power of two that is not smaller. Rounding sizes up to it keeps shapes, and so compilations, few."""
    return 1 << (max(number, 1) - 1).bit_length()


def given_batches(pairs: Sequence[TokenPair], tokens: int) -> Iterator[tuple[list[int], Seq2SeqBatch]]:
    """All `pairs`, of any length, in batches of few shapes: the indices of a batch's first rows, and the batch.

    Lengths are padded to powers of two from 16 on. A batch has at most `tokens` padded positions a side, unless a
    single pair needs more.
    """
    if not pairs:
        return
    boundaries = [16]
    while boundaries[-1] < max(map(length, pairs)):
        boundaries.append(2 * boundaries[-1])
    buckets = Buckets.up_to(boundaries[-1], max(tokens, boundaries[-1]), steps=boundaries)
    most = power_of_two(len(pairs))  # a few pairs need not wait for a whole batch
    for boundary, indices in cut(pairs, buckets):
        yield indices, padded([pairs[i] for i in indices], min(buckets.rows(boundary), most), boundary)
