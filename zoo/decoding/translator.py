"""Lines in, translations out: text to ids, batches of few shapes, a search, and back to text."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from zoo.data.specials import BOS, EOS, PAD
from zoo.data.tokenizers import Tokenizer
from zoo.decoding.ancestral import Draws, sample
from zoo.decoding.arranged import arranged
from zoo.decoding.beam import NEVER, BeamConfig, Hypotheses, Request, beam_search
from zoo.errors import UserError
from zoo.models.base import Decodable

log = logging.getLogger("zoo")
SHORTEST = 16  # the smallest padded length of a source; longer ones double


@dataclass(frozen=True)
class Translation:
    """One hypothesis: its text, its length-normalized log-probability, and its ids without EOS. `attention`, if
    requested, has the weights of each id and EOS on the source's pieces and EOS.
    """

    text: str
    score: float
    tokens: list[int]
    attention: Float[np.ndarray, "T S"] | None = None


def distinct(translations: Iterable[Translation]) -> list[Translation]:
    """The first of every distinct text, in order: several segmentations may spell one text."""
    first: dict[str, Translation] = {}
    for translation in translations:
        first.setdefault(translation.text, translation)
    return list(first.values())


def encoded(tokenizer: Tokenizer, lines: Sequence[str], most: int, first: int = 1) -> list[list[int]]:
    """The ids of each source, cut at `most`, with a warning that names the line; `first` is the number of the first
    line."""
    ids = tokenizer.encode(list(lines))
    for number, row in enumerate(ids, first):
        if len(row) > most:
            log.warning(
                "line %d has %d tokens: only the first %d are translated (--max-length)", number, len(row), most
            )
            del row[most:]
    return ids


class Translator:
    """Translates with one model, by beam search, or by drawing if `draws` is given. Sentences of similar length share a
    batch of `batch_tokens` padded source tokens."""

    def __init__(
        self,
        model: Decodable,
        params: Any,
        source: Tokenizer,
        target: Tokenizer,
        config: BeamConfig,
        batch_tokens: int = 2048,
        draws: Draws | None = None,
    ):
        self.model, self.params, self.source, self.target = model, arranged(model, params), source, target
        self.config, self.batch_tokens, self.draws = config, batch_tokens, draws

    def __call__(
        self,
        lines: Sequence[str],
        attention: bool = False,
        first: int = 1,
        prefixes: Sequence[str] | None = None,
        all_segmentations: bool = False,
    ) -> list[list[Translation]]:
        """The n best translations of every line, best first, or fewer if the search found fewer; or all that were
        drawn.

        Of several hypotheses with the same text, the beam's list keeps only the best, unless `all_segmentations` is
        true. Drawn translations are all kept: how often a text comes up tells how likely it is. An empty or blank line
        has one translation, the empty text. The translation of every other line begins with its entry in `prefixes`. A
        line of more than `decoding.max_length` tokens is cut, with a warning that names it. `first` is the number of
        the first line, which also decides the draws. Raises a `UserError` that names the line if a prefix is longer
        than a translation may be.
        """
        empty = Translation("", 0.0, [], np.zeros((1, 1), np.float32) if attention else None)
        results: list[list[Translation]] = [[empty]] * len(lines)
        ids = encoded(self.source, lines, self.config.max_length, first)
        forced = None if prefixes is None else self._forced(prefixes, ids, first)
        most = 1 << (len(lines) - 1).bit_length()  # a few lines need not wait for a whole batch
        for length, rows in self._batches(ids):
            request = self._request(length, min(self._rows(length), most), ids, rows, forced)
            numbers = np.zeros(len(request.source), np.int32)
            numbers[: len(rows)] = np.array(rows) + first
            found = self._search(request, numbers, attention)
            every = all_segmentations or self.draws is not None
            for i, translations in zip(rows, self._texts(jax.device_get(found), ids, rows), strict=True):
                results[i] = translations if every else distinct(translations)
        return results

    def _search(self, request: Request, numbers: Int[np.ndarray, "B"], attention: bool) -> Hypotheses:
        if self.draws is None:
            return beam_search(self.model, self.params, request, self.config, attention)
        keys, sampling = self.draws.keys(numbers), self.draws.sampling
        return sample(self.model, self.params, request, keys, self.config, sampling, attention)

    def _request(
        self, length: int, size: int, ids: list[list[int]], rows: list[int], forced: list[list[int]] | None
    ) -> Request:
        """`size` sources padded to `length`: those of the lines `rows`, then empty ones."""
        source, limits = np.full((size, length), PAD, np.int32), np.zeros(size, np.int32)
        most = min(length + self.config.max_extra, self.config.max_length) + 1
        prefix = None if forced is None else np.full((size, most), PAD, np.int32)
        for row, i in enumerate(rows):
            source[row, : len(ids[i])], source[row, len(ids[i])] = ids[i], EOS
            limits[row] = self._limit(ids[i])
            if prefix is not None:
                prefix[row, : len(forced[i])] = forced[i]
        return Request(source, limits, most, prefix)

    def _limit(self, ids: list[int]) -> int:
        return min(len(ids) + self.config.max_extra, self.config.max_length)

    def _forced(self, prefixes: Sequence[str], ids: list[list[int]], first: int) -> list[list[int]]:
        forced = self.target.encode(list(prefixes))
        for number, (prefix, row) in enumerate(zip(forced, ids, strict=True), first):
            if row and len(prefix) > self._limit(row):
                raise UserError(
                    f"line {number}: its prefix of {len(prefix)} tokens is longer than the {self._limit(row)} that its "
                    "translation may have: shorten it, or raise decoding.max_length (--max-length) or max_extra"
                )
        return forced

    def _rows(self, length: int) -> int:
        return max(1, self.batch_tokens // length)

    def _batches(self, ids: list[list[int]]) -> Iterator[tuple[int, list[int]]]:
        """Padded lengths, each with its lines; lines without tokens are left out."""
        order = sorted((i for i, row in enumerate(ids) if row), key=lambda i: len(ids[i]))
        start = 0
        while start < len(order):
            length = SHORTEST
            while length <= len(ids[order[start]]):
                length *= 2
            rows = [i for i in order[start : start + self._rows(length)] if len(ids[i]) < length]
            yield length, rows
            start += len(rows)

    def _texts(self, found: Hypotheses, ids: list[list[int]], rows: list[int]) -> list[list[Translation]]:
        real = found.tokens[: len(rows)]
        texts = self.target.decode(real.reshape(-1, real.shape[-1]).tolist())
        beams = real.shape[1]
        return [
            [
                self._translation(found, row, beam, texts[row * beams + beam], len(ids[i]))
                for beam in range(beams)
                if beam == 0 or found.scores[row, beam] > NEVER / 2  # or it only fills the array
            ]
            for row, i in enumerate(rows)
        ]

    def _translation(self, found: Hypotheses, row: int, beam: int, text: str, source: int) -> Translation:
        tokens = [int(t) for t in found.tokens[row, beam] if t not in (PAD, BOS, EOS)]
        looked = found.attention
        if looked is not None:
            looked = looked[row, beam, : len(tokens) + 1, : source + 1]
        return Translation(text, float(found.scores[row, beam]), tokens, looked)
