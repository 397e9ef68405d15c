"""The smallest vocabularies: bytes and characters."""

import json
from collections import Counter
from collections.abc import Iterable

import numpy as np

from zoo.data.specials import SPECIALS, UNK
from zoo.data.tokenizers.base import Rows, Saved, text_ids, words_of_characters
from zoo.errors import UserError


class Bytes(Saved):
    """The UTF-8 bytes of the text: 256 ids after the specials, for any text, with nothing to learn."""

    suffix = ".bytes"

    @property
    def size(self) -> int:
        return len(SPECIALS) + 256

    def piece(self, row: int) -> str:
        """The byte of a row of the embeddings."""
        return SPECIALS[row] if row < len(SPECIALS) else f"<0x{row - len(SPECIALS):02X}>"

    def encode(self, lines: list[str]) -> list[list[int]]:
        return [(np.frombuffer(line.encode(), np.uint8) + np.int32(len(SPECIALS))).tolist() for line in lines]

    def decode(self, ids: Rows) -> list[str]:
        rows = ([i - len(SPECIALS) for i in text_ids(row) if i >= len(SPECIALS)] for row in ids)
        return [bytes(row).decode(errors="replace") for row in rows]

    def pieces(self, line: str) -> list[str]:
        return [chr(byte) if 32 < byte < 127 else f"<{byte:02x}>" for byte in line.encode()]

    def words(self, line: str) -> list[int]:
        return [word for character, word in words_of_characters(line) for _ in character.encode()]

    def content(self) -> bytes:
        return b"UTF-8\n"

    @classmethod
    def load(cls, content: bytes) -> "Bytes":
        """Undo `save`. Raises ValueError if `content` is not of this kind."""
        if content != b"UTF-8\n":
            raise ValueError("it doesn't name UTF-8")
        return cls()


class Characters(Saved):
    """The characters of the text, the most frequent first, <unk> for all others."""

    suffix = ".characters"

    def __init__(self, characters: str):
        """`characters` are the rows after the specials, each once."""
        self._characters = characters
        self._ids = {character: row for row, character in enumerate(characters, start=len(SPECIALS))}

    @classmethod
    def train(cls, lines: Iterable[str], size: int) -> "Characters":
        """Keep the most frequent characters, at most `size` rows with the specials; ties are ordered as in Unicode.

        Raises UserError if there is no text, or no room for any character.
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

    def piece(self, row: int) -> str:
        """The character of a row of the embeddings."""
        return (*SPECIALS, *self._characters)[row]

    def encode(self, lines: list[str]) -> list[list[int]]:
        return [[self._ids.get(character, UNK) for character in line] for line in lines]

    def decode(self, ids: Rows) -> list[str]:
        rows = (*SPECIALS, *self._characters)
        return ["".join(rows[i] for i in text_ids(row)) for row in ids]

    def pieces(self, line: str) -> list[str]:
        return list(line)

    def words(self, line: str) -> list[int]:
        return [word for _, word in words_of_characters(line)]

    def content(self) -> bytes:
        return json.dumps(self._characters).encode()

    @classmethod
    def load(cls, content: bytes) -> "Characters":
        """Undo `save`. Raises ValueError if `content` is not of this kind."""
        characters = json.loads(content)
        if not isinstance(characters, str) or not characters or len(set(characters)) < len(characters):
            raise ValueError("it is no text of different characters")
        return cls(characters)
