"""From lines of text to ids and back.

In every tokenizer the first four ids have the same meaning, so models, losses and decoding need not know which one is
used.
"""

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

from etils import epath

from zoo.data.specials import BOS, EOS, PAD, SPECIALS, UNK
from zoo.data.tokenizers.base import Row, Rows, Tokenizer
from zoo.data.tokenizers.characters import Bytes, Characters
from zoo.data.tokenizers.gpt1 import GPT1
from zoo.data.tokenizers.gpt2 import GPT2
from zoo.data.tokenizers.marian import MarianPieces
from zoo.data.tokenizers.published_bpe import SHIFT
from zoo.data.tokenizers.subwords import LOSSLESS, Alphabet, SentencePiece
from zoo.data.tokenizers.words import WordVocabulary
from zoo.errors import UserError, nearest

__all__ = [
    "BOS",
    "EOS",
    "GPT1",
    "GPT2",
    "KINDS",
    "LEARNED",
    "LOSSLESS",
    "PAD",
    "PUBLISHED",
    "READERS",
    "SHIFT",
    "SPECIALS",
    "UNK",
    "Alphabet",
    "Bytes",
    "Characters",
    "MarianPieces",
    "Row",
    "Rows",
    "SentencePiece",
    "Tokenizer",
    "WordVocabulary",
    "load",
    "published",
    "train",
    "train_lossless",
]

KINDS = ("unigram", "bpe", "word", "bytes", "characters")
LEARNED = ("bpe", "unigram", "bytes", "characters")  # those that a language model may learn from its own text
PUBLISHED: dict[str, type[GPT1] | type[GPT2]] = {"gpt1": GPT1, "gpt2": GPT2}
READERS = (SentencePiece, WordVocabulary, Bytes, Characters, GPT1, GPT2, MarianPieces)
_OF_KIND = {"unigram": SentencePiece, "bpe": SentencePiece, "word": WordVocabulary, "bytes": Bytes}
_OF_KIND |= {"characters": Characters} | PUBLISHED


def train(kind: str, lines: Iterable[str], size: int, **options: Any) -> Tokenizer:
    """Train a tokenizer of `size` rows; `options` are those of the kind's own `train`, which may raise UserError."""
    if kind == "bytes":
        return Bytes()
    if kind == "characters":
        return Characters.train(lines, size)
    if kind == "word":
        return WordVocabulary.train(lines, size, **options)
    if kind in ("unigram", "bpe"):
        return SentencePiece.train(lines, size, kind, **options)
    raise UserError(f"unknown kind of tokenizer {kind!r}: {nearest(kind, KINDS)}")


def train_lossless(kind: str, lines: Iterable[str], size: int) -> Tokenizer:
    """`train` one of `LEARNED` for language models: subwords keep white space, and spell unknown characters in
    bytes."""
    options = {"alphabet": LOSSLESS} if kind in ("unigram", "bpe") else {}
    return train(kind, lines, size, **options)


def published(name: str, directory: str | Path, key: str = "data.vocabulary_files") -> Tokenizer:
    """The tokenizer of a published model, one of `PUBLISHED`, from its vocabulary files in `directory`.

    Raises UserError if they are missing, truncated or another model's; `key` is the option that names `directory`.
    """
    return PUBLISHED[name].published(directory, key)


def load(directory: str | PathLike, name: str, kind: str = "") -> Tokenizer:
    """Read what `save` wrote.

    Raises UserError if the file is missing, truncated or foreign. `kind` is only named in the error for a missing file;
    a file of any kind is read."""
    paths = {epath.Path(directory) / (name + reader.suffix): reader for reader in READERS}
    present = [path for path in paths if path.exists()]
    if not present:
        missed = epath.Path(directory) / (name + (_OF_KIND[kind].suffix if kind else ".*"))
        raise UserError(f"no tokenizer {missed}: copy it from where it was trained, or train again")
    if len(present) > 1:
        raise UserError(f"tokenizers {' and '.join(map(str, present))} are all there: delete those not trained with")
    (path,) = present
    try:
        return paths[path].load(path.read_bytes())
    except ValueError as error:
        raise UserError(
            f"{path} can't be read, {error}: copy it again from where it was trained, or delete it and train again"
        ) from error
