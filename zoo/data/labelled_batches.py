"""Labelled examples as batches: tokenized once, padded to few lengths, in an order that a seed decides."""

import logging
from collections.abc import Iterable, Iterator, Sequence

import grain
import numpy as np
from jaxtyping import Num

from zoo.data.batching import NOTHING, Indices, LabelledBatch, check_rows, padded_lengths
from zoo.data.labelled import Example
from zoo.data.pipeline import ALONE, Share
from zoo.data.tokenizers import Tokenizer
from zoo.data.transformations import TRANSFORMATIONS, Layout, Sequences
from zoo.errors import UserError

log = logging.getLogger("zoo")
EPOCHS = 2**31  # for ever; endless, grain would count batches of one row beyond 64 bits


class StoredExamples:
    """All examples of a split as sequences of ids, in memory; `name` says in errors and in the log which split."""

    def __init__(
        self,
        examples: Sequence[Example],
        targets: Num[np.ndarray, "_"],
        kind: str,
        tokenizer: Tokenizer,
        length: int,
        name: str,
    ):
        """`targets` are the numbers of the examples' labels or their values; those of no label are `NOTHING` or NaN.

        `kind` is one of `TRANSFORMATIONS`. Raises `UserError` for examples with different numbers of answers.
        """
        if not examples:
            raise UserError(f"{name} holds no examples: name another")
        self.targets = targets
        layout, transform = Layout(tokenizer.size, length), TRANSFORMATIONS[kind]
        self.sequences: list[Sequences] = []
        cut = 0
        for first, *seconds in _encoded(examples, tokenizer):
            self.sequences.append(transform(layout, first, seconds))
            needed = 2 + len(first) + (1 + max(map(len, seconds)) if seconds else 0)
            cut += needed > length
        if cut:
            log.info("%s: %d of %d examples were cut to data.length=%d tokens", name, cut, len(examples), length)
        answers = {len(sequences) for sequences in self.sequences}
        if len(answers) > 1:
            raise UserError(
                f"{name} has examples of {' and '.join(map(str, sorted(answers)))} answers: give all as many"
            )
        self._lengths = padded_lengths(length)

    def __len__(self) -> int:
        return len(self.sequences)

    def longest(self, indices: Indices) -> int:
        """The padded length of these examples' batch."""
        most = max(len(row) for i in indices for answer in self.sequences[i] for row in answer)
        return next(length for length in self._lengths if length >= most)

    def take(self, indices: Indices, rows: int, length: int) -> LabelledBatch:
        """The examples of these numbers, padded to `length`; of `rows` those that are left over weigh nothing."""
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


def training_examples(
    examples: StoredExamples, count: int, shards: int, seed: int, share: Share = ALONE
) -> grain.DatasetIterator:
    """An endless iterator of batches of `count` examples, this process's part of each; every epoch in another order.

    Raises `UserError` where the rows of a batch do not divide by its shards.
    """
    check_rows("batch_rows", count, shards)
    own = share.of(count)

    def batch(indices: np.ndarray) -> LabelledBatch:
        return examples.take(indices[own], own.stop - own.start, examples.longest(indices))

    numbers = grain.MapDataset.range(len(examples)).seed(seed).shuffle().repeat(EPOCHS).batch(count)
    return iter(numbers.map(batch).to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=16)))


def evaluation_examples(examples: StoredExamples, count: int) -> Iterable[tuple[np.ndarray, LabelledBatch]]:
    """Every example once, the shortest first, `count` at a time: their numbers, and the batch."""
    order = np.array(sorted(range(len(examples)), key=lambda i: examples.longest([i])))
    for start in range(0, len(order), count):
        indices = order[start : start + count]
        yield indices, examples.take(indices, count, examples.longest(indices))
