"""The word vocabularies of the papers of 2014."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice

from zoo.data.specials import SPECIALS, UNK
from zoo.data.tokenizers.base import Rows, Saved, text_ids
from zoo.errors import UserError


class WordVocabulary(Saved):
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
        """Keep `symbols` and the most frequent words, `size` rows with the specials; ties are in alphabetical order.

        Raises UserError if the text has fewer words than that, or none; `key` is the option that sets `size`.
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

    def piece(self, row: int) -> str:
        """The word of a row of the embeddings."""
        return self._words[row]

    def encode(self, lines: list[str]) -> list[list[int]]:
        return [[self._ids.get(word, UNK) for word in line.split()] for line in lines]

    def decode(self, ids: Rows) -> list[str]:
        return [" ".join(self._words[i] for i in text_ids(row)) for row in ids]

    def pieces(self, line: str) -> list[str]:
        return line.split()

    def words(self, line: str) -> list[int]:
        return list(range(len(line.split())))

    def content(self) -> bytes:
        # The count in front tells a truncated file from a shorter vocabulary.
        return "".join(f"{row}\n" for row in (self.size, *self._words)).encode()

    @classmethod
    def load(cls, content: bytes) -> "WordVocabulary":
        """Undo `save`. Raises ValueError if `content` is not of this kind."""
        count, *rows = content.decode(errors="replace").split("\n")
        if not count.isdecimal() or tuple(rows[: len(SPECIALS)]) != SPECIALS:
            raise ValueError(f"it doesn't begin with a count and {', '.join(SPECIALS)}")
        if rows.pop() != "" or len(rows) != int(count):
            raise ValueError(f"it is truncated: {len(rows)} of {count} rows")
        return cls(rows[len(SPECIALS) :])
