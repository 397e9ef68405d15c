"""Rows of TensorFlow Datasets. TensorFlow itself is never imported, and nothing is downloaded unless asked for."""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from etils import epath

from zoo.errors import UserError, nearest
from zoo.storage import expanded

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


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
        Raises UserError for an unknown name, configuration or split, for a dataset that is not prepared, and for a
        missing one of the `columns`, which the error calls `called`.
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
        """Whatever decides the examples: the prepared version, its place and the split."""
        info = self._examples.dataset_info
        return [info.full_name, str(info.data_dir), str(self._examples.split), info.dataset_size, len(self)]


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
        raise UserError(f"TensorFlow dataset {name!r} is not available: {str(error).splitlines()[0]}") from error
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
