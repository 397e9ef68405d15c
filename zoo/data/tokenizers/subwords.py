"""Subwords learned from text: SentencePiece's unigram model and BPE."""

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from random import Random
from typing import Literal

import sentencepiece

from zoo.data.specials import BOS, EOS, PAD, SPECIALS, UNK
from zoo.data.tokenizers.base import SPACE, Rows, Saved, WordMemory, text_ids
from zoo.errors import UserError

sentencepiece.set_min_log_level(2)  # the library reports its progress on standard error, line upon line


@dataclass(frozen=True)
class Alphabet:
    """What can be written with the pieces.

    Text survives the round trip unchanged: nothing is folded as NFKC would ("…" stays one character, "½" does not
    become "1/2"), since the output is scored against such text. Only canonically equal spellings are unified (a letter
    and its combining accent), and any run of white space becomes one space. `keep_whitespace`, for language models,
    keeps spaces, tabs and line breaks as they are.

    The default `coverage` drops characters rarer than one in 100,000, such as foreign scripts in crawled text.
    `byte_fallback` spells them in UTF-8 bytes, at the cost of 256 rows.
    """

    keep_whitespace: bool = False
    byte_fallback: bool = False
    coverage: float = 0.99999


CRAWLED = Alphabet()
# The library writes "▁" for a space, and so would read a "▁" of the text as one. It is given a character for private
# use instead, and another one marks those two where the text itself has them.
BAR, STAND_IN, MARK = "▁", "\U0010fffc", "\U0010fffd"
ESCAPES = {BAR: STAND_IN, STAND_IN: MARK + STAND_IN, MARK: MARK + MARK}
ESCAPED = re.compile(f"{STAND_IN}|{MARK}[{STAND_IN}{MARK}]")
MEANT = {escape: character for character, escape in ESCAPES.items()}
TO_ESCAPE = str.maketrans(ESCAPES)
LOSSLESS = Alphabet(keep_whitespace=True, byte_fallback=True)


class SentencePiece(Saved):
    """Subwords by the unigram model (Kudo 2018) or BPE (Sennrich et al. 2016), as the library of that name has them."""

    suffix = ".model"

    def __init__(self, model: bytes):
        """`model` is a serialized SentencePiece model whose first ids are `SPECIALS`; RuntimeError if it isn't one."""
        self._model = sentencepiece.SentencePieceProcessor(model_proto=model)
        self._memory = WordMemory(SPACE.split, SPACE, self._encode)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SentencePiece) and self.content() == other.content()

    def __hash__(self) -> int:
        return hash(self.content())

    def content(self) -> bytes:
        return self.model()

    def model(self) -> bytes:
        """The SentencePiece model."""
        return self._model.serialized_model_proto()

    def piece(self, row: int) -> str:
        """The piece of a row of the embeddings."""
        return self._model.id_to_piece(row)

    @classmethod
    def train(
        cls,
        lines: Iterable[str],
        size: int,
        kind: Literal["unigram", "bpe"],
        *,
        symbols: Sequence[str] = (),
        alphabet: Alphabet = CRAWLED,
        sample: int = 1_000_000,
        seed: int = 0,
        key: str = "data.vocabulary",
    ) -> "SentencePiece":
        """Learn exactly `size` pieces from a uniform sample of at most `sample` of the `lines`, which is held in
        memory.

        The same text and `seed` give the same bytes. `symbols` are never split.

        Raises UserError if `size` is too large or too small for the text, or if there is no text; `key` is the option
        that sets it.
        """
        model = BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=map(_escaped, _sample(lines, sample, seed)),
                model_writer=model,
                model_type=kind,
                # The library names the smallest size that works only when it has room for the four specials.
                vocab_size=max(size, len(SPECIALS)),
                pad_id=PAD,
                bos_id=BOS,
                eos_id=EOS,
                unk_id=UNK,
                unk_surface=SPECIALS[UNK],
                normalizer=_normalizer(alphabet.keep_whitespace),
                user_defined_symbols=[*symbols, *(["\n", "\t"] if alphabet.keep_whitespace else [])],
                byte_fallback=alphabet.byte_fallback,
                character_coverage=alphabet.coverage,
                split_digits=True,  # a number is copied digit by digit; whole numbers would be rare pieces
                max_sentence_length=2**30,  # bytes; longer lines would be dropped silently
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
        return self._memory(map(_escaped, lines))

    def _encode(self, words: list[str]) -> list[list[int]]:
        return self._model.encode(words, num_threads=os.cpu_count())

    def decode(self, ids: Rows) -> list[str]:
        rows = [text_ids(row) for row in ids]
        lines = self._model.decode(rows) if rows else []  # the library takes no rows for one row without ids
        return [ESCAPED.sub(lambda found: MEANT[found[0]], line) for line in lines]

    def pieces(self, line: str) -> list[str]:
        return self._model.encode(_escaped(line), out_type=str)

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

    @classmethod
    def load(cls, content: bytes) -> "SentencePiece":
        """Undo `save`. Raises ValueError if `content` is not of this kind."""
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


def _escaped(line: str) -> str:
    # Looking for three characters is far quicker than to translate a line that has none of them.
    return line.translate(TO_ESCAPE) if any(character in line for character in ESCAPES) else line


def _sample(lines: Iterable[str], most: int, seed: int) -> list[str]:
    """A uniform sample of at most `most` of the lines that hold text (Vitter 1985, algorithm R).

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
    """The library's error about the vocabulary's size, in the user's terms; None for any other error."""
    message = f"{key}={size} is too {{}} for {kind} pieces of this text: set it to {{}}"
    if most := re.search(r"Vocabulary size too high .* <= (\d+)", str(error)):
        return UserError(message.format("large", f"at most {most[1]}"))
    if least := re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(error)):
        return UserError(message.format("small", f"at least {least[1]}"))
    return None
