"""Parallel text: pairs of lines from two aligned files, from a table, or from a TensorFlow dataset.

Every source can be iterated again and again and streams, so corpora may be larger than memory. TensorFlow itself is
never imported, and nothing is downloaded unless asked for.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etils import epath

from zoo.data import files
from zoo.data.encodings import Decoder
from zoo.data.tables import Table
from zoo.errors import UserError, nearest
from zoo.storage import expanded

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

Pair = tuple[str, str]


class LineAligned:
    """Two files of one sentence a line, PREFIX.SOURCE and PREFIX.TARGET, each plain, gzip or xz."""

    def __init__(self, prefix: str | Path, source: str, target: str):
        """`source` and `target` are the files' suffixes, such as "en" and "fr". Raises UserError if one is missing."""
        self.paths = tuple(_side(prefix, language) for language in (source, target))

    def __iter__(self) -> Iterator[Pair]:
        """Raises UserError where the shorter file ends: the pairs before that may have been misaligned too."""
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
    """A table of one pair a line, SOURCE<TAB>TARGET; further columns are ignored. Plain, gzip or xz."""

    def __init__(self, path: str | Path, skip_malformed: bool = False):
        """Raises UserError if there is no such file."""
        self._table = Table(path, ("source", "target"), headless=True, skip_malformed=skip_malformed)

    def __iter__(self) -> Iterator[Pair]:
        """Raises UserError at a line without a tab, and at the end of a file without lines."""
        return ((source, target) for _, (source, target) in self._table.rows())


class TfdsRows:
    """The rows of a dataset of TensorFlow Datasets, by name or by the directory of a prepared version.

    It must be prepared in a format with random access (array_record), which TensorFlow isn't needed to read.
    """

    def __init__(
        self,
        location: str,
        columns: Sequence[str],
        split: str = "train",
        data_dir: str | None = None,
        download: bool = False,
        called: str = "column",
    ):
        """`location` is a name ("wmt14_translate/de-en") or a directory that holds dataset_info.json.

        `split` may be a slice, "train[:10%]". A name that isn't prepared in `data_dir` is prepared only if `download`.
        Raises UserError for an unknown name, configuration or split, for a dataset not yet prepared, and for one
        without one of the `columns`, which it calls so.
        """
        if _looks_like_a_directory(location):
            builder = _builder_from_directory(location)
        else:
            builder = _builder_from_name(location, data_dir, download)
        _check_columns(builder, location, columns, called)
        self._examples = _examples(builder, location, split)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        chunk = 1024  # one call for many records reads them in parallel, at twice the speed of one at a time
        for start in range(0, len(self), chunk):
            yield from self._examples.__getitems__(range(start, min(start + chunk, len(self))))

    def __len__(self) -> int:
        return len(self._examples)

    def identity(self) -> list[str | int]:
        """What decides the examples: the prepared version, its place and the split."""
        info = self._examples.dataset_info
        return [info.full_name, str(info.data_dir), str(self._examples.split), info.dataset_size, len(self)]


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


def _looks_like_a_directory(location: str) -> bool:
    return location.startswith(("/", ".", "~")) or "://" in location or epath.Path(location).is_dir()


def _builder_from_directory(location: str) -> "tfds.core.DatasetBuilder":
    import tensorflow_datasets as tfds

    directory = epath.Path(expanded(location))
    if (directory / "dataset_info.json").exists():
        return tfds.builder_from_directory(directory)
    depths = ("*/dataset_info.json", "*/*/dataset_info.json")  # NAME/VERSION and NAME/CONFIG/VERSION
    versions = sorted(str(info.parent) for depth in depths for info in directory.glob(depth))
    remedy = f"name a prepared version, such as {versions[-1]}" if versions else "it is no prepared dataset"
    raise UserError(f"no {directory / 'dataset_info.json'}: {remedy}")


def _builder_from_name(name: str, data_dir: str | None, download: bool) -> "tfds.core.DatasetBuilder":
    import tensorflow_datasets as tfds

    # Importing these registers the names of the datasets.
    import tensorflow_datasets.text
    import tensorflow_datasets.translate

    base, _, config = re.sub(r":[\d.*]+$", "", name).partition("/")
    prepared_here = data_dir is not None and (epath.Path(expanded(data_dir)) / base).is_dir()
    known = tfds.core.registered.list_imported_builders()
    if base not in known and not prepared_here:
        raise UserError(f"no TensorFlow dataset is named {base!r}: {nearest(base, known)}")
    configs = getattr(tfds.builder_cls(base), "builder_configs", {}) if base in known else {}
    if config and configs and config not in configs:
        raise UserError(f"TensorFlow dataset {base!r} has no configuration {config!r}: {nearest(config, configs)}")

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    # How TFDS reports a version that the code doesn't know, and a directory that holds no prepared version.
    except (AssertionError, tfds.core.registered.DatasetNotFoundError) as error:
        raise UserError(f"TensorFlow dataset {name!r} can't be had: {str(error).splitlines()[0]}") from error
    if not builder.is_prepared():
        if not download:
            raise UserError(_how_to_prepare(name, builder, data_dir))
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
        builder.download_and_prepare()
    return builder


def _how_to_prepare(name: str, builder: "tfds.core.DatasetBuilder", data_dir: str | None) -> str:
    where = f", data_dir={data_dir!r}" if data_dir else ""
    prepare = f"tfds.builder({name!r}{where}, file_format='array_record').download_and_prepare()"
    return (
        f"TensorFlow dataset {name!r} isn't prepared in {builder.data_path}: ask for its download, or run "
        f'python -c "import tensorflow_datasets as tfds, tensorflow_datasets.translate; {prepare}"'
    )


def _check_columns(builder: "tfds.core.DatasetBuilder", location: str, columns: Sequence[str], called: str) -> None:
    features = builder.info.features.keys() if hasattr(builder.info.features, "keys") else ()
    for column in columns:
        if column not in features:
            raise UserError(f"TensorFlow dataset {location!r} has no {called} {column!r}: {', '.join(features)}")


def _examples(
    builder: "tfds.core.DatasetBuilder", location: str, split: str
) -> "tfds.core.data_sources.PythonDataSource":
    try:
        count = builder.info.splits[split].num_examples
    except (KeyError, ValueError) as error:
        raise UserError(
            f"TensorFlow dataset {location!r} has no split {split!r}: {nearest(split, builder.info.splits)}"
        ) from error
    if not count:
        raise UserError(f"split {split!r} of TensorFlow dataset {location!r} is empty: choose another")
    try:
        return builder.as_data_source(split=split)
    except NotImplementedError as error:
        raise UserError(
            f"TensorFlow dataset {location!r} is prepared as {builder.info.file_format.value}, which only TensorFlow "
            f"reads: delete {builder.data_path} and prepare it again with file_format='array_record'"
        ) from error
