"""The forms of phrases: the kinds of value that CLDR can write, each in the styles that it has for them.

All forms have `kind`; `known(locale)`: whether Babel's copy of CLDR can write it there; `draw(dice)`: a value;
`meaning(value)`: what the value says, in the same words for all forms of the kind; `segments(value, locale)`: how it is
written; and `probes()`: values by which forms that write alike are found out.
"""

import functools
import hashlib
import itertools
import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from babel import Locale
from babel.dates import PATTERN_CHAR_ORDER, TIMEDELTA_UNITS, format_timedelta
from babel.lists import format_list
from babel.numbers import format_currency, get_currency_precision
from babel.units import format_unit

from zoo.data.phrases.alignment import FIELDS, Segment, amount_segments, filled, moment_segments

FIRST, LAST = datetime(1900, 1, 1), datetime(2100, 1, 1)
CURRENCIES = ("USD", "EUR", "GBP", "JPY", "CHF", "CAD", "AUD", "CNY", "INR", "BRL", "MXN")
MEASURES = tuple(
    f"{quantity}-{unit}"
    for quantity, units in {
        "length": "kilometer meter centimeter millimeter mile foot inch",
        "mass": "kilogram gram pound",
        "volume": "liter milliliter gallon",
        "area": "square-kilometer square-meter hectare",
        "speed": "kilometer-per-hour mile-per-hour",
        "temperature": "celsius fahrenheit",
        "digital": "megabyte gigabyte",
        "power": "watt kilowatt",
        "concentr": "percent",
        "duration": "year month week day hour minute second",
    }.items()
    for unit in units.split()
)


class Dice:
    """Random numbers that depend on the words they are made of alone."""

    def __init__(self, *words: object):
        self._bits = int.from_bytes(hashlib.blake2b(repr(words).encode(), digest_size=32).digest())

    def below(self, n: int) -> int:
        """A whole number in [0, n)."""
        self._bits, number = divmod(self._bits, n)
        return number

    def magnitude(self, digits: int) -> int:
        """A whole number in [1, 10**digits]: the number of its digits is drawn first."""
        return 1 + self.below(10 ** (1 + self.below(digits)))

    def moment(self) -> datetime:
        return FIRST + timedelta(seconds=self.below(int((LAST - FIRST).total_seconds())))


@functools.cache
def _pattern(style: str, locale: Locale) -> str | None:
    """The pattern of a CLDR style ("long", "short time") or skeleton ("yMMMEd"); None where the locale has none."""
    if style.endswith(" time"):
        return locale.time_formats[style.removesuffix(" time")].pattern
    found = locale.date_formats.get(style) or locale.datetime_skeletons.get(style)
    return found and found.pattern


@dataclass(frozen=True)
class Moment:
    """A date, a part of one, or a time. `content` is the strftime format of what every style of the kind says."""

    kind: str
    content: str
    style: str

    def known(self, locale: Locale) -> bool:
        return _pattern(self.style, locale) is not None

    def draw(self, dice: Dice) -> datetime:
        return dice.moment()

    def meaning(self, value: datetime) -> str:
        return value.strftime(self.content)

    def segments(self, value: datetime, locale: Locale) -> list[Segment]:
        return moment_segments(_pattern(self.style, locale), value, locale)

    def probes(self) -> list[datetime]:
        """All months and days of the week, centuries that end alike, the turns of the clock."""
        days = [datetime(2022, month, day) for month in range(1, 13) for day in (3, 21)]
        days += [datetime(year, 3, 3) for year in (1922, 2002, 2021)]
        hours = itertools.cycle([(0, 5, 7), (5, 12, 30), (12, 30, 0), (17, 12, 30), (23, 59, 59)])
        return [day.replace(hour=h, minute=m, second=s) for day, (h, m, s) in zip(days, hours, strict=False)]


@dataclass(frozen=True)
class DateAndTime(Moment):
    """A date in `style` with the time to the minute."""

    def segments(self, value: datetime, locale: Locale) -> list[Segment]:
        clock, date = (moment_segments(_pattern(s, locale), value, locale) for s in ("short time", self.style))
        template = locale.datetime_formats.get(self.style) or locale.datetime_formats["short"]
        return filled(str(template).replace("'", ""), clock, date)


@dataclass(frozen=True)
class Interval:
    """From a day to a later one, or (style "hours") from a minute to a later one of the same day."""

    kind: str
    content: str
    style: str

    def _skeleton(self, locale: Locale) -> str:
        if self.style != "hours":
            return self.style
        return "hm" if "h" in _pattern("short time", locale) else "Hm"

    def known(self, locale: Locale) -> bool:
        skeleton = self._skeleton(locale)
        largest = {"hm": "ahm", "Hm": "Hm"}.get(skeleton, "yMd")
        patterns = locale.interval_formats.get(skeleton, {})
        return all(len(patterns.get(letter, ())) == 2 for letter in largest)

    def draw(self, dice: Dice) -> tuple[datetime, datetime]:
        start = dice.moment()
        if self.style != "hours":
            return start, start + timedelta(days=1 + dice.below(40))
        opens = dice.below(24 * 60 - 1)
        closes = opens + 1 + dice.below(24 * 60 - 1 - opens)
        return FIRST + timedelta(minutes=opens), FIRST + timedelta(minutes=closes)

    def meaning(self, value: tuple[datetime, datetime]) -> str:
        return " ".join(side.strftime(self.content) for side in value)

    def segments(self, value: tuple[datetime, datetime], locale: Locale) -> list[Segment]:
        start, end = value
        patterns = locale.interval_formats[self._skeleton(locale)]
        changed = {f for f in ("year", "month", "day", "hour", "minute") if getattr(start, f) != getattr(end, f)}
        changed |= {"weekday"} if start.weekday() != end.weekday() else set()
        changed |= {"period"} if start.hour // 12 != end.hour // 12 else set()
        # TR 35, Interval Formats: the pattern is that of the largest field that changes.
        largest = next(letter for letter in PATTERN_CHAR_ORDER if letter in patterns and FIELDS.get(letter) in changed)
        # "Mar 3 – 5" shares its month, but "5:10 – 5:20 PM" writes its hour twice.
        sided = {"hour", "minute", "period"} if self.style == "hours" else changed
        return [
            (f"{field} {name}" if field in sided else field, text)
            for name, side, pattern in zip(("from", "to"), value, patterns[largest], strict=True)
            for field, text in moment_segments(pattern, side, locale)
        ]

    def probes(self) -> list[tuple[datetime, datetime]]:
        steps = [timedelta(minutes=40), timedelta(hours=12)] if self.style == "hours" else [timedelta(1), timedelta(30)]
        return [(start, start + step) for start in Moment("", "", "").probes() for step in steps]


@dataclass(frozen=True)
class Money:
    """An amount of a currency: style "symbol" ($12.50), "name" (12.50 US dollars) or "whole" (12 US dollars)."""

    kind: str
    currency: str
    style: str

    def known(self, locale: Locale) -> bool:
        return self.currency in locale.currencies

    def draw(self, dice: Dice) -> Decimal:
        decimals = 0 if self.style == "whole" else get_currency_precision(self.currency)
        return Decimal(dice.magnitude(4 + decimals)).scaleb(-decimals)

    def meaning(self, value: Decimal) -> str:
        return f"{value:.2f} {self.currency}"

    def segments(self, value: Decimal, locale: Locale) -> list[Segment]:
        form = "standard" if self.style == "symbol" else "name"
        cents = self.style != "whole"
        return amount_segments(
            format_currency(value, self.currency, locale=locale, format_type=form, currency_digits=cents)
        )

    def probes(self) -> list[Decimal]:
        return [Decimal(n) for n in (1, 2, 3, 5, 11, 21, 1000)]


@dataclass(frozen=True)
class Measure:
    """A number, at times with a decimal, of a unit of CLDR: style "long" (12.5 kilometers) or "short" (12.5 km)."""

    kind: str
    unit: str
    style: str

    def known(self, locale: Locale) -> bool:
        # Babel writes the unit's identifier where its copy of CLDR has no word for the unit in this style.
        return not any(self.unit in format_unit(n, self.unit, self.style, locale=locale) for n in self.probes())

    def draw(self, dice: Dice) -> Decimal:
        # In some locales Babel borrows the plural of the long style where the short one says no singular ("1 horas").
        number = Decimal(dice.magnitude(4) + 20 * (self.style == "short"))
        # The quotient of 10 is 1 and not 1.0, which would be written "1 meters".
        return number / 10 if dice.below(3) == 0 else number

    def meaning(self, value: Decimal) -> str:
        return f"{value:.1f} {self.unit}"

    def segments(self, value: Decimal, locale: Locale) -> list[Segment]:
        return amount_segments(format_unit(value, self.unit, self.style, locale=locale))

    def probes(self) -> list[Decimal]:
        return [Decimal(n) for n in ("2", "3", "5", "11", "21", "2.5", "1000")] + [Decimal(1)] * (self.style == "long")


@dataclass(frozen=True)
class Duration:
    """So much of a unit of time and so much of the next smaller one: 3 hours and 12 minutes."""

    kind: str
    units: tuple[str, str]
    limits: tuple[int, int]

    def known(self, locale: Locale) -> bool:
        return all(Measure("", "duration-" + unit, "long").known(locale) for unit in self.units)

    def draw(self, dice: Dice) -> tuple[int, ...]:
        return tuple(1 + dice.below(limit) for limit in self.limits)

    def meaning(self, value: tuple[int, ...]) -> str:
        return f"{value} {self.units}"

    def segments(self, value: tuple[int, ...], locale: Locale) -> list[Segment]:
        parts = [
            amount_segments(format_unit(number, "duration-" + unit, "long", locale=locale), unit)
            for number, unit in zip(value, self.units, strict=True)
        ]
        return filled(format_list(["{0}", "{1}"], locale=locale), *parts)

    def probes(self) -> list[tuple[int, ...]]:
        return [(a, b) for a in (1, 2, 5) for b in (1, 2, 21)]


@dataclass(frozen=True)
class Relative:
    """So many of a unit from now: "in 3 hours" (`sign` 1), "3 hours ago" (-1); style "long" or "short"."""

    kind: str
    unit: str
    sign: int
    style: str

    def known(self, locale: Locale) -> bool:
        try:
            self.segments(2, locale)
        except KeyError:  # so says Babel where it has no words for the unit in this style
            return False
        return True

    def draw(self, dice: Dice) -> int:
        return dice.magnitude(2) + (self.style == "short")

    def meaning(self, value: int) -> str:
        return f"{self.sign * value} {self.unit}"

    def segments(self, value: int, locale: Locale) -> list[Segment]:
        delay = timedelta(seconds=self.sign * value * dict(TIMEDELTA_UNITS)[self.unit])
        # No threshold is reached, so the unit stays the one that is asked for: 45 hours are no two days.
        written = format_timedelta(delay, self.unit, math.inf, add_direction=True, format=self.style, locale=locale)
        return amount_segments(written)

    def probes(self) -> list[int]:
        return [2, 3, 5, 11, 21] + [1] * (self.style == "long")


DATE, CLOCK, MINUTES = "%Y-%m-%d", "%H:%M:%S", "%H:%M"
Form = Moment | Interval | Money | Measure | Duration | Relative
# In every kind the fullest style comes first: where two styles say the same, the translation is that of the first.
FORMS: tuple[Form, ...] = (
    *(Moment("date", DATE, style) for style in ("full", "long", "medium", "yMMMEd", "yMd")),
    *(Moment("day", "%m-%d", style) for style in ("MMMMd", "MMMd")),
    *(Moment("weekday", "%w %m-%d", style) for style in ("MMMMEd", "MMMEd")),
    *(Moment("month", "%Y-%m", style) for style in ("yMMMM", "yMMM")),
    *(Moment("time", MINUTES, "short time"), Moment("second", CLOCK, "medium time")),
    *(DateAndTime("datetime", f"{DATE} {MINUTES}", style) for style in ("full", "long", "medium", "yMd")),
    *(Interval("days", DATE, style) for style in ("yMMMd", "yMMMEd")),
    Interval("hours", MINUTES, "hours"),
    *(Money("money", currency, style) for style in ("name", "whole", "symbol") for currency in CURRENCIES),
    *(Measure("measure", unit, style) for style in ("long", "short") for unit in MEASURES),
    Duration("duration", ("day", "hour"), (30, 23)),
    Duration("duration", ("hour", "minute"), (23, 59)),
    Duration("duration", ("minute", "second"), (59, 59)),
    *(
        Relative("relative", unit, n, style)
        for style in ("long", "short")
        for unit, _ in TIMEDELTA_UNITS
        for n in (1, -1)
    ),
)
