"""Rows of one length for language models: documents laid end to end and cut.

Nothing is padded but the end of the last row. grain shuffles the rows and keeps the position, as it does for pairs.
"""

from collections.abc import Iterable

import grain
import numpy as np

from zoo.data.batching import NOTHING, Ids, Indices, LanguageBatch
from zoo.data.pipeline import ALONE, Share
from zoo.data.tokenizers import BOS, EOS
from zoo.errors import UserError

EPOCHS = 2**31  # for ever; endless, grain would count batches of one row beyond 64 bits


class Rows:
    """Documents as rows of `length` tokens, in memory at 4 bytes a token.

    `packing` is `stream` (GPT-2: an EOS behind each document, and all are one text) or `segments` (each document stands
    between BOS and EOS and sees no other; what a row cuts off goes on in the next, as a segment of its own).
    """

    PACKINGS = ("stream", "segments")

    def __init__(self, documents: Iterable[Ids], length: int, packing: str):
        before = np.array([BOS] if packing == "segments" else [], np.int32)
        whole = [np.concatenate([before, ids, [EOS]], dtype=np.int32) for ids in documents]
        self.length, self.apart = length, packing == "segments"
        self._flat = np.concatenate(whole) if whole else np.zeros(0, np.int32)
        self._ends = np.cumsum([len(ids) for ids in whole], dtype=np.int64)

    def __len__(self) -> int:
        return -(-max(len(self._flat) - 1, 0) // self.length)  # the last token has nothing to predict

    def take(self, rows: Indices) -> LanguageBatch:
        """The rows of these numbers, `[len(rows), length]`."""
        first = np.asarray(rows, np.int64)[:, None] * self.length
        places = first + np.arange(self.length)
        last = len(self._flat) - 1
        document = np.searchsorted(self._ends, places, side="right")
        inside = places < last
        if self.apart:
            inside &= np.searchsorted(self._ends, places + 1, side="right") == document
        labels = np.where(inside, self._flat[np.minimum(places + 1, last)], NOTHING)
        inputs = np.where(places <= last, self._flat[np.minimum(places, last)], 0)
        if not self.apart:
            return LanguageBatch(inputs, labels)
        begin = np.maximum(np.concatenate([[0], self._ends])[document], first)
        segments = np.where(places <= last, document - document[:, :1] + 1, 0)
        return LanguageBatch(inputs, labels, segments.astype(np.int32), (places - begin).astype(np.int32))


def training_rows(rows: Rows, count: int, shards: int, seed: int, share: Share = ALONE) -> grain.DatasetIterator:
    """An endless iterator of batches of `count` rows, this process's part of each; every epoch in another order.

    Raises `UserError` where the rows of a batch do not divide by its shards.
    """
    if count % shards:
        raise UserError(f"data.batch_rows={count} does not divide by {shards} shards: use a multiple")
    numbers = grain.MapDataset.range(len(rows)).seed(seed).shuffle().repeat(EPOCHS).batch(count)
    batches = numbers.map(lambda batch: rows.take(batch[share.of(count)]))
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=16)))


def evaluation_rows(rows: Rows, count: int) -> Iterable[LanguageBatch]:
    """Every row once, in order, `count` at a time; rows that are left over in the last batch predict nothing."""
    for start in range(0, len(rows), count):
        batch = rows.take(np.minimum(np.arange(start, start + count), len(rows) - 1))
        batch.labels[len(rows) - start :] = NOTHING
        yield batch
