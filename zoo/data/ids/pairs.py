"""Pairs of sentences as token ids: kept in memory, or made as they are asked for."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

import numpy as np

from zoo.data.examples.pairs import Pair
from zoo.data.ids import fingerprints
from zoo.data.ids.base import Ids, Indices, TokenPair, length
from zoo.data.phrases.pairs import Phrases
from zoo.data.tokenizers import Tokenizer
from zoo.errors import UserError

CHUNK = 10_000  # pairs that are tokenized together
PROBED = 1000  # pairs of an endless source that are looked at before training

log = logging.getLogger("zoo")


@dataclass(frozen=True)
class Limits:
    """The limits of a pair: at most `max_length` positions a side, with EOS, and at most `max_ratio` times as many
    tokens on one side as on the other (0: no limit)."""

    max_length: int
    max_ratio: float = 0.0

    def broken(self, pair: TokenPair) -> str | None:
        """Why `pair` is dropped, or `None`."""
        short, long = sorted(map(len, pair))
        if short == 0:
            return "an empty side"
        if length(pair) > self.max_length:
            return f"more than data.max_length={self.max_length} tokens"
        if self.max_ratio and long > self.max_ratio * short:
            return f"a length ratio above data.max_ratio={self.max_ratio:g}"
        return None


@dataclass
class Encoder:
    """Encodes pairs of texts as ids with the tokenizers of both sides; `dropped` counts the dropped pairs by reason."""

    source: Tokenizer
    target: Tokenizer
    limits: Limits
    dropped: Counter = field(default_factory=Counter)

    @property
    def reasons(self) -> str:
        """The pairs that were dropped, in words."""
        return "; ".join(f"{count} with {reason}" for reason, count in self.dropped.items())

    def __call__(self, pairs: Iterable[Pair]) -> Iterator[TokenPair]:
        pairs = iter(pairs)
        while chunk := list(islice(pairs, CHUNK)):
            sides = zip(*chunk, strict=True)
            encoded = (t.encode(list(side)) for t, side in zip((self.source, self.target), sides, strict=True))
            for source, target in zip(*encoded, strict=True):
                pair = np.asarray(source, np.int32), np.asarray(target, np.int32)
                reason = self.limits.broken(pair)
                if reason is None:
                    yield pair
                else:
                    self.dropped[reason] += 1


class StoredPairs:
    """All pairs of a finite source, as flat arrays of ids."""

    in_random_order = False

    def __init__(self, pairs: Iterable[TokenPair]):
        sides: tuple[list, list] = ([], [])
        for pair in pairs:
            for side, ids in zip(sides, pair, strict=True):
                side.append(ids)
        self._sides = [_Ragged(side) for side in sides]

    @classmethod
    def read(cls, source: Iterable[Pair], encoder: Encoder, name: str) -> "StoredPairs":
        """Tokenize all of `source`; `name` names the data in errors."""
        stored = cls(encoder(source))
        if not len(stored):
            raise UserError(f"no sentence pairs are left of {name}: {encoder.reasons or 'it is empty'}")
        return stored

    def __len__(self) -> int:
        return len(self._sides[0])

    def fetch(self, indices: Indices) -> list[TokenPair]:
        source, target = self._sides
        return [(source[i], target[i]) for i in indices]

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the ids of both sides."""
        return fingerprints.of_arrays(array for side in self._sides for array in side.arrays)

    @cached_property
    def longest(self) -> int:
        """Positions that the longest pair needs, as `zoo.data.ids.base.length` counts them."""
        return max(side.longest for side in self._sides) + 1


class StreamedPairs:
    """Pairs of an endless source, tokenized when they are fetched."""

    in_random_order = True

    def __init__(self, source: Sequence[Pair], encoder: Encoder, fingerprint: str = ""):
        """`fingerprint` names the source: endless pairs cannot be read to compute one."""
        self._source, self._encoder, self.fingerprint = source, encoder, fingerprint

    @classmethod
    def begun(cls, source: Phrases, encoder: Encoder, name: str) -> "StreamedPairs":
        """The pairs of `source`, after a look at the first: it reports how many of them are dropped."""
        first = list(encoder(source[i] for i in range(min(PROBED, len(source)))))
        dropped = encoder.dropped.total()
        if not first:
            raise UserError(f"no sentence pairs are left of {name}: {encoder.reasons}, of the first {dropped}")
        if dropped:
            log.info("%s: dropped of the first %d pairs: %s", name, dropped + len(first), encoder.reasons)
        return cls(source, encoder, fingerprints.of_values(source.identity()))

    def __len__(self) -> int:
        return len(self._source)

    def fetch(self, indices: Indices) -> list[TokenPair]:
        return list(self._encoder(self._source[int(i)] for i in indices))


class _Ragged:
    """Arrays of different lengths in one flat array: 4 bytes per token, however many sentences there are."""

    def __init__(self, rows: list[Ids]):
        self._starts = np.cumsum([0, *map(len, rows)])
        self._flat = np.concatenate(rows) if rows else np.zeros(0, np.int32)

    def __len__(self) -> int:
        return len(self._starts) - 1

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each row begins, and all rows concatenated."""
        return self._starts, self._flat

    @property
    def longest(self) -> int:
        return int(np.diff(self._starts).max(initial=0))

    def __getitem__(self, index: int | np.integer) -> Ids:
        return self._flat[self._starts[index] : self._starts[index + 1]]
