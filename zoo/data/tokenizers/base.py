"""What all tokenizers share: the protocol, and how rows become text and files."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from os import PathLike
from typing import ClassVar, Protocol, TypeVar, runtime_checkable

import numpy as np
from etils import epath
from jaxtyping import Int

from zoo.data.specials import BOS, EOS, PAD
from zoo.storage import write_whole

PART = 2**18  # characters of a long text that are looked at together
SPACE = re.compile(r"(?<=\S) (?=\S)")  # between words: SentencePiece writes it before every line anyway
TOGETHER = 2**22  # characters that are encoded in one batch

T = TypeVar("T")
Row = Sequence[int] | Int[np.ndarray, "_"]
Rows = Sequence[Row] | Int[np.ndarray, "_ _"]


@runtime_checkable
class Tokenizer(Protocol):
    """The contract of a tokenizer. Instances are immutable and can be pickled, so data workers can share them. Two that
    encode and decode alike are equal."""

    @property
    def size(self) -> int:
        """Rows of the embedding: every id is below it."""

    def encode(self, lines: list[str]) -> list[list[int]]:
        """The ids of each line, without BOS and EOS."""

    def decode(self, ids: Rows) -> list[str]:
        """The text of each row up to its first EOS, without PAD and BOS. Rows may be NumPy arrays."""

    def pieces(self, line: str) -> list[str]:
        """The surface of each id of `encode([line])`, for axis labels; SentencePiece marks a space as "▁"."""

    def piece(self, row: int) -> str:
        """The piece of a row of the embeddings, as it is stored."""

    def words(self, line: str) -> list[int]:
        """The index in `line.split()` of the word that each id belongs to, for alignments between whole words."""

    def content(self) -> bytes:
        """What `save` writes: everything that decides how it encodes and decodes."""

    def save(self, directory: str | PathLike, name: str) -> None:
        """Write one file, NAME and the suffix of the kind; a reader sees the whole file or none."""


class Saved:
    """A tokenizer whose `content()` is one file, with the `suffix` of its kind."""

    suffix: ClassVar[str]

    def save(self, directory: str | PathLike, name: str) -> None:
        write_whole(epath.Path(directory) / (name + self.suffix), self.content())


def text_ids(row: Row) -> list[int]:
    ids = np.asarray(row).tolist()
    end = ids.index(EOS) if EOS in ids else len(ids)
    return [i for i in ids[:end] if i not in (PAD, BOS)]


class WordMemory:
    """Encodes texts word by word, each distinct word once: books of millions of words have few distinct ones.

    This also keeps texts of many megabytes from the libraries, whose time and memory grow faster than the text.
    """

    MOST = 2**19  # words, and characters of a single one, above which all are forgotten

    def __init__(
        self, words: Callable[[str], list[str]], gap: re.Pattern[str], encode: Callable[[list[str]], list[list[int]]]
    ):
        """A word of `words(text)` must be encoded the same alone and within the text. A match of `gap` must never be
        inside a word, and splitting a text there must not change the words on either side."""
        self._words, self._gap, self._encode = words, gap, encode
        self._known: dict[str, list[int]] = {}

    def __call__(self, texts: Iterable[str]) -> list[list[int]]:
        return [list(chain.from_iterable(map(self._part, _parts(text, self._gap)))) for text in texts]

    def _part(self, text: str) -> list[int]:
        known, words = self._known, self._words(text)
        if new := list(set(words).difference(known)):
            known.update(zip(new, self._encode(new), strict=True))
            if len(known) > self.MOST or max(map(len, new)) > self.MOST:
                self._known = {}  # another one, since a thread may still read the old
        return list(chain.from_iterable(map(known.__getitem__, words)))


def together(texts: Iterable[T], length: Callable[[T], int]) -> Iterator[list[T]]:
    """The texts in order, in batches of about `TOGETHER` characters."""
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += length(text) + 1
        if size >= TOGETHER:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _parts(text: str, gap: re.Pattern[str]) -> Iterator[str]:
    start = 0
    while len(text) - start > PART and (found := gap.search(text, start + PART)):
        yield text[start : found.start()]
        start = found.end()
    yield text[start:]


def words_of_characters(line: str) -> Iterator[tuple[str, int]]:
    """Each character with the index in `line.split()` of its word; white space belongs to the word that follows."""
    last = max(len(line.split()) - 1, 0)
    word, in_word = 0, False
    for character in line:
        word += in_word and character.isspace()
        in_word = not character.isspace()
        yield character, min(word, last)
