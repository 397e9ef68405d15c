"""Rows of one length for language models: concatenated documents, cut into pieces.

Only the end of the last row is padded. grain shuffles the rows and keeps the position, as it does for pairs.
"""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import grain
import numpy as np
from jaxtyping import Int

from zoo.data.batches.base import ALONE, LanguageBatch, Share
from zoo.data.batches.buckets import check_rows
from zoo.data.ids.base import Ids, Indices
from zoo.data.specials import BOS, EOS, NOTHING

Places = Int[np.ndarray, "B T"]
EPOCHS = 2**31  # for ever; endless, grain would count batches of one row beyond 64 bits


@runtime_checkable
class Tokens(Protocol):
    """The ids of concatenated documents, and where each ends; on disk, `zoo.data.ids.token_cache.TokenCache`."""

    ends: Int[np.ndarray, "_"]

    def take(self, places: Int[np.ndarray, "*shape"]) -> Int[np.ndarray, "*shape"]:
        """The ids at these places."""


class HeldTokens:
    """In memory."""

    def __init__(self, documents: Iterable[Ids]):
        documents = list(documents)
        self.ends = np.cumsum([len(ids) for ids in documents], dtype=np.int64)
        self._flat = np.concatenate(documents, dtype=np.int32) if documents else np.zeros(0, np.int32)

    def take(self, places: Int[np.ndarray, "*shape"]) -> Int[np.ndarray, "*shape"]:
        return self._flat[places]


class Rows:
    """Documents as rows of `length` tokens.

    `packing` is `stream` (GPT-2: an EOS after each document, and all are one text) or `segments` (each document is
    between BOS and EOS and sees no other; a document that a row cuts continues in the next row as a new segment).
    """

    PACKINGS = ("stream", "segments")

    def __init__(self, tokens: Tokens, length: int, packing: str):
        self.length, self.apart = length, packing == "segments"
        self._tokens, self._added = tokens, 1 + self.apart  # specials of a document
        self._ends = tokens.ends + self._added * np.arange(1, len(tokens.ends) + 1)
        self._size = int(self._ends[-1]) if len(self._ends) else 0

    def __len__(self) -> int:
        return -(-max(self._size - 1, 0) // self.length)  # the last token has nothing to predict

    def take(self, rows: Indices) -> LanguageBatch:
        """The rows with these numbers, `[len(rows), length]`."""
        first = np.asarray(rows, np.int64)[:, None] * self.length
        places = first + np.arange(self.length + 1)
        document = np.searchsorted(self._ends, places, side="right")
        begins = np.concatenate([[0], self._ends])[document]
        ids = self._ids(places, document, begins)
        inside = places[:, 1:] < self._size
        if self.apart:
            inside &= document[:, 1:] == document[:, :-1]
        inputs, labels = ids[:, :-1], np.where(inside, ids[:, 1:], NOTHING)
        if not self.apart:
            return LanguageBatch(inputs, labels)
        places, document, begins = (x[:, :-1] for x in (places, document, begins))
        segments = np.where(places < self._size, document - document[:, :1] + 1, 0)
        positions = places - np.maximum(begins, first)
        return LanguageBatch(inputs, labels, segments.astype(np.int32), positions.astype(np.int32))

    def _ids(self, places: Places, document: Places, begins: Places) -> Int[np.ndarray, "B T"]:
        """The tokens at these places, each in a `document` that begins at `begins`; 0 beyond the last document."""
        ids = np.zeros(places.shape, np.int32)
        bos = (places == begins) & self.apart & (places < self._size)
        eos = np.isin(places + 1, self._ends)
        known = (places < self._size) & ~bos & ~eos
        ids[bos], ids[eos] = BOS, EOS
        ids[known] = self._tokens.take((places - self._added * document - self.apart)[known])
        return ids


def training_rows(rows: Rows, count: int, shards: int, seed: int, share: Share = ALONE) -> grain.DatasetIterator:
    """An endless iterator of batches of `count` rows, this process's part of each; every epoch in another order.

    Raises `UserError` where the rows of a batch do not divide by its shards.
    """
    check_rows("batch_rows", count, shards)
    numbers = grain.MapDataset.range(len(rows)).seed(seed).shuffle().repeat(EPOCHS).batch(count)
    batches = numbers.map(lambda batch: rows.take(batch[share.of(count)]))
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=16)))


def evaluation_rows(rows: Rows, count: int) -> Iterable[LanguageBatch]:
    """Every row once, in order, `count` at a time; the unused rows of the last batch predict nothing."""
    for start in range(0, len(rows), count):
        batch = rows.take(np.minimum(np.arange(start, start + count), len(rows) - 1))
        batch.labels[len(rows) - start :] = NOTHING
        yield batch
