"""Tables: rows of cells, separated by tabs or, in a `.csv`, by commas, with columns found by the names in the header.

A row with another number of cells than the header is an error, since its cells would get the wrong names; with
`skip_malformed` it is left out, counted and reported. So is a quote that is never closed. Blank lines at the end of a
file are no rows.
"""

import csv
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from zoo.data.text import files
from zoo.errors import UserError
from zoo.storage import AnyPath

log = logging.getLogger("zoo")
Row = tuple[int, list[str]]  # the line that it begins in, counted from 1, and its cells
Record = tuple[int, list[str] | str]  # the same before its width is checked, or what is wrong with it
SKIP = "leave such rows out with --config.data.skip_malformed=true"


class Table:
    """A file of rows, streamed, which can be read again and again. Tabs separate cells, and quotes are text, as in
    GLUE. If the name ends in `.csv` (or `.csv.gz`, ...), commas separate them, and a cell in double quotes may hold
    commas and line breaks (RFC 4180).
    """

    def __init__(
        self,
        path: str | Path,
        header: Sequence[str] = (),
        headless: bool = False,
        skip_malformed: bool = False,
        key: str = "data.path",
    ):
        """`header` names the columns of a file that may lack a header: a first line without any of these names is a
        row. A `headless` file has none, and its rows may have further cells, which are ignored.

        Raises `UserError` if there is no such file; `key` is the option that names it.
        """
        self.path = files.required(path, key)
        self._header, self._headless, self._skip = tuple(header), headless, skip_malformed
        self._commas = files.bare(self.path.name).endswith(".csv")

    def columns(self) -> tuple[str, ...]:
        """The names of the columns. Raises `UserError` for a file without lines."""
        return self._begin()[0]

    def rows(self, columns: Sequence[str] = ()) -> Iterator[Row]:
        """The rows, with only the cells of these `columns`, in this order (default: all).

        Raises `UserError` for a row that does not fit, with file and line, for a column that is missing or occurs
        twice, and for a file without rows.
        """
        names, records = self._begin()
        places = [self._place(column, names) for column in columns or names]
        count, skipped = 0, []
        for number, cells in records:
            problem = cells if isinstance(cells, str) else self._misfit(cells, names)
            if problem and not self._skip:
                raise UserError(f"{self.path}:{number}: {problem}: fix the row, or {SKIP}")
            if problem:
                skipped.append((number, problem))
            else:
                count += 1
                yield number, [cells[place] for place in places]
        if skipped and not count:
            number, problem = skipped[0]
            raise UserError(f"{self.path}:{number}: {problem}, and no other row fits: check its header")
        if skipped:
            log.warning(
                "%s: malformed rows left out: %d, the first in line %d: %s", self.path, len(skipped), *skipped[0]
            )
        if not count:
            raise UserError(f"{self.path} is empty: name a file that holds rows")

    def _begin(self) -> tuple[tuple[str, ...], Iterator[Record]]:
        """The names of the columns, and the records after them."""
        records = _between_commas(self.path) if self._commas else _between_tabs(self.path)
        first = next(records, None)
        if first is None:
            raise UserError(f"{self.path} is empty: name a file that holds rows")
        if self._headless or (self._header and not set(self._header) & set(first[1])):
            return self._header, chain([first], records)
        if isinstance(first[1], str):
            raise UserError(f"{self.path}:{first[0]}: {first[1]}: fix the header")
        return tuple(first[1]), records

    def _place(self, column: str, names: Sequence[str]) -> int:
        if names.count(column) != 1:
            has = "no column" if column not in names else "more than one column"
            raise UserError(f"{self.path} has {has} {column!r}: it has {', '.join(names)}")
        return names.index(column)

    def _misfit(self, cells: Sequence[str], names: Sequence[str]) -> str:
        """What is wrong with a row; nothing for one that fits."""
        width = len(names)
        if self._headless and len(cells) < width:
            return f"no {'comma' if self._commas else 'tab'} between {' and '.join(names)}: {cells[0][:40]!r}"
        if not self._headless and len(cells) != width:
            return f"{len(cells)} column{'s' * (len(cells) != 1)} where the header has {width}"
        return ""


def _between_tabs(path: AnyPath) -> Iterator[Record]:
    blank = []
    for number, line in enumerate(files.lines(path), 1):
        if not line.strip(" "):
            blank.append((number, [line]))
            continue
        yield from blank
        blank = []
        yield number, line.split("\t")


def _between_commas(path: AnyPath) -> Iterator[Record]:
    """Only the first line of an unreadable row is lost: an open quote would swallow all that follows."""
    lines, again = enumerate(files.lines(path), 1), deque[tuple[int, str]]()
    blank, long = [], []
    while True:
        taken: list[tuple[int, str]] = []
        try:
            cells = next(csv.reader(_fed(lines, again, taken), strict=True), None)
        except csv.Error as error:
            again.extendleft(reversed(taken[1:]))
            cells = f"not a row of a CSV ({error}), check its quotes"
        if cells is None:
            break
        if len(taken) > 1 and not isinstance(cells, str):
            long.append(taken[0][0])
        if not cells or (cells == [taken[0][1]] and not cells[0].strip(" ")):
            blank.append((taken[0][0], [""]))
            continue
        yield from blank
        blank = []
        yield taken[0][0], cells
    if long:
        log.info("%s: rows that span several lines: %d, the first from line %d", path, len(long), long[0])


def _fed(
    lines: Iterator[tuple[int, str]], again: deque[tuple[int, str]], taken: list[tuple[int, str]]
) -> Iterator[str]:
    """The lines of a row, first those to be read `again`; each is also added to `taken`."""
    while (numbered := again.popleft() if again else next(lines, None)) is not None:
        taken.append(numbered)
        yield numbered[1] + "\n"
