"""The laws of the embedded phrases: a function, disjoint splits, the same on every machine, as CLDR says."""

import itertools
import os
import pickle
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from decimal import Decimal

import pytest
from babel import Locale, dates, numbers, units

from zoo.data.phrases import forms
from zoo.data.phrases import pairs as phrases
from zoo.data.phrases.forms import FORMS, DateAndTime, Dice, Interval, Measure, Moment, Money, Relative
from zoo.data.phrases.pairs import ENDLESS, SHARES, SPLITS, Phrases
from zoo.errors import UserError

PAIRS = [
    ("en", "fr"),
    ("fr", "en"),
    ("en", "de"),
    ("de", "es"),
    ("en", "ja"),
    ("zh", "pt-BR"),
    ("es", "en"),
    ("ar", "en"),
]


def draws(*arguments, count):
    return list(itertools.islice(Phrases(*arguments), count))


@pytest.mark.parametrize(("source", "target", "count"), [("en", "fr", 4_000)] + [(*p, 1_500) for p in PAIRS[1:]])
def test_the_source_decides_the_target(source, target, count):
    translations = {}
    for phrase, translation in draws(source, target, "train", count=count):
        assert translations.setdefault(phrase, translation) == translation


@pytest.mark.parametrize(("source", "target"), [("en", "fr"), ("ar", "en")])
def test_no_source_stands_in_two_splits(source, target):
    sources = [{phrase for phrase, _ in draws(source, target, s, count=1_200 if s == "train" else 600)} for s in SPLITS]
    for one, other in itertools.combinations(sources, 2):
        assert not one & other


def test_a_value_stands_in_one_split_in_every_style_seed_and_language():
    def said(split, seed, target):
        phrases = Phrases("en", target, split, seed)
        return {f"{form.kind} {form.meaning(value)}" for form, value in map(phrases._phrase, range(300))}

    meanings = [said(s, 1, "fr") | said(s, 2, "de") for s in SPLITS]
    for one, other in itertools.combinations(meanings, 2):
        assert not one & other


@pytest.mark.parametrize(
    "forms",
    [
        [Money("money", "EUR", style) for style in ("symbol", "name", "whole")],
        [Measure("measure", "length-meter", style) for style in ("long", "short")],
        [Relative("relative", "day", 1, style) for style in ("long", "short")],
        [form for form in FORMS if form.kind == "date"],
        [form for form in FORMS if form.kind == "days"],
    ],
)
def test_the_style_is_not_part_of_the_meaning(forms):
    for value in forms[0].probes():
        assert len({form.meaning(value) for form in forms}) == 1


def test_valid_and_test_get_a_twentieth_each():
    splits = [phrases._split_of(f.kind, f.meaning(f.draw(Dice(f, i)))) for f in FORMS for i in range(30)]
    for split in ("valid", "test"):
        assert 0.03 < splits.count(split) / len(splits) < 0.07


def test_every_split_has_every_kind():
    for split in SPLITS:
        phrases = Phrases("en", "fr", split)
        assert {phrases._phrase(i)[0].kind for i in range(500)} == set(SHARES) == {form.kind for form in FORMS}


def test_the_shares_are_hundredths():
    assert sum(SHARES.values()) == 100


def test_any_order_of_access_gives_the_same_phrases():
    expected = draws("en", "fr", "train", 3, count=200)
    phrases = Phrases("en", "fr", "train", 3)
    assert [phrases[i] for i in reversed(range(200))] == expected[::-1]
    assert list(Phrases("en", "fr", "train", 3, size=200)) == expected
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(phrases.__getitem__, range(200))) == expected
    # Loaders hand their sources to worker processes this way.
    assert list(itertools.islice(pickle.loads(pickle.dumps(phrases)), 200)) == expected


def test_another_process_gives_the_same_phrases():
    program = (
        "from zoo.data.phrases.pairs import Phrases; print([Phrases('en', 'fr', 'test', 7)[i] for i in range(30)])"
    )
    for hash_seed in "12":
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONIOENCODING": "utf-8"}
        printed = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
        assert printed.stdout.decode().strip() == str([Phrases("en", "fr", "test", 7)[i] for i in range(30)])


def test_seeds_and_splits_differ():
    starts = [draws("en", "fr", split, seed, count=20) for split in SPLITS for seed in (0, 1)]
    assert all(one != other for one, other in itertools.combinations(starts, 2))


def test_a_size_bounds_the_phrases():
    assert len(Phrases("en", "fr", "valid", size=5)) == len(list(Phrases("en", "fr", "valid", size=5))) == 5
    assert len(Phrases("en", "fr", "valid")) == ENDLESS
    for index in (5, -1):
        with pytest.raises(IndexError):
            Phrases("en", "fr", "valid", size=5)[index]


def test_what_a_newcomer_types_first_is_a_phrase_of_every_pair():
    full, day = FORMS[0], datetime(2022, 3, 3)
    assert Phrases("en", "fr", "train")._forms["date"][0] == (full, ())
    for name in ("en", "fr", "de", "es"):
        assert phrases._text(full, day, Locale.parse(name)) == dates.format_date(day, "full", name)


@pytest.mark.parametrize("name", ["en", "fr", "de", "es", "pt_BR", "ja", "zh"])
def test_phrases_say_what_babel_says(name):
    locale, moment, later = Locale.parse(name), datetime(2022, 3, 3, 17, 5, 9), datetime(2022, 4, 5)
    amount = Decimal("1234.5")
    expected = {
        Moment("", "", "long"): dates.format_date(date(2022, 3, 3), "long", locale),
        Moment("", "", "yMMMEd"): dates.format_skeleton("yMMMEd", moment, locale=locale),
        Moment("", "", "medium time"): dates.format_time(moment, "medium", locale=locale),
        DateAndTime("", "", "long"): dates.get_datetime_format("long", locale)
        .replace("'", "")
        .replace("{0}", dates.format_time(moment, "short", locale=locale))
        .replace("{1}", dates.format_date(moment, "long", locale)),
    }
    assert {form: "".join(text for _, text in form.segments(moment, locale)) for form in expected} == expected
    interval = Interval("", "", "yMMMd").segments((moment, later), locale)
    assert "".join(t for _, t in interval) == dates.format_interval(moment, later, "yMMMd", locale=locale)
    money = Money("", "EUR", "symbol").segments(amount, locale)
    assert "".join(t for _, t in money) == numbers.format_currency(amount, "EUR", locale=locale)
    money = Money("", "EUR", "name").segments(Decimal(12), locale)
    assert "".join(t for _, t in money) == numbers.format_currency(12, "EUR", locale=locale, format_type="name")
    measure = Measure("", "mass-kilogram", "long").segments(amount, locale)
    assert "".join(t for _, t in measure) == units.format_unit(amount, "mass-kilogram", locale=locale)


def test_a_decimal_that_is_drawn_is_written():
    """A plural goes with what is written: 1.0 would read "1 meters"."""
    form = Measure("measure", "length-meter", "long")
    for value in (form.draw(Dice(i)) for i in range(1_000)):
        assert str(value) == numbers.format_decimal(value, locale="en").replace(",", "")


def test_styles_that_write_a_value_the_same_way_translate_the_same_way():
    """French abbreviates no "mars": under both styles "3 mars 2022" is "March 3, 2022"."""
    days = [date(2022, month, 3) for month in range(1, 13)]
    said = {
        (day, style, name): dates.format_date(day, style, name)
        for day in days
        for style in ("medium", "long")
        for name in ("fr", "en")
    }
    alike = [day for day in days if said[day, "medium", "fr"] == said[day, "long", "fr"]]
    phrases = Phrases("fr", "en", "train")
    rivals = {form.style: [rival.style for rival in earlier] for form, earlier in phrases._forms["date"]}
    assert rivals["long"] == [] and rivals["medium"] == (["long"] if alike else [])
    for source, target in draws("fr", "en", "train", count=3_000):
        for day in alike:
            pattern = re.escape(said[day, "medium", "fr"]).replace("2022", r"\d+").replace("3", r"\d+", 1)
            if re.fullmatch(pattern, source):
                month = dates.format_date(day, "MMMM", "en")
                assert month in target


def test_forms_that_write_different_values_the_same_way_are_left_out(monkeypatch):
    two_digits = Moment("date", "%Y-%m-%d", "short")
    monkeypatch.setattr(phrases, "FORMS", (FORMS[0], two_digits))
    kept = phrases._unambiguous.__wrapped__(Locale.parse("en"), Locale.parse("fr"))
    assert kept["date"] == [(FORMS[0], ())]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_phrases_are_lines_of_plain_words(source, target):
    for phrase in itertools.chain.from_iterable(draws(source, target, "test", count=300)):
        assert phrase == phrase.strip() != ""
        assert not re.search(r"[^\S ]|  ", phrase)
        assert "-kilometer" not in phrase and "duration" not in phrase


def test_forms_that_a_locale_lacks_are_left_out(monkeypatch):
    """Which words a locale lacks changes with CLDR, so Japanese is made to lack some, in Babel's two ways to say so."""
    japanese = Locale.parse("ja")
    format_unit, format_timedelta = forms.format_unit, forms.format_timedelta

    def without_durations(value, unit, *style, locale):
        lacks = locale == japanese and unit.startswith("duration-")
        return f"{value} {unit}" if lacks else format_unit(value, unit, *style, locale=locale)

    def without_months(delta, granularity, *threshold, locale, **style):
        if locale == japanese and granularity == "month":
            raise KeyError(granularity)
        return format_timedelta(delta, granularity, *threshold, locale=locale, **style)

    monkeypatch.setattr(forms, "format_unit", without_durations)
    monkeypatch.setattr(forms, "format_timedelta", without_months)
    monkeypatch.setattr(phrases, "_unambiguous", phrases._unambiguous.__wrapped__)
    lacking = Phrases("en", "ja", "train")
    assert lacking._forms["duration"] == [] and "duration" not in lacking._kinds
    units_left = {form.unit for kind in ("measure", "relative") for form, _ in lacking._forms[kind]}
    assert units_left and not any(unit == "month" or unit.startswith("duration-") for unit in units_left)
    assert Phrases("en", "fr", "train")._forms["duration"]


@pytest.mark.parametrize(
    ("name", "remedy"), [("frr_FRR", "frr"), ("en_XQ", "did you mean"), ("", "as en, fr"), ("english", "as en, fr")]
)
def test_an_unknown_locale_is_named_with_a_remedy(name, remedy):
    for pair in ((name, "de"), ("de", name)):
        with pytest.raises(UserError, match=re.escape(f"unknown locale {name!r}: ")) as error:
            Phrases(*pair, "train")
        assert remedy in str(error.value) and "\n" not in str(error.value)


def test_one_locale_twice_and_an_unknown_split_are_errors():
    for twice in (("en", "en"), ("pt-BR", "pt_BR")):
        with pytest.raises(UserError, match="two different locales"):
            Phrases(*twice, "train")
    with pytest.raises(UserError, match="unknown split 'validation': did you mean 'valid'"):
        Phrases("en", "fr", "validation")


def segments(text):
    """The segments that `text` spells: `{field:words}` for those of a field, whatever is between them for others."""
    return [
        (field or "", words if field else between)
        for field, words, between in re.findall(r"{([^:]+):([^}]*)}|([^{]+)", text)
    ]


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (
            "{weekday:Thursday}, {month:March} {day:3}, {year:2022}",
            "{weekday:jeudi} {day:3} {month:mars} {year:2022}",
            "Thursday,~jeudi March~mars 3,~3 2022~2022",
        ),
        ("{hour:5}:{minute:05} {period:PM}", "{hour:17}:{minute:05}", "5:05~17:05 PM~17:05"),
        ("{amount:12}{unit: meters}", "{amount:12}{unit:\xa0mètres}", "12~12 meters~mètres"),
        (
            "{unit:$}{amount:1,234.50}",
            "{amount:1\u202f234,50}{unit:\xa0$US}",
            "$1,234.50~1 $1,234.50~234,50 $1,234.50~$US",
        ),
        (
            "{month:Mar} {day from:3}–{day to:5}, {year:2022}",
            "{day from:3}–{day to:5} {month:mars} {year:2022}",
            "Mar~mars 3–5,~3–5 2022~2022",
        ),
        (
            "{hour from:5}:{minute from:05} – {hour to:5}:{minute to:09} {period to:PM}",
            "{hour from:17}:{minute from:05} – {hour to:17}:{minute to:09}",
            "5:05~17:05 5:09~17:09 PM~17:09",
        ),
    ],
)
def test_words_that_render_the_same_field_are_aligned(source, target, expected):
    sides = segments(source), segments(target)
    a, b = ("".join(words for _, words in side).split() for side in sides)
    found = " ".join(f"{a[i]}~{b[j]}" for i, j in sorted(phrases.word_links(*sides)))
    assert found == expected


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_alignments_link_words_and_turn_around(source, target):
    there, back = Phrases(source, target, "train"), Phrases(target, source, "train")
    for index in range(200):
        phrase, translation = there[index]
        pairs = there.alignment(index)
        assert pairs and all(i < len(phrase.split()) and j < len(translation.split()) for i, j in pairs)
        form, value = there._phrase(index)
        segments = [form.segments(value, locale) for locale in (back.source, back.target)]
        assert phrases.word_links(*segments) == {(j, i) for i, j in pairs}
