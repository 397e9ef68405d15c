"""Phrases as segments, each of which renders one field of a value, and the word alignment that follows from them.

The alignment is true by construction, so it is a gold that an alignment error rate can be measured against.
"""

import functools
import re
from collections.abc import Sequence
from datetime import datetime

from babel import Locale
from babel.dates import DateTimeFormat, tokenize_pattern

Segment = tuple[str, str]
"""The name of a field ("" for what belongs to none, as a comma does) and the text that renders it."""

# The letters of CLDR's date patterns (Unicode TR 35, Date Field Symbol Table) by what they say.
FIELDS = {
    **dict.fromkeys("Ec", "weekday"),
    **dict.fromkeys("ML", "month"),
    **dict.fromkeys("hHkK", "hour"),
    **dict.fromkeys("abB", "period"),
    "y": "year",
    "d": "day",
    "m": "minute",
    "s": "second",
}


@functools.cache
def _pieces(pattern: str) -> tuple[tuple[str, str], ...]:
    """A CLDR date pattern as (field, letters) and ("", literal) pairs."""
    return tuple(
        ("", token) if kind == "chars" else (FIELDS.get(token[0], token[0]), token[0] * token[1])
        for kind, token in tokenize_pattern(pattern)
    )


def moment_segments(pattern: str, value: datetime, locale: Locale) -> list[Segment]:
    """`value` under a CLDR date or time pattern ("EEEE, MMMM d, y"), a segment for every field of the pattern."""
    texts = DateTimeFormat(value, locale)
    return [(field, texts[letters] if field else letters) for field, letters in _pieces(pattern)]


def amount_segments(text: str, unit: str = "unit") -> list[Segment]:
    """A text with one number in it: from its first digit to its last is the field "amount", the rest is `unit`."""
    number = re.search(r"\d(?:.*\d)?", text)
    if number is None:  # Arabic writes "1 day" without a number.
        return [(unit, text)]
    return [(unit, text[: number.start()]), ("amount of " + unit, number[0]), (unit, text[number.end() :])]


def filled(template: str, *parts: list[Segment]) -> list[Segment]:
    """`template` with its {0}, {1}, ... replaced by the parts."""
    pieces = re.split(r"\{(\d)\}", template)
    return [s for i, piece in enumerate(pieces) for s in (parts[int(piece)] if i % 2 else [("", piece)])]


def word_links(source: Sequence[Segment], target: Sequence[Segment]) -> frozenset[tuple[int, int]]:
    """The pairs (source word, target word), counted from 0, of whitespace words that render the same field.

    A field of several words, as the name of a currency, is linked word by word with every word of its counterpart.
    """
    sides = _words_of_fields(source), _words_of_fields(target)
    # "5:12 PM" says with its period what "17:12" says with its hour.
    for fields, others in (sides, sides[::-1]):
        for period in [field for field in fields if field.startswith("period") and field not in others]:
            fields.setdefault(period.replace("period", "hour"), set()).update(fields.pop(period))
    shared = sides[0].keys() & sides[1].keys()
    return frozenset((i, j) for field in shared for i in sides[0][field] for j in sides[1][field])


def _words_of_fields(segments: Sequence[Segment]) -> dict[str, set[int]]:
    """For every field, the indices of the whitespace words that it touches."""
    text = "".join(piece for _, piece in segments)
    word_at = {position: i for i, word in enumerate(re.finditer(r"\S+", text)) for position in range(*word.span())}
    fields: dict[str, set[int]] = {}
    start = 0
    for field, piece in segments:
        if field:
            fields.setdefault(field, set()).update(
                word_at[position] for position in range(start, start + len(piece)) if position in word_at
            )
        start += len(piece)
    return fields
