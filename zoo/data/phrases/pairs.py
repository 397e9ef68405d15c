"""Parallel phrases made from Unicode CLDR alone: training data when no other is at hand.

CLDR, read through Babel, tells how a date, a time, an interval, an amount of money, a measure or a delay is written in
hundreds of locales. A phrase is such a value, drawn at random, written in two of them: "Thursday, March 3, 2022" and
"jeudi 3 mars 2022". Three laws make it a task on which an exact match means something:

- the source decides the target: what two values or two styles could have written has one translation;
- a value is in one split only, in every style, for every pair of locales and every seed;
- phrase `i` depends on the arguments alone: not on the process, its hash seed, or what was read before.

CLDR parts numbers, units and day periods with no-break and thin spaces. On both sides they become the plain space, as
people type it; whitespace words are cut there.
"""

import difflib
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from babel import Locale, UnknownLocaleError, localedata

from zoo.data.phrases.alignment import word_links
from zoo.data.phrases.forms import FORMS, Dice, Form
from zoo.errors import UserError, nearest

SPLITS = ("train", "valid", "test")
ENDLESS = 2**31 - 1
"""The length of endless phrases: days of training, and still within the 32 bits that samplers count in."""

PLAIN_SPACES = dict.fromkeys(map(ord, "\u00a0\u2009\u200a\u202f\u3000"), " ")
# How often each kind is drawn, of 100; a kind that a pair of locales lacks gives its share to the others.
SHARES = {
    "date": 32,
    "datetime": 12,
    "money": 14,
    "measure": 12,
    "days": 6,
    "hours": 3,
    "relative": 5,
    "duration": 4,
    "time": 3,
    "second": 2,
    "month": 3,
    "day": 2,
    "weekday": 2,
}


def _text(form: Form, value: Any, locale: Locale) -> str:
    return "".join(text for _, text in form.segments(value, locale)).translate(PLAIN_SPACES)


@functools.cache
def _unambiguous(source: Locale, target: Locale) -> dict[str, list[tuple[Form, tuple[Form, ...]]]]:
    """By kind, the forms that both locales have, each with its rivals: earlier forms that write some values alike.

    A form that writes alike what differs in meaning, as a year in two digits does, is left out.
    """
    readings: dict[str, tuple[str, Form]] = {}
    rivals: dict[Form, tuple[Form, ...]] = {}
    for form in FORMS:
        if not (form.known(source) and form.known(target)):
            continue
        said = [(_text(form, value, source), form.kind + form.meaning(value)) for value in form.probes()]
        own = {text: (meaning, form) for text, meaning in said}
        heard = own | readings
        if all(heard[text][0] == meaning for text, meaning in said):
            before = {heard[text][1] for text, _ in said}
            rivals[form] = tuple(earlier for earlier in rivals if earlier in before)
            readings = heard
    return {kind: [(f, r) for f, r in rivals.items() if f.kind == kind] for kind in SHARES}


def _split_of(kind: str, meaning: str) -> str:
    """Valid and test get a twentieth of all meanings each, whatever the seed and the locales."""
    return {0: "valid", 1: "test"}.get(Dice(kind, meaning).below(20), "train")


def _locale(name: str) -> Locale:
    """The CLDR locale of a name such as `en`, `pt_BR` or `pt-BR`."""
    try:
        return Locale.parse(name.replace("-", "_"))
    except (UnknownLocaleError, ValueError, TypeError):
        close = difflib.get_close_matches(name, localedata.locale_identifiers(), n=1)
        remedy = nearest(name, close) if close else "name one of CLDR's, as en, fr, de, ja or pt_BR"
        raise UserError(f"unknown locale {name!r}: {remedy}") from None


class Phrases(Sequence[tuple[str, str]]):
    """Endless parallel phrases in two locales: `phrases[i]` is (source, target), the same on every machine."""

    def __init__(self, source: str, target: str, split: str, seed: int = 0, size: int | None = None):
        """
        Args:
          source, target: CLDR locales, as `en` or `pt_BR`.
          split: "train", "valid" or "test"; they share no meaning and no source.
          seed: which of the endless sequences of the split.
          size: how many phrases there are; None for no end.

        Raises:
          UserError: for an unknown locale or split, or the same locale twice.
        """
        self.source, self.target = _locale(source), _locale(target)
        if self.source == self.target:
            raise UserError(f"source and target are both {source!r}: name two different locales, as en and fr")
        if split not in SPLITS:
            raise UserError(f"unknown split {split!r}: {nearest(split, SPLITS)}")
        self.split, self.seed, self.size = split, seed, size
        self._forms = _unambiguous(self.source, self.target)
        self._kinds = [kind for kind, share in SHARES.items() for _ in range(share) if self._forms[kind]]

    def identity(self) -> list[str | int | None]:
        """What decides the phrases, beside the CLDR of this machine."""
        return ["phrases", str(self.source), str(self.target), self.split, self.seed, self.size]

    def __len__(self) -> int:
        return ENDLESS if self.size is None else self.size

    def __getitem__(self, index: int) -> tuple[str, str]:
        form, value = self._phrase(index)
        return _text(form, value, self.source), _text(form, value, self.target)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return map(self.__getitem__, itertools.count() if self.size is None else range(self.size))

    def alignment(self, index: int) -> frozenset[tuple[int, int]]:
        """The true links (source word, target word) of phrase `index`, of whitespace words counted from 0."""
        form, value = self._phrase(index)
        return word_links(form.segments(value, self.source), form.segments(value, self.target))

    def _phrase(self, index: int) -> tuple[Form, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"phrase {index} of {len(self)}")
        for attempt in itertools.count():
            dice = Dice(self.seed, self.split, index, attempt)
            kind = self._kinds[dice.below(len(self._kinds))]
            form, rivals = self._forms[kind][dice.below(len(self._forms[kind]))]
            value = form.draw(dice)
            if _split_of(kind, form.meaning(value)) == self.split:
                break
        text = rivals and _text(form, value, self.source)
        return next((rival for rival in rivals if _text(rival, value, self.source) == text), form), value
