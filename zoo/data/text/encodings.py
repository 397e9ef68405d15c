"""From bytes to text: UTF-8, and a clear error for anything else.

Text in another encoding would decode to garbage without an error, and a model would train on it. So a text whose bytes
are mostly not UTF-8 is refused, with the name of the likely encoding. A few bad bytes in a good text become U+FFFD and
are counted.
"""

import codecs
import logging

from zoo.errors import UserError

log = logging.getLogger("zoo")
REPLACEMENT = "\ufffd"
ASCII_LETTERS = range(ord("a"), ord("z") + 1)
MARKS = {  # the longer mark of UTF-32 first: it begins as that of UTF-16 does
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
TOLD = 10  # bad lines of a lenient decoder, which then only counts them
TOLERATED = 1 / 500  # replaced characters of all: above it a text may be in another encoding
NULS_OF_UTF16 = 0.2  # of the bytes: text in a Latin alphabet has a half of them, other alphabets have fewer
SAMPLE = 2**16  # bytes that an encoding is told from
HIGH_BYTES = 0.7  # of the letters: Latin alphabets stay below it, others are above


def likely(content: bytes) -> str:
    """The probable encoding of bytes that are not UTF-8."""
    content = content[:SAMPLE]
    for mark, name in MARKS.items():
        if content.startswith(mark):
            return name
    odd, even = content[1::2].count(0), content[::2].count(0)
    if odd + even > NULS_OF_UTF16 * len(content):
        return "UTF-16-LE" if odd >= even else "UTF-16-BE"
    high = [byte for byte in content if byte > 0x7F]
    if len(high) > HIGH_BYTES * (len(high) + sum(map(content.lower().count, ASCII_LETTERS))):
        return "one of another alphabet, such as Windows-1251, Shift-JIS or GB18030"
    return "Windows-1252" if any(byte < 0xA0 for byte in high) else "ISO-8859-1 (Latin-1)"


class Decoder:
    """Decodes the lines of one text, in order; `name` names the text in messages."""

    def __init__(self, name: str, strict: bool = True):
        """A decoder that is not `strict` refuses only UTF-16 and UTF-32, which cannot be split into lines. It is for
        input where every line must be answered."""
        self.name, self.number = name, 0
        self._strict = strict
        self._characters = self._beyond_ascii = self._bad = self._replaced = 0
        self._first_bad, self._sample = 0, b""

    def __call__(self, raw: bytes) -> str:
        """The text of the next line, without the byte order mark before the first.

        Raises `UserError` for a NUL byte, which no text has.
        """
        self.number += 1
        if self.number == 1:
            if (encoding := likely(raw)).startswith("UTF") and (self._strict or encoding in MARKS.values()):
                raise self._refusal(encoding)
            raw = raw.removeprefix(codecs.BOM_UTF8)
        if self._strict and b"\0" in raw:
            raise UserError(
                f"{self.name}:{self.number}: a NUL byte, which no text has: remove it, for example with tr -d '\\000'"
            )
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            text = self._replace(raw)
        else:
            self._beyond_ascii += len(raw) - len(text)
        self._characters += len(text)
        return text

    def _replace(self, raw: bytes) -> str:
        self._first_bad = self._first_bad or self.number
        self._bad += 1
        if not self._strict and self._bad <= TOLD:
            log.warning("line %d is not UTF-8: what cannot be read becomes U+FFFD (%s)", self.number, self.name)
        self._sample += raw[: max(0, SAMPLE - len(self._sample))]
        text = raw.decode(errors="replace")
        self._replaced += text.count(REPLACEMENT) - raw.count(REPLACEMENT.encode())
        return text

    def check(self) -> None:
        """Raise `UserError` if what has been decoded so far is probably in another encoding."""
        mostly = self._replaced > max(self._beyond_ascii, TOLERATED * self._characters)
        if self._strict and mostly:
            raise self._refusal(likely(self._sample))

    def finish(self) -> None:
        """`check`, and report how many characters were replaced."""
        self.check()
        if self._replaced:
            log.warning(
                "%s: %d characters that cannot be read became U+FFFD, the first in line %d: is it %s?",
                self.name,
                self._replaced,
                self._first_bad,
                likely(self._sample),
            )

    def _refusal(self, encoding: str) -> UserError:
        code = encoding.partition(" ")[0]
        remedy = f"iconv -f {code} -t UTF-8" if encoding[0].isupper() else "iconv"
        line = self._first_bad or self.number
        return UserError(f"{self.name}:{line}: not UTF-8, but probably {encoding}: convert the text, as by {remedy}")
