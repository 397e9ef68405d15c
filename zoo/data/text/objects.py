"""JSON lines: rows that are objects, one per line, with columns found by their keys (`tables` reads other rows)."""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from zoo.data.text import files
from zoo.data.text.tables import SKIP, Row
from zoo.errors import UserError

log = logging.getLogger("zoo")


def json_object(place: str, line: str) -> dict[str, Any]:
    """The fields of a line. Raises a `UserError` that names its `place` if the line is not a JSON object."""
    try:
        fields = json.loads(line)
        json.dumps(fields, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        problem = f"{error.msg} at character {error.pos + 1}"
        raise UserError(f"{place}: no JSON, {problem}: write an object on each line") from error
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        raise UserError(f"{place}: {half} is half of a character: write both halves of the pair, or none") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: JSON that is too large or too deep: write a flat object on each line") from error
    if not isinstance(fields, dict):
        raise UserError(f"{place}: {line.strip()[:40]} is no object: write one on each line")
    return fields


class Objects:
    """A file with one JSON object per line, streamed, which can be read again and again. Blank lines are no rows."""

    def __init__(self, path: str | Path, skip_malformed: bool = False, key: str = "data.path"):
        """Raises `UserError` if there is no such file; `key` is the option that names it."""
        self.path, self._skip = files.required(path, key), skip_malformed

    def columns(self) -> tuple[str, ...]:
        """The keys of the first object. Raises `UserError` for a file without any."""
        for number, line in self._lines():
            return tuple(json_object(f"{self.path}:{number}", line))
        raise UserError(f"{self.path} is empty: name a file that holds rows")

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """The rows, with the values of these `columns` as text; null becomes "".

        Raises `UserError` with file and line for a line that is not an object, and for a key that is missing or holds
        no text.
        """
        count, skipped = 0, []
        for number, line in self._lines():
            place = f"{self.path}:{number}"
            try:
                row = json_object(place, line)
                if problem := next((found for name in columns if (found := _problem(row, name))), ""):
                    raise UserError(f"{place}: {problem}: fix the row, or {SKIP}")
            except UserError as error:
                if not self._skip:
                    raise
                skipped.append(str(error))
                continue
            count += 1
            yield number, [_text(row[name]) for name in columns]
        if skipped:
            log.warning("malformed rows left out: %d, the first is %s", len(skipped), skipped[0])
        if not count:
            raise UserError(skipped[0] if skipped else f"{self.path} is empty: name a file that holds rows")

    def _lines(self) -> Iterator[tuple[int, str]]:
        return ((number, line) for number, line in enumerate(files.lines(self.path), 1) if line.strip())


def _problem(row: dict[str, Any], name: str) -> str:
    if name not in row:
        return f"no key {name!r}: it has {', '.join(row)}"
    if isinstance(row[name], dict | list):
        return f"{name!r} holds no text: {json.dumps(row[name])[:40]}"
    return ""


def _text(value: Any) -> str:
    """A value as a table would hold it. 3.0 becomes 3 too, so that a class has one name however it was saved."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
