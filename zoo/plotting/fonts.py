"""Find fonts for the characters of any text."""

import logging
import unicodedata
from collections.abc import Iterator

from matplotlib import font_manager

log = logging.getLogger("zoo")
EAST_ASIAN = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "FULLWIDTH", "HALFWIDTH", "IDEOGRAPHIC")


def families(text: str) -> list[str]:
    """Font families that together have a glyph for all of `text`, matplotlib's own first.

    A character that no installed font has is drawn as a box; a warning names the first few.
    """
    chosen = ["DejaVu Sans"]
    missing = _without_glyph(set(text), font_manager.findfont(chosen[0]))
    for font in _others() if missing else ():
        still = _without_glyph(missing, font.fname)
        if len(still) < len(missing) and font.name not in chosen:
            chosen, missing = [*chosen, font.name], still
        if not missing:
            break
    if missing:
        named = " ".join(sorted(missing)[:5])
        log.warning(
            "no installed font has a glyph for %s: it is drawn as a box; install one that has, on Debian and Ubuntu by "
            "`apt install %s`",
            named,
            " ".join(sorted({_package(character) for character in missing})),
        )
    return chosen


def _others() -> Iterator[font_manager.FontEntry]:
    """Every installed font, those that matplotlib knows first; its cache misses fonts that were installed later."""
    manager = font_manager.fontManager
    # "Last Resort" has a box for everything.
    yield from sorted(
        (font for font in manager.ttflist if not font.name.startswith("Last Resort")), key=lambda font: font.fname
    )
    for path in sorted({*font_manager.findSystemFonts()} - {font.fname for font in manager.ttflist}):
        try:
            manager.addfont(path)
        except (OSError, RuntimeError):  # a kind of font that cannot be drawn with, as one of bitmaps
            continue
        yield manager.ttflist[-1]


def _package(character: str) -> str:
    """Debian's package of fonts for a character's script."""
    script = unicodedata.name(character, "").split(" ")[0]
    return "fonts-noto-cjk" if script in EAST_ASIAN else "fonts-noto-core"


def _without_glyph(characters: set[str], font: str) -> set[str]:
    glyphs = font_manager.get_font(font)
    return {c for c in characters if not c.isspace() and not glyphs.get_char_index(ord(c))}
