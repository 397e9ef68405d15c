"""Parallel text: pairs of lines from two aligned files, from a table, or from a TensorFlow dataset.

Every source can be iterated again and again and streams, so corpora may be larger than memory.
"""

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path

from etils import epath

from zoo.data.examples.tfds import TfdsRows
from zoo.data.text import files
from zoo.data.text.encodings import Decoder
from zoo.data.text.tables import Table
from zoo.errors import UserError
from zoo.storage import expanded

Pair = tuple[str, str]


class LineAligned:
    """Two files with one sentence per line, PREFIX.SOURCE and PREFIX.TARGET, each plain, gzip or xz."""

    def __init__(self, prefix: str | Path, source: str, target: str):
        """`source` and `target` are the files' suffixes, such as "en" and "fr". Raises UserError if one is missing."""
        self.paths = tuple(_side(prefix, language) for language in (source, target))

    def __iter__(self) -> Iterator[Pair]:
        """Raises UserError at the end of the shorter file: the pairs before may have been misaligned too."""
        pair = None
        for pair in zip_longest(*map(files.lines, self.paths)):
            if None in pair:
                raise self._unequal()
            yield pair
        if pair is None:
            raise UserError(f"{' and '.join(map(str, self.paths))} are empty: name files that hold text")

    def _unequal(self) -> UserError:
        sizes = [f"{path} has {sum(1 for _ in files.lines(path)):,} lines" for path in self.paths]
        return UserError(f"{' and '.join(sizes)}: line N of one must be the translation of line N of the other")


class Tsv:
    """A table with one pair per line, SOURCE<TAB>TARGET; further columns are ignored. Plain, gzip or xz."""

    def __init__(self, path: str | Path, skip_malformed: bool = False):
        """Raises UserError if there is no such file."""
        self._table = Table(path, ("source", "target"), headless=True, skip_malformed=skip_malformed)

    def __iter__(self) -> Iterator[Pair]:
        """Raises UserError at a line without a tab, and at the end of a file without lines."""
        return ((source, target) for _, (source, target) in self._table.rows())


class Tfds:
    """The pairs of a translation dataset of TensorFlow Datasets."""

    def __init__(
        self,
        location: str,
        source: str,
        target: str,
        split: str = "train",
        data_dir: str | None = None,
        download: bool = False,
    ):
        """As `TfdsRows`; the columns are languages."""
        self.languages, self._location = (source, target), location
        self._rows = TfdsRows(location, self.languages, split, data_dir, download, "language")

    def __iter__(self) -> Iterator[Pair]:
        decoders = [Decoder(f"{self._location}, {language}", strict=False) for language in self.languages]
        for row in self._rows:
            yield tuple(decode(row[language]) for decode, language in zip(decoders, self.languages, strict=True))
        for decode in decoders:
            decode.finish()

    def __len__(self) -> int:
        return len(self._rows)


def parallel(
    location: str,
    source: str,
    target: str,
    split: str = "train",
    data_dir: str | None = None,
    download: bool = False,
    skip_malformed: bool = False,
) -> Iterable[Pair]:
    """The pairs at `location`: "tfds:NAME" or "tfds:DIRECTORY", FILE.tsv, else the prefix of two aligned files.

    `split`, `data_dir` and `download` are for TensorFlow Datasets; a file is a split by itself. With `skip_malformed`
    the lines of a table without a tab are left out and counted.
    Raises UserError when there is no such data.
    """
    if location.startswith("tfds:"):
        return Tfds(location.removeprefix("tfds:"), source, target, split, data_dir, download)
    if files.bare(location).endswith(".tsv"):
        return Tsv(location, skip_malformed)
    return LineAligned(location, source, target)


def _side(prefix: str | Path, language: str) -> epath.Path:
    """The file of one language. Raises UserError that names the files tried and what there is instead."""
    if (found := files.find(f"{prefix}.{language}")) is not None:
        return found
    tried = " or ".join(files.candidates(f"{prefix}.{language}"))
    if (directory := epath.Path(expanded(prefix))).is_dir():
        prefixes = sorted({files.bare(str(file)) for file in directory.iterdir()})
        prefixes = [file.removesuffix(f".{language}") for file in prefixes if file.endswith(f".{language}")]
        remedy = f"such as {', '.join(prefixes)}" if prefixes else f"but no file in it ends in .{language}"
        raise UserError(f"{prefix} is a directory, and a prefix is needed (no {tried}), {remedy}")
    beside = _languages_beside(epath.Path(expanded(prefix)))
    found = f"beside it are {', '.join(beside)}" if beside else "no language is there under this prefix"
    raise UserError(f"no file {tried}: {found}; check data.path and the languages")


def _languages_beside(prefix: epath.Path) -> list[str]:
    """The suffixes XX of the files PREFIX.XX, compressed or not."""
    if not prefix.parent.is_dir():
        return []
    names = {files.bare(file.name) for file in prefix.parent.iterdir()}
    return sorted({name.removeprefix(f"{prefix.name}.") for name in names if name.startswith(f"{prefix.name}.")})
