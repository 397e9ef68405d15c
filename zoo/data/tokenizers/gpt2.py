"""The byte-level BPE of GPT-2: Radford et al. 2019, section 2.2. GPT-3 has the same."""

import re
from collections.abc import Sequence

from tokenizers import pre_tokenizers

from zoo.data.tokenizers.base import Rows, WordMemory, text_ids, words_of_characters
from zoo.data.tokenizers.published_bpe import PublishedBPE

GAP = re.compile(r"(?<=\S)(?=[ \n])")  # no match of GPT-2's expression for words has white space behind anything else


def _characters_of_bytes() -> dict[str, int]:
    """{character: its byte}: printable bytes stand for themselves, the others are U+0100 and up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted(set(range(256)) - set(printable))
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


BYTES = _characters_of_bytes()


def _bytes(piece: str) -> bytes:
    """The bytes of a piece; a piece that was added to the published ones stands for its own characters."""
    return bytes(BYTES[c] for c in piece) if BYTES.keys() >= set(piece) else piece.encode()


class GPT2(PublishedBPE):
    """50,000 merges over bytes: any text survives the round trip exactly.

    `<|endoftext|>` keeps its row, but is never encoded: the end of a document is the zoo's EOS.
    """

    suffix = ".gpt2"
    VOCABULARY = ("encoder.json", "vocab.json")
    MERGES = ("vocab.bpe", "merges.txt")
    UNMERGED = frozenset({"<|endoftext|>"})

    def __init__(self, pieces: Sequence[str], merges: Sequence[str], unmerged: Sequence[str] = ()):
        """The pieces are written in the characters that stand for bytes. Raises ValueError when a byte is missing."""
        if missing := BYTES.keys() - set(pieces):
            raise ValueError(f"{len(missing)} bytes have no piece")
        super().__init__(pieces, merges, unmerged)
        self._library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._memory = WordMemory(GAP.split, GAP, self._encode)
        self._bytes = [_bytes(piece) for piece in self._pieces]

    def encode(self, lines: list[str]) -> list[list[int]]:
        return self._memory(lines)

    def _encode(self, lines: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._library.encode_batch_fast(lines, add_special_tokens=False)]

    def decode(self, ids: Rows) -> list[str]:
        return [b"".join(self._bytes[i] for i in text_ids(row)).decode(errors="replace") for row in ids]

    def pieces(self, line: str) -> list[str]:
        surfaces = (self._bytes[i].decode(errors="backslashreplace") for i in self.encode([line])[0])
        return [surface.replace(" ", "▁") for surface in surfaces]

    def words(self, line: str) -> list[int]:
        index = [word for _, word in words_of_characters(line)]
        return [index[begin] for begin, _ in self._library.encode(line, add_special_tokens=False).offsets]
