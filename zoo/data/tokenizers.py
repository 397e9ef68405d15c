"""From lines of text to ids and back: SentencePiece (unigram, BPE) and the word vocabularies of the 2014 papers.

Every tokenizer gives the first four ids the same meaning, so models, losses and decoding never ask which one is used.
"""

import json
import os
import re
import unicodedata
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import sentencepiece
from etils import epath
from jaxtyping import Int

from zoo.errors import UserError, nearest

PAD, BOS, EOS, UNK = 0, 1, 2, 3
SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")  # the names of those ids, in order

Kind = Literal["unigram", "bpe", "word"]
Row = Sequence[int] | Int[np.ndarray, "_"]
Rows = Sequence[Row] | Int[np.ndarray, "_ _"]

sentencepiece.set_min_log_level(2)  # the library reports its progress on standard error, line upon line


@runtime_checkable
class Tokenizer(Protocol):
    """What the zoo asks of a tokenizer. Instances are immutable and can be pickled, so data workers can share them;
    those that read and write alike are equal."""

    @property
    def size(self) -> int:
        """Rows of the embedding: every id is below it."""

    def encode(self, lines: list[str]) -> list[list[int]]:
        """The ids of each line, without BOS and EOS."""

    def decode(self, ids: Rows) -> list[str]:
        """The text of each row: what stands before its first EOS, PAD and BOS left out. Rows may be NumPy arrays."""

    def pieces(self, line: str) -> list[str]:
        """The surface of each id of `encode([line])`, for axis labels; SentencePiece marks a space as "▁"."""

    def words(self, line: str) -> list[int]:
        """The index in `line.split()` of the word that each id belongs to, for alignments between whole words."""

    def save(self, directory: str | Path, name: str) -> None:
        """Write NAME.model or NAME.words; a reader sees the whole file or none."""


class SentencePiece:
    """Subwords by the unigram model (Kudo 2018) or BPE (Sennrich et al. 2016), as the library of that name has them."""

    suffix = ".model"

    def __init__(self, model: bytes):
        """`model` is a serialized SentencePiece model whose first ids are `SPECIALS`; RuntimeError if it isn't one."""
        self._model = sentencepiece.SentencePieceProcessor(model_proto=model)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SentencePiece) and self._proto() == other._proto()

    def __hash__(self) -> int:
        return hash(self._proto())

    def _proto(self) -> bytes:
        return self._model.serialized_model_proto()

    @classmethod
    def train(
        cls,
        lines: Iterable[str],
        size: int,
        kind: Literal["unigram", "bpe"],
        *,
        symbols: Sequence[str] = (),
        keep_whitespace: bool = False,
        byte_fallback: bool = False,
        character_coverage: float = 0.99999,
        sample: int = 1_000_000,
        seed: int = 0,
        key: str = "data.vocabulary",
    ) -> "SentencePiece":
        """Learn exactly `size` pieces from `lines`, of which a uniform sample of at most `sample` is held in memory.

        The same text and `seed` give the same bytes. Text survives the round trip as it stands: nothing is folded
        together as NFKC would ("…" stays one character, "½" isn't "1/2"), since the output is scored against such
        text. Only spellings that look alike become one, a letter and its combining accent, and any run of white space
        is a single space. `keep_whitespace`, for language models, keeps spaces, tabs and line breaks as they are.

        The default `character_coverage` forgets characters rarer than one in 100,000, the foreign scripts of crawled
        text. `byte_fallback` spells those in UTF-8 bytes, at the price of 256 rows. `symbols` are never split.

        Raises UserError when `size` is too large or too small for the text, or when there is no text; `key` is where
        the user has set it.
        """
        model = BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(_sample(lines, sample, seed)),
                model_writer=model,
                model_type=kind,
                # The library names the smallest size that works only when it has room for the four specials.
                vocab_size=max(size, len(SPECIALS)),
                pad_id=PAD,
                bos_id=BOS,
                eos_id=EOS,
                unk_id=UNK,
                unk_surface=SPECIALS[UNK],
                normalizer=_normalizer(keep_whitespace),
                user_defined_symbols=[*symbols, *(["\n", "\t"] if keep_whitespace else [])],
                byte_fallback=byte_fallback,
                character_coverage=character_coverage,
                split_digits=True,  # a number is copied digit by digit; whole numbers would be rare pieces
                max_sentence_length=2**30,  # bytes; longer lines would be dropped without a word
                num_threads=16,  # is written into the model, so the machine's own count would change its bytes
                minloglevel=2,
            )
        except RuntimeError as error:
            raise _size_error(error, size, kind, key) or error from None
        return cls(model.getvalue())

    @property
    def size(self) -> int:
        return self._model.get_piece_size()

    def encode(self, lines: list[str]) -> list[list[int]]:
        return self._model.encode(list(lines), num_threads=os.cpu_count())

    def decode(self, ids: Rows) -> list[str]:
        rows = [_text_ids(row) for row in ids]
        return self._model.decode(rows) if rows else []  # the library takes no rows for one row without ids

    def pieces(self, line: str) -> list[str]:
        return self._model.encode(line, out_type=str)

    def words(self, line: str) -> list[int]:
        index, word, after_space = [], -1, False
        for piece in self.pieces(line):
            surface = piece.replace("▁", " ")
            # A piece of white space alone belongs to the word that follows it, which then doesn't count again.
            word += not after_space and (surface[0].isspace() or word < 0)
            after_space = surface.isspace()
            index.append(word)
        last = max(len(line.split()) - 1, 0)  # white space kept at the end of the line has no word after it
        return [min(word, last) for word in index]

    def save(self, directory: str | Path, name: str) -> None:
        _write(epath.Path(directory) / (name + self.suffix), self._proto())

    @classmethod
    def load(cls, content: bytes) -> "SentencePiece":
        """Undo `save`. Raises ValueError when `content` is no such file."""
        if not content:
            raise ValueError("it is empty")  # which the library takes for a model without pieces
        try:
            tokenizer = cls(content)
        except RuntimeError as error:
            raise ValueError("it is truncated or no SentencePiece model") from error
        first = tuple(tokenizer._model.id_to_piece(list(range(min(tokenizer.size, len(SPECIALS))))))
        if first != SPECIALS:
            raise ValueError(f"its first pieces are {', '.join(first)} and not {', '.join(SPECIALS)}")
        return tokenizer


class WordVocabulary:
    """White-space separated words, the most frequent first, <unk> for all others (Sutskever, Cho, Bahdanau 2014)."""

    suffix = ".words"

    def __init__(self, words: Sequence[str]):
        """`words` are the rows after the specials, each once."""
        self._words = (*SPECIALS, *words)
        # Only words of the text: a "</s>" in it is unknown, and never the end of the sentence.
        self._ids = {word: row for row, word in enumerate(words, start=len(SPECIALS))}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WordVocabulary) and self._words == other._words

    def __hash__(self) -> int:
        return hash(self._words)

    @classmethod
    def train(
        cls, lines: Iterable[str], size: int, *, symbols: Sequence[str] = (), key: str = "data.vocabulary"
    ) -> "WordVocabulary":
        """Keep `symbols` and the most frequent words, `size` rows with the specials; ties fall in alphabetical order.

        Raises UserError when the text has fewer words than that, or none; `key` is where the user has set `size`.
        """
        counts = Counter(word for line in lines for word in line.split())
        if not counts:
            raise UserError("the tokenizer's training text is empty: check the files that data.path names")
        for word in (*symbols, SPECIALS[UNK]):  # <unk> in a text prepared beforehand is our own UNK
            counts.pop(word, None)
        room, most = size - len(SPECIALS) - len(symbols), len(counts) + len(SPECIALS) + len(symbols)
        if not 0 < room <= len(counts):
            direction = "small" if room <= 0 else "large"
            remedy = f"at least {size - room + 1}" if room <= 0 else f"at most {most}"
            raise UserError(f"{key}={size} is too {direction} for the words of this text: set it to {remedy}")
        frequent = sorted(counts, key=lambda word: (-counts[word], word))
        return cls([*symbols, *islice(frequent, room)])

    @property
    def size(self) -> int:
        return len(self._words)

    def encode(self, lines: list[str]) -> list[list[int]]:
        return [[self._ids.get(word, UNK) for word in line.split()] for line in lines]

    def decode(self, ids: Rows) -> list[str]:
        return [" ".join(self._words[i] for i in _text_ids(row)) for row in ids]

    def pieces(self, line: str) -> list[str]:
        return line.split()

    def words(self, line: str) -> list[int]:
        return list(range(len(line.split())))

    def save(self, directory: str | Path, name: str) -> None:
        # The count in front tells a truncated file from a shorter vocabulary.
        text = "".join(f"{row}\n" for row in (self.size, *self._words))
        _write(epath.Path(directory) / (name + self.suffix), text.encode())

    @classmethod
    def load(cls, content: bytes) -> "WordVocabulary":
        """Undo `save`. Raises ValueError when `content` is no such file."""
        count, *rows = content.decode(errors="replace").split("\n")
        if not count.isdecimal() or tuple(rows[: len(SPECIALS)]) != SPECIALS:
            raise ValueError(f"it doesn't begin with a count and {', '.join(SPECIALS)}")
        if rows.pop() != "" or len(rows) != int(count):
            raise ValueError(f"it is truncated: {len(rows)} of {count} rows")
        return cls(rows[len(SPECIALS) :])


class Bytes:
    """The bytes of the text in UTF-8: 256 ids behind the specials, for any text, with nothing to learn."""

    suffix = ".bytes"

    @property
    def size(self) -> int:
        return len(SPECIALS) + 256

    def encode(self, lines: list[str]) -> list[list[int]]:
        return [(np.frombuffer(line.encode(), np.uint8) + np.int32(len(SPECIALS))).tolist() for line in lines]

    def decode(self, ids: Rows) -> list[str]:
        rows = ([i - len(SPECIALS) for i in _text_ids(row) if i >= len(SPECIALS)] for row in ids)
        return [bytes(row).decode(errors="replace") for row in rows]

    def pieces(self, line: str) -> list[str]:
        return [chr(byte) if 32 < byte < 127 else f"<{byte:02x}>" for byte in line.encode()]

    def words(self, line: str) -> list[int]:
        return [word for character, word in _words_of_characters(line) for _ in character.encode()]

    def save(self, directory: str | Path, name: str) -> None:
        _write(epath.Path(directory) / (name + self.suffix), b"UTF-8\n")

    @classmethod
    def load(cls, content: bytes) -> "Bytes":
        """Undo `save`. Raises ValueError when `content` is no such file."""
        if content != b"UTF-8\n":
            raise ValueError("it doesn't name UTF-8")
        return cls()


class Characters:
    """The characters of the text, the most frequent first, <unk> for all others."""

    suffix = ".characters"

    def __init__(self, characters: str):
        """`characters` are the rows after the specials, each once."""
        self._characters = characters
        self._ids = {character: row for row, character in enumerate(characters, start=len(SPECIALS))}

    @classmethod
    def train(cls, lines: Iterable[str], size: int) -> "Characters":
        """Keep the most frequent characters, at most `size` rows with the specials; ties fall in the order of Unicode.

        Raises UserError when there is no text, or no room for any of it.
        """
        counts = Counter()
        for line in lines:
            counts.update(line)
        if not counts:
            raise UserError("the tokenizer's training text is empty: check the files that data.path names")
        if size <= len(SPECIALS):
            raise UserError(f"data.vocabulary={size} leaves no room for characters: use at least {len(SPECIALS) + 1}")
        return cls("".join(sorted(counts, key=lambda c: (-counts[c], c))[: size - len(SPECIALS)]))

    @property
    def size(self) -> int:
        return len(SPECIALS) + len(self._characters)

    def encode(self, lines: list[str]) -> list[list[int]]:
        return [[self._ids.get(character, UNK) for character in line] for line in lines]

    def decode(self, ids: Rows) -> list[str]:
        rows = (*SPECIALS, *self._characters)
        return ["".join(rows[i] for i in _text_ids(row)) for row in ids]

    def pieces(self, line: str) -> list[str]:
        return list(line)

    def words(self, line: str) -> list[int]:
        return [word for _, word in _words_of_characters(line)]

    def save(self, directory: str | Path, name: str) -> None:
        _write(epath.Path(directory) / (name + self.suffix), json.dumps(self._characters).encode())

    @classmethod
    def load(cls, content: bytes) -> "Characters":
        """Undo `save`. Raises ValueError when `content` is no such file."""
        characters = json.loads(content)
        if not isinstance(characters, str) or not characters or len(set(characters)) < len(characters):
            raise ValueError("it is no text of different characters")
        return cls(characters)


KINDS = ("unigram", "bpe", "word", "bytes", "characters")
READERS = (SentencePiece, WordVocabulary, Bytes, Characters)


def train(kind: str, lines: Iterable[str], size: int, **options: Any) -> Tokenizer:
    """Train a tokenizer of `size` rows; `options` are those of the kind's own `train`. Raises UserError as they do."""
    if kind == "bytes":
        return Bytes()
    if kind == "characters":
        return Characters.train(lines, size)
    if kind == "word":
        return WordVocabulary.train(lines, size, **options)
    if kind in ("unigram", "bpe"):
        return SentencePiece.train(lines, size, kind, **options)
    raise UserError(f"unknown kind of tokenizer {kind!r}: {nearest(kind, KINDS)}")


def load(directory: str | Path, name: str) -> Tokenizer:
    """Read back what `save` wrote. Raises UserError when the file is missing, truncated or foreign."""
    paths = {epath.Path(directory) / (name + reader.suffix): reader for reader in READERS}
    present = [path for path in paths if path.exists()]
    if len(present) != 1:
        state = "all there" if present else "missing"
        remedy = "delete those not trained with" if present else "copy it from where it was trained, or train again"
        raise UserError(f"tokenizer files {' and '.join(map(str, present or paths))} are {state}: {remedy}")
    (path,) = present
    try:
        return paths[path].load(path.read_bytes())
    except ValueError as error:
        raise UserError(
            f"{path} can't be read, {error}: copy it again from where it was trained, or delete it and train again"
        ) from error


def _sample(lines: Iterable[str], most: int, seed: int) -> list[str]:
    """At most `most` of the lines that hold text, each as likely as any other (Vitter 1985, algorithm R).

    The library could sample by itself, but it would swallow the errors that reading `lines` raises.
    """
    random, kept = Random(seed), []
    for seen, line in enumerate(filter(str.strip, lines)):
        if seen < most:
            kept.append(line)
        elif (place := random.randrange(seen + 1)) < most:
            kept[place] = line
    if not kept:
        raise UserError("the tokenizer's training text is empty: check the files that data.path names")
    return kept


def _normalizer(keep_whitespace: bool) -> sentencepiece.SentencePieceNormalizer:
    """Canonical composition, and unless `keep_whitespace` any white space to one space; it is stored in the model.

    The rules stop below the Hangul syllables, whose eleven thousand would make up nine tenths of the table.
    """
    rules = []
    for character in map(chr, range(0xAC00)):
        decomposed = unicodedata.normalize("NFD", character)
        if decomposed != character and unicodedata.normalize("NFC", decomposed) == character:
            rules.append((decomposed, character))
        elif character.isspace() and character != " " and not keep_whitespace:
            rules.append((character, " "))
    return sentencepiece.SentencePieceNormalizer(norm_map=rules, remove_extra_whitespaces=not keep_whitespace)


def _size_error(error: RuntimeError, size: int, kind: str, key: str) -> UserError | None:
    """The library's complaint about the vocabulary's size in the user's terms; None when it is about something else."""
    message = f"{key}={size} is too {{}} for {kind} pieces of this text: set it to {{}}"
    if most := re.search(r"Vocabulary size too high .* <= (\d+)", str(error)):
        return UserError(message.format("large", f"at most {most[1]}"))
    if least := re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(error)):
        return UserError(message.format("small", f"at least {least[1]}"))
    return None


def _words_of_characters(line: str) -> Iterator[tuple[str, int]]:
    """Each character with the index in `line.split()` of its word; white space belongs to the word that follows."""
    last = max(len(line.split()) - 1, 0)
    word, in_word = 0, False
    for character in line:
        word += in_word and character.isspace()
        in_word = not character.isspace()
        yield character, min(word, last)


def _text_ids(row: Row) -> list[int]:
    ids = np.asarray(row).tolist()
    end = ids.index(EOS) if EOS in ids else len(ids)
    return [i for i in ids[:end] if i not in (PAD, BOS)]


def _write(path: epath.Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f".{path.name}.{uuid.uuid4().hex}"  # several hosts may write the same file at once
    partial.write_bytes(content)
    partial.replace(path)
