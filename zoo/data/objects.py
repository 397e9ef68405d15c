"""JSON lines: rows that are objects, one a line, with columns found by their keys, as `zoo.data.tables` has tables."""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from zoo.data import files
from zoo.data.tables import SKIP, Row
from zoo.errors import UserError

log = logging.getLogger("zoo")


class Objects:
    """A file of one JSON object a line, which can be read again and again and streams. Blank lines are no rows."""

    def __init__(self, path: str | Path, skip_malformed: bool = False, key: str = "data.path"):
        """Raises `UserError` if there is no such file; `key` says in it what named the file."""
        self.path, self._skip = files.required(path, key), skip_malformed

    def columns(self) -> tuple[str, ...]:
        """The keys of the first object. Raises `UserError` for a file without any."""
        for _, row in self._objects():
            return tuple(row)
        raise UserError(f"{self.path} is empty: name a file that holds rows")

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """The rows, with the values of these `columns` as text: that of null and of a missing label is empty.

        Raises `UserError` with file and line for what is no object, and for a key that is missing or holds no text.
        """
        count, skipped = 0, []
        for number, row in self._objects():
            problem = next((found for name in columns if (found := _problem(row, name))), "")
            if problem and not self._skip:
                raise UserError(f"{self.path}:{number}: {problem}: fix the row, or {SKIP}")
            if problem:
                skipped.append(f"line {number}: {problem}")
                continue
            count += 1
            yield number, [_text(row[name]) for name in columns]
        if skipped:
            log.warning("%s: malformed rows left out: %d, the first in %s", self.path, len(skipped), skipped[0])
        if not count:
            raise UserError(f"{self.path} is empty: name a file that holds rows")

    def _objects(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, line in enumerate(files.lines(self.path), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                row = f"no JSON ({error})"
            except RecursionError:
                row = "JSON that is nested too deeply"
            if isinstance(row, dict):
                yield number, row
            elif not self._skip:
                what = row if isinstance(row, str) else "JSON, but no object"
                raise UserError(f"{self.path}:{number}: {what}: fix the row, or {SKIP}")
            else:
                log.warning("%s:%d: left out, for it is no JSON object", self.path, number)


def _problem(row: dict[str, Any], name: str) -> str:
    if name not in row:
        return f"no key {name!r}: it has {', '.join(row)}"
    if isinstance(row[name], dict | list):
        return f"{name!r} holds no text: {json.dumps(row[name])[:40]}"
    return ""


def _text(value: Any) -> str:
    """As one would write it into a table: 3 for 3.0 too, so that numbers name classes however they were saved."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
