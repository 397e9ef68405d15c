"""The BPE of GPT-1: Radford et al. 2018, section 4.1, "we use the ftfy library to clean the raw text in BooksCorpus,
standardize some punctuation and whitespace, and use the spaCy tokenizer".
"""

import importlib.util
import logging
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import ftfy
from tokenizers import Regex, pre_tokenizers

from zoo.data.specials import SPECIALS, UNK
from zoo.data.tokenizers.base import SPACE, Rows, WordMemory, text_ids
from zoo.data.tokenizers.published_bpe import PublishedBPE
from zoo.errors import UserError

log = logging.getLogger("zoo")
SPACY, REGEX = "spacy", "regex"
ALIKE = str.maketrans({"—": "-", "–": "-", "―": "-", "…": "...", "´": "'", "‘": "'", "’": "'", "“": '"', "”": '"'})
APART = re.compile(r"""(-+|~+|!+|"+|;+|\?+|\++|,+|\)+|\(+|\\+|/+|\*+|\[+|\]+|\}+|\{+|\|+|_+)""")
# Lines that ftfy changes nothing in but their quotes: ASCII without the & of HTML entities, and the signs of printers.
SOUND = re.compile(r"[\t -%'-~‘’“”–—…]*")

# Words as spaCy finds them in lower-cased English text: titles and initials keep their periods, contractions come
# apart (do n't, she 's), periods and dashes stay together, other punctuation stands alone.
WORD = "|".join(
    (
        r"\n",
        r"\b(?:mr|mrs|ms|dr|st|jr|sr|prof|rev|gen|col|capt|lt|vs|mt|co|corp|inc|ltd)\.",
        r"\b(?:[a-z]\.)+",
        r"\bcan(?=not\b)|[\p{L}\p{M}\p{N}]+?(?=n't\b)|n't\b",
        r"'(?:s|m|d|re|ve|ll)\b",
        r"\p{N}+(?:[.:]\p{N}+)*(?:[\p{L}\p{M}]+)?",
        r"[\p{L}\p{M}\p{N}]+(?:'(?!(?:s|m|d|re|ve|ll)\b)[\p{L}\p{M}\p{N}]+)*",
        r"\.{2,}|-{2,}",
        r"\S",
    )
)


class GPT1(PublishedBPE):
    """40,000 merges over lower-cased words. Text does not survive the round trip: it is lower-cased, its dashes and
    quotes are unified, and words and punctuation come back separated by spaces. A character that BooksCorpus did not
    have is `<unk>`.
    """

    suffix = ".gpt1"
    VOCABULARY = ("encoder_bpe_40000.json", "vocab.json")
    MERGES = ("vocab_40000.bpe", "merges.txt")
    END = "</w>"
    UNMERGED = frozenset({"<unk>"})

    def __init__(
        self, pieces: Sequence[str], merges: Sequence[str], unmerged: Sequence[str] = (), splitter: str = REGEX
    ):
        """`splitter` finds the words: `spacy`, or `regex`, which differs in rare words. Raises UserError if spaCy is
        needed but missing: other words would have other ids."""
        if not any(piece.endswith(self.END) for piece in pieces):
            raise ValueError(f"no piece ends in {self.END}")
        if splitter == SPACY and not importlib.util.find_spec("spacy"):
            raise UserError("this tokenizer splits words with spaCy, which is missing: pip install 'seqzoo[spacy]'")
        super().__init__(pieces, merges, unmerged, unk_token=SPECIALS[UNK], end_of_word_suffix=self.END)
        self.splitter, self._memory = splitter, WordMemory(_chunks, SPACE, self._encode)
        if splitter == REGEX:
            self._library.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), "removed", invert=True)

    @classmethod
    def published(cls, directory: str | Path, key: str) -> "GPT1":
        """From the files in `directory`, with spaCy if it is installed; otherwise a warning says that words differ."""
        without = super().published(directory, key)
        return without.as_published()

    def as_published(self) -> "GPT1":
        """The same pieces with spaCy if it is installed; otherwise a warning says that words differ."""
        if importlib.util.find_spec("spacy"):
            return GPT1(**self._parts() | {"splitter": SPACY})
        log.warning(
            "spaCy is not installed: words are split by a regular expression, which differs from GPT-1 in rare words "
            "with periods and apostrophes (pip install 'seqzoo[spacy]')"
        )
        return self

    def _parts(self) -> dict[str, Any]:
        return super()._parts() | {"splitter": self.splitter}

    @cached_property
    def _spacy(self) -> Any:
        import spacy

        return spacy.blank("en").tokenizer

    def encode(self, lines: list[str]) -> list[list[int]]:
        return self._memory(map(_mended, lines))

    def _encode(self, chunks: list[str]) -> list[list[int]]:
        texts = [standardized(chunk) for chunk in chunks]
        if self.splitter == SPACY:
            texts = [[word.text.lower() for word in self._spacy(text) if word.text.strip(" ")] for text in texts]
        else:
            texts = [text.lower() for text in texts]
        encodings = self._library.encode_batch_fast(texts, self.splitter == SPACY, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Rows) -> list[str]:
        rows = ("".join(self._pieces[i] for i in text_ids(row)).replace(self.END, " ") for row in ids)
        return [row.replace(" \n ", "\n").removesuffix(" ") for row in rows]

    def pieces(self, line: str) -> list[str]:
        return [self._pieces[i].removesuffix(self.END) for i in self.encode([line])[0]]

    def words(self, line: str) -> list[int]:
        return [word for word, ids in enumerate(self.encode(line.split())) for _ in ids]


def standardized(chunk: str) -> str:
    """The text as GPT-1 standardized it before finding words: dashes and quotes unified, and runs of punctuation
    between spaces."""
    return chunk if chunk == "\n" else APART.sub(r" \1 ", chunk.translate(ALIKE)).strip()


def _chunks(text: str) -> list[str]:
    """The words between white space, with a single line break for any run of them inside the text."""
    chunks = []
    for line in text.split("\n"):
        if found := line.split():
            chunks += [*found, "\n"]
    return chunks[:-1]


def _mended(text: str) -> str:
    """`ftfy.fix_text(text)`, called only for the lines in which it may change more than quotes."""
    html, mended = False, []
    for line in text.split("\n"):
        html = html or "<" in line  # then ftfy leaves the entities of HTML
        sound = SOUND.fullmatch(line)
        mended.append(line if sound else ftfy.fix_text(f"{line}\n", unescape_html=not html).removesuffix("\n"))
    return "\n".join(mended)
