"""The training stream: pools of examples, cut into batches of similar length, in an order that the seed decides.

grain shuffles, reads ahead and keeps the position: the iterator's state (two numbers) is part of every checkpoint. The
global batch does not depend on the number of processes: each cuts the same pool and keeps its own rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import grain
import numpy as np

from zoo.data.batches.base import ALONE, Seq2SeqBatch, Share
from zoo.data.batches.buckets import Buckets, cut, padded
from zoo.data.ids.base import Indices, TokenPair


@runtime_checkable
class Examples(Protocol):
    in_random_order: bool  # an endless random source is read as it comes, anything else shuffled

    @property
    def fingerprint(self) -> str: ...

    def __len__(self) -> int: ...

    def fetch(self, indices: Indices) -> list[TokenPair]: ...


@dataclass(frozen=True)
class _PoolToBatches(grain.experimental.FlatMapTransform):
    """A pool of example numbers, cut by length; the batches are shuffled, since they were made shortest first."""

    examples: Examples
    buckets: Buckets
    seed: int
    share: Share
    max_fan_out: int = 2**31

    def flat_map(self, pool: tuple[int, np.ndarray]) -> list[Seq2SeqBatch]:
        number, indices = pool
        pairs = self.examples.fetch(indices)
        batches = cut(pairs, self.buckets)
        order = np.random.default_rng((self.seed, number)).permutation(len(batches))
        return [_own_rows(pairs, *batches[i], self.buckets, self.share) for i in order]


def _own_rows(
    pairs: Sequence[TokenPair], boundary: int, chosen: list[int], buckets: Buckets, share: Share
) -> Seq2SeqBatch:
    own = share.of(buckets.rows(boundary))
    return padded([pairs[i] for i in chosen[own]], own.stop - own.start, boundary)


def training_batches(
    examples: Examples, buckets: Buckets, pool: int, seed: int, share: Share = ALONE
) -> grain.DatasetIterator:
    """An endless iterator of `Seq2SeqBatch`, `get_state` and `set_state` included.

    `pool` examples are cut at a time: the more, the less padding. The last pool of an epoch may be smaller, since no
    pool spans two epochs.
    """
    numbers = grain.MapDataset.range(len(examples))
    if not examples.in_random_order:
        numbers = numbers.seed(seed).shuffle()
    pools = numbers.batch(min(pool, len(examples)))
    if not examples.in_random_order:
        pools = pools.repeat()
    pools = pools.map_with_index(lambda number, indices: (number, indices))
    batches = grain.experimental.FlatMapIterDataset(
        pools.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)),
        _PoolToBatches(examples, buckets, seed, share),
    )
    return iter(grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=16))
