"""Labelled examples as batches: tokenized once, grouped by length, padded to few lengths, in an order that the seed
decides."""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import grain
import numpy as np
from jaxtyping import Int, Num

from zoo.data.batches.base import ALONE, LabelledBatch, Share
from zoo.data.batches.buckets import check_rows
from zoo.data.examples.labelled import Example
from zoo.data.ids import fingerprints
from zoo.data.ids.base import Indices
from zoo.data.ids.transformations import TRANSFORMATIONS, Layout, Sequences
from zoo.data.specials import NOTHING
from zoo.data.tokenizers import Tokenizer
from zoo.errors import UserError

BATCHES = 2**40  # for ever
SHAPES = 4  # padded lengths of a split: each is compiled once


class StoredExamples:
    """All examples of a split as sequences of ids, in memory; `name` names the split in errors and in the log."""

    def __init__(
        self,
        examples: Sequence[Example],
        targets: Num[np.ndarray, "_"],
        kind: str,
        tokenizer: Tokenizer,
        length: int,
        name: str,
        lengths: tuple[int, ...] = (),
    ):
        """`targets` holds the number of each example's label, or its value; `NOTHING` or NaN stands for no label.

        `kind` is one of `TRANSFORMATIONS`. Batches are padded to `lengths`, by default to a few that fit the examples.
        Raises `UserError` for examples with different numbers of answers.
        """
        if not examples:
            raise UserError(f"{name} holds no examples: name another")
        self.targets = targets
        layout, transform = Layout(tokenizer.size, length), TRANSFORMATIONS[kind]
        self.sequences: list[Sequences] = []
        self.cut = 0  # examples that are longer
        for first, *seconds in _encoded(examples, tokenizer):
            self.sequences.append(transform(layout, first, seconds))
            needed = 2 + len(first) + (1 + max(map(len, seconds)) if seconds else 0)
            self.cut += needed > length
        answers = {len(sequences) for sequences in self.sequences}
        if len(answers) > 1:
            raise UserError(
                f"{name} has examples of {' and '.join(map(str, sorted(answers)))} answers: give each the same number"
            )
        self.longest_sequences = np.array([max(len(r) for a in rows for r in a) for rows in self.sequences])
        self._lengths = lengths or fitting_lengths(self.longest_sequences, length)

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of all ids and labels."""
        ids = (np.asarray(row, np.int32) for rows in self.sequences for answer in rows for row in answer)
        return fingerprints.of_arrays((self.targets, *ids))

    def longest(self, indices: Indices) -> int:
        """The padded length of these examples' batch."""
        most = self.longest_sequences[np.asarray(indices)].max()
        return next(length for length in self._lengths if length >= most)

    def take(self, indices: Indices, rows: int, length: int) -> LabelledBatch:
        """The examples with these numbers, padded to `length`; the remaining of `rows` have no weight."""
        answers, orders = len(self.sequences[0]), len(self.sequences[0][0])
        inputs = np.zeros((rows, answers, orders, length), np.int32)
        labels, ends = np.full_like(inputs, NOTHING), np.zeros(inputs.shape[:3], np.int32)
        targets, labelled = np.zeros(rows, self.targets.dtype), np.zeros(rows, bool)
        for row, i in enumerate(indices):
            for place in np.ndindex(answers, orders):
                ids = self.sequences[i][place[0]][place[1]]
                inputs[row, *place, : len(ids)], labels[row, *place, : len(ids) - 1] = ids, ids[1:]
                ends[row, *place] = len(ids) - 1
            labelled[row] = self.targets[i] != NOTHING and not np.isnan(self.targets[i])
            targets[row] = self.targets[i] if labelled[row] else 0
        return LabelledBatch(inputs, labels, ends, targets, labelled)


def _encoded(examples: Sequence[Example], tokenizer: Tokenizer) -> Iterator[list[np.ndarray]]:
    """The ids of each example's texts."""
    texts = [text for example in examples for text in (example.first, *example.seconds)]
    ids = iter(tokenizer.encode(texts))
    for example in examples:
        yield [np.asarray(next(ids), np.int32) for _ in range(1 + len(example.seconds))]


def fitting_lengths(lengths: Int[np.ndarray, "_"], most: int, shapes: int = SHAPES) -> tuple[int, ...]:
    """The padded lengths, at most `shapes`, that waste the fewest positions on sequences of these `lengths`. They are
    multiples of 8, or `most`, which no sequence exceeds.

    Dynamic programming over the multiples of 8: the least padded size of all sequences up to each.
    """
    ends = [*range(8, int(lengths.max()), 8)]
    ends.append(min(ends[-1] + 8 if ends else 8, most))
    counts = np.cumsum(np.bincount(np.searchsorted(ends, lengths), minlength=len(ends)))
    best = [(int(counts[j]) * ends[j], (ends[j],)) for j in range(len(ends))]
    for _ in range(shapes - 1):
        shorter = best
        best = [
            min(
                [
                    shorter[j],
                    *(
                        (shorter[i][0] + int(counts[j] - counts[i]) * ends[j], (*shorter[i][1], ends[j]))
                        for i in range(j)
                    ),
                ]
            )
            for j in range(len(ends))
        ]
    return best[-1][1]


class _Order:
    """The examples of each batch, without end: every example once an epoch, each epoch in another order.

    Every batch is full. Within an epoch it holds examples of one padded length, as long as these fill batches; the
    batch where one epoch ends and the next begins holds examples of any length.
    """

    def __init__(self, padded: Int[np.ndarray, "_"], count: int, seed: int):
        """`padded` are the lengths that the examples are padded to; `count` of them make a batch."""
        self.padded, self.count, self.seed = padded, count, seed
        self._epoch = lru_cache(maxsize=4)(self._arranged)

    def __len__(self) -> int:
        return BATCHES

    def __getitem__(self, number: int) -> Int[np.ndarray, "_"]:
        examples = len(self.padded)
        places = range(number * self.count, (number + 1) * self.count)
        return np.array([self._epoch(place // examples)[place % examples] for place in places])

    def _arranged(self, epoch: int) -> Int[np.ndarray, "_"]:
        random = np.random.default_rng((self.seed, epoch))
        order = random.permutation(len(self.padded))
        first = -epoch * len(order) % self.count  # what the last batch of the epoch before still takes
        batches = max(len(order) - first, 0) // self.count
        if batches:
            inside = order[first : first + batches * self.count]
            sorted_batches = inside[np.argsort(self.padded[inside], kind="stable")].reshape(batches, self.count)
            order[first : first + inside.size] = random.permutation(sorted_batches).reshape(-1)
        return order


def training_examples(
    examples: StoredExamples, count: int, shards: int, seed: int, share: Share = ALONE
) -> grain.DatasetIterator:
    """An endless iterator of batches of `count` examples, this process's part of each; see `_Order`.

    Raises `UserError` where the rows of a batch do not divide by its shards.
    """
    check_rows("batch_rows", count, shards)
    own = share.of(count)

    def batch(indices: np.ndarray) -> LabelledBatch:
        return examples.take(indices[own], own.stop - own.start, examples.longest(indices))

    padded = np.array([examples.longest([i]) for i in range(len(examples))])
    batches = grain.MapDataset.source(_Order(padded, count, seed)).map(batch)
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=16)))


def evaluation_examples(examples: StoredExamples, count: int) -> Iterable[tuple[np.ndarray, LabelledBatch]]:
    """Every example once, the shortest first, `count` at a time: their numbers, and the batch."""
    order = np.argsort(examples.longest_sequences, kind="stable")
    for start in range(0, len(order), count):
        indices = order[start : start + count]
        yield indices, examples.take(indices, count, examples.longest(indices))
