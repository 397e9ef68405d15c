"""Documents for language models: text files, archives of them, TensorFlow datasets, and the manual of Python itself.

Every source can be iterated again and again and streams, so corpora may be larger than memory. Text stays as it is,
line breaks included.
"""

import os
import platform
import re
import tarfile
import zlib
from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any, Protocol, runtime_checkable

from etils import epath

from zoo.data.examples.tfds import TfdsRows
from zoo.data.text import files
from zoo.data.text.encodings import Decoder
from zoo.errors import UserError
from zoo.storage import expanded

PYDOC = "pydoc"
SPLITS = ("train", "valid", "test")
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz")
KINDS = (".txt", ".gz", ".xz", ".tar", ".tgz", ".txz")


@runtime_checkable
class Documents(Protocol):
    """Texts that can be iterated again and again."""

    read: float  # what share of them the latest iteration has come to

    def __iter__(self) -> Iterator[str]: ...

    def identity(self) -> Any:
        """Whatever decides the texts, as JSON; for files, also their sizes and times."""


def documents(
    location: str, split: str, tfds_split: str = "train", column: str = "text", download: bool = False
) -> Documents:
    """The documents at `location`, in an order that does not change.

    `location` is `pydoc` (then `split` says which of its documents), `tfds:NAME` (then `tfds_split` and `column`), or a
    path: a file, a folder (all of its text files, and those in folders below), a pattern such as `books/*.txt`, an
    archive, or a folder inside one, `books.tar.xz/train`. A file is a document; gzip and xz are unpacked. A share after
    it, as in `novel.txt[:90%]`, takes that part of every document's characters.

    Raises `UserError` if there is no such text.
    """
    if location == PYDOC:
        return Pydoc(split)
    if location.startswith("tfds:"):
        return TfdsText(location.removeprefix("tfds:"), column, tfds_split, download)
    path, begin, end = _share(location)
    found = TextFiles(path)
    return found if (begin, end) == (0, 100) else Shares(found, begin, end)


def _share(location: str) -> tuple[str, int, int]:
    """`PATH[A%:B%]` as path, A and B; a location without a share is whole."""
    match = re.fullmatch(r"(.+)\[(?:(\d+)%)?:(?:(\d+)%)?\]", location)
    if match is None:
        return location, 0, 100
    begin, end = int(match[2] or 0), int(match[3] or 100)
    if not 0 <= begin < end <= 100:
        raise UserError(f"{location}: a share runs from a smaller to a larger per cent, as [:90%] or [90%:]")
    return match[1], begin, end


class Pydoc:
    """The topics of Python's own `help()`: text that every Python has. A tenth each is for valid and test. The title
    decides the split of a text, since several topics can share one text.
    """

    read = 0.0

    def __init__(self, split: str):
        self.split = split

    def identity(self) -> Any:
        return [PYDOC, self.split, platform.python_version()]

    def __iter__(self) -> Iterator[str]:
        from pydoc_data.topics import topics

        for text in dict.fromkeys(topics[name] for name in sorted(topics)):
            title = text.partition("\n")[0]
            if {0: "valid", 1: "test"}.get(zlib.crc32(title.encode()) % 10, "train") == self.split:
                yield text


class TfdsText:
    """One column of a prepared TensorFlow dataset."""

    def __init__(self, location: str, column: str, split: str, download: bool):
        """Raises `UserError` as `TfdsRows` does."""
        self._rows = TfdsRows(location, [column], split, download=download)
        self._column, self._location, self.read = column, location, 0.0

    def identity(self) -> Any:
        return [*self._rows.identity(), self._column]

    def __iter__(self) -> Iterator[str]:
        decode = Decoder(f"{self._location}, {self._column}", strict=False)
        for number, row in enumerate(self._rows):
            self.read = number / len(self._rows)
            yield decode(row[self._column])
        decode.finish()


class Shares:
    """The part of every document from `begin` to `end` per cent of its characters."""

    def __init__(self, whole: Documents, begin: int, end: int):
        self._whole, self._begin, self._end = whole, begin, end

    @property
    def read(self) -> float:
        return self._whole.read

    def identity(self) -> Any:
        return [self._whole.identity(), self._begin, self._end]

    def __iter__(self) -> Iterator[str]:
        for text in self._whole:
            yield text[len(text) * self._begin // 100 : len(text) * self._end // 100]


class TextFiles:
    """The text files and archives at a path, in the order of their names."""

    def __init__(self, location: str):
        """Raises `UserError` where there are none."""
        self.location, self._inside, self.read = location, "", 0.0
        path = epath.Path(expanded(location))
        archive = next((p for p in path.parents if p.name.endswith(ARCHIVES) and p.is_file()), None)
        if archive is not None:
            self._inside = f"{path.relative_to(archive)}"
            self.paths = [archive]
        elif path.is_dir():
            self.paths = [p for p in _files(path) if p.name.endswith(KINDS)]
        elif (found := files.find(path)) is not None:
            self.paths = [found]
        else:
            self.paths = sorted(epath.Path(path.anchor).glob(str(path.relative_to(path.anchor))))
        if not self.paths:
            raise UserError(f"no text at {location}: name a file, a folder or a pattern of {', '.join(KINDS)}")

    def identity(self) -> Any:
        return [self._inside, *((str(path), *_version(path)) for path in self.paths)]

    def __iter__(self) -> Iterator[str]:
        """Raises `UserError` for a damaged file, for one that is not text, and for a folder that the archive does not
        have."""
        empty = True
        sizes = [path.stat().length for path in self.paths]
        for number, path in enumerate(self.paths):
            with files.opened(path) as (raw, file):
                for text in self._members(path, file) if path.name.endswith(ARCHIVES) else [_text(file, str(path))]:
                    empty = False
                    self.read = (sum(sizes[:number]) + raw.tell()) / max(sum(sizes), 1)
                    yield text
        if empty:
            raise UserError(f"{self.location} holds no text: name a folder of its archive that does")

    def _members(self, path: epath.Path, file: BufferedIOBase) -> Iterator[str]:
        folder = f"{self._inside}/" if self._inside else ""
        with tarfile.open(fileobj=file, mode="r|") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if member.isfile() and (name == self._inside or name.startswith(folder)):
                    yield _text(archive.extractfile(member), f"{path}/{name}")
        while file.read(2**20):  # a truncated archive shows only at its end
            pass


def _version(path: epath.Path) -> tuple[int, int]:
    """Size, and time of the last change as precisely as the file system keeps it."""
    if "://" in str(path):
        return path.stat().length, path.stat().mtime
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns


def _files(folder: epath.Path) -> Iterator[epath.Path]:
    """All files below `folder`, sorted by name in each folder."""
    for path in sorted(folder.iterdir()):
        yield from _files(path) if path.is_dir() else [path]


def _text(file: BufferedIOBase, name: str) -> str:
    return files.text(files.unpacked(file.read()), name)
