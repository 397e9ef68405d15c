"""Laws of the parallel sources, and the one line that each mistake of a user's earns."""

import gzip
import shutil
import subprocess
import sys

import pytest

from zoo.data.examples.documents import documents
from zoo.data.examples.pairs import LineAligned, Tfds, Tsv, parallel
from zoo.errors import UserError

PAIRS = [("one", "un"), ("two hundred", "deux cents"), ("", "vide"), ("tea", "thé")]


def write(path, text):
    content = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_pairs(prefix, pairs=PAIRS, suffixes=("en", "fr"), end="\n"):
    for side, suffix in enumerate(suffixes):
        write(prefix.with_name(f"{prefix.name}.{suffix}"), "".join(pair[side] + end for pair in pairs))
    return str(prefix)


def message(function, *arguments, **options):
    """The single line of the UserError that building and reading the source raises."""
    with pytest.raises(UserError) as caught:
        list(function(*arguments, **options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffixes", [("en", "fr"), ("en.gz", "fr.gz"), ("en", "fr.gz")])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_files_read_the_same_plain_compressed_and_from_windows_and_again_and_again(tmp_path, suffixes, end):
    source = LineAligned(write_pairs(tmp_path / "train", suffixes=suffixes, end=end), "en", "fr")
    assert list(source) == list(source) == PAIRS


def test_the_direction_is_the_order_of_the_languages(tmp_path):
    prefix = write_pairs(tmp_path / "train")
    assert list(LineAligned(prefix, "fr", "en")) == [(target, source) for source, target in PAIRS]


@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x85", "\r"])
def test_only_a_line_feed_ends_a_line(tmp_path, inside):
    pairs = [(f"a{inside}b", "c"), ("d", "e")]
    assert list(LineAligned(write_pairs(tmp_path / "train", pairs), "en", "fr")) == pairs


def test_the_last_line_needs_no_end_a_byte_order_mark_is_dropped_and_bad_bytes_are_replaced(tmp_path):
    write(tmp_path / "t.en", b"\xef\xbb\xbfone \xe2\x86\x92\nbad \xff byte")
    write(tmp_path / "t.fr", "un\ndeux\n")
    assert list(LineAligned(tmp_path / "t", "en", "fr")) == [("one →", "un"), ("bad \ufffd byte", "deux")]


def test_reading_streams(tmp_path):
    """The first pair is there although the files turn out unequal at their end."""
    write(tmp_path / "t.en", "line\n" * 100_000)
    write(tmp_path / "t.fr", "ligne\n" * 99_999)
    assert next(iter(LineAligned(tmp_path / "t", "en", "fr"))) == ("line", "ligne")


@pytest.mark.parametrize("name", ["table.tsv", "table.tsv.gz"])
def test_a_table_reads_as_its_first_two_columns(tmp_path, name):
    write(tmp_path / name, "".join(f"{source}\t{target}\tnoise\t1\r\n" for source, target in PAIRS))
    source = parallel(str(tmp_path / name), "en", "fr")
    assert isinstance(source, Tsv)
    assert list(source) == list(source) == PAIRS


def test_a_tilde_is_the_home_directory(tmp_path, monkeypatch):
    write_pairs(tmp_path / "train")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert list(parallel("~/train", "en", "fr")) == PAIRS


def test_anything_else_is_a_prefix(tmp_path):
    assert isinstance(parallel(write_pairs(tmp_path / "train"), "en", "fr"), LineAligned)


def test_a_missing_side_names_what_was_tried_and_what_is_there(tmp_path):
    prefix = write_pairs(tmp_path / "train", suffixes=("en", "de.gz"))
    line = message(LineAligned, prefix, "en", "fr")
    assert f"{prefix}.fr or {prefix}.fr.gz" in line and "beside it are de, en" in line
    assert "no language is there" in message(LineAligned, tmp_path / "nowhere" / "train", "en", "fr")


def test_a_directory_is_answered_with_its_prefixes(tmp_path):
    write_pairs(tmp_path / "train")
    write_pairs(tmp_path / "valid", suffixes=("en.gz", "fr.gz"))
    line = message(parallel, str(tmp_path), "en", "fr")
    assert "is a directory" in line and f"{tmp_path}/train, {tmp_path}/valid" in line


@pytest.mark.parametrize("shorter", ["en", "fr"])
def test_sides_of_different_length_name_both_files_and_counts(tmp_path, shorter):
    for language in ("en", "fr"):
        write(tmp_path / f"t.{language}", "x\n" * (2 if language == shorter else 5))
    line = message(LineAligned, tmp_path / "t", "en", "fr")
    assert f"t.{shorter} has 2 lines" in line and "has 5 lines" in line


def test_an_empty_side_is_unequal_and_two_are_empty(tmp_path):
    write(tmp_path / "t.en", "")
    write(tmp_path / "t.fr", "x\n")
    write(tmp_path / "t.de", "")
    assert "t.en has 0 lines" in message(LineAligned, tmp_path / "t", "en", "fr")
    assert "are empty" in message(LineAligned, tmp_path / "t", "en", "de")


def test_mistakes_in_a_table(tmp_path):
    write(tmp_path / "a.tsv", "one\tun\ntwo deux\n")
    write(tmp_path / "b.tsv", "")
    assert "a.tsv:2: no tab" in message(parallel, str(tmp_path / "a.tsv"), "en", "fr")
    assert "b.tsv is empty" in message(parallel, str(tmp_path / "b.tsv"), "en", "fr")
    assert "c.tsv or " in message(parallel, str(tmp_path / "c.tsv"), "en", "fr")


def test_a_bad_gzip_file_is_named(tmp_path):
    (tmp_path / "a.tsv.gz").write_bytes(b"one\tun\n")
    assert "a.tsv.gz isn't a gzip file" in message(Tsv, tmp_path / "a.tsv.gz")
    whole = gzip.compress("".join(f"{i * i}\t{i}\n" for i in range(9999)).encode())
    (tmp_path / "b.tsv.gz").write_bytes(whole[: len(whole) // 2])
    assert "b.tsv.gz is truncated" in message(Tsv, tmp_path / "b.tsv.gz")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The data_dir of a tiny dataset, 2,000 + 2 examples, prepared with random access and without TensorFlow."""
    tfds = pytest.importorskip("tensorflow_datasets")

    class TinyParallel(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.Translation(["en", "fr"]))

        def _split_generators(self, _):
            return {"train": self._generate_examples(2000), "valid": self._generate_examples(2)}

        def _generate_examples(self, count):
            return ((i, {"en": f"tea {i}", "fr": f"thé {i}"}) for i in range(count))

    tfds.disable_progress_bar()
    data_dir = tmp_path_factory.mktemp("tfds")
    assert len(Tfds("tiny_parallel", "en", "fr", "valid", data_dir=str(data_dir), download=True)) == 2
    return data_dir


def test_a_dataset_reads_the_same_by_name_and_by_directory(prepared):
    by_name = parallel("tfds:tiny_parallel", "en", "fr", data_dir=str(prepared))
    by_directory = parallel(f"tfds:{prepared}/tiny_parallel/1.0.0", "en", "fr")
    assert list(by_name) == list(by_name) == list(by_directory)
    assert set(by_name) == {(f"tea {i}", f"thé {i}") for i in range(2000)}
    assert len(by_name) == 2000


def test_a_slice_of_a_split_is_a_part_of_it(prepared):
    first, rest, whole = (
        list(Tfds("tiny_parallel", "fr", "en", split, str(prepared))) for split in ("train[:5%]", "train[5%:]", "train")
    )
    assert len(first) == 100 and first + rest == whole
    assert {(source[:3], target[:3]) for source, target in whole} == {("thé", "tea")}


def test_a_dataset_is_read_without_tensorflow(prepared):
    code = (
        "import sys; from zoo.data.examples.pairs import parallel; "
        f"assert len(list(parallel('tfds:{prepared}/tiny_parallel/1.0.0', 'en', 'fr', 'valid'))) == 2; "
        "assert 'tensorflow' not in sys.modules and 'tensorflow_datasets' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_column_of_a_dataset_is_documents_that_know_what_they_are(prepared):
    location = f"tfds:{prepared}/tiny_parallel/1.0.0"
    english, french = (documents(location, "valid", "valid", column) for column in ("en", "fr"))
    pairs = list(parallel(location, "en", "fr", "valid"))
    assert list(zip(english, french, strict=True)) == pairs
    assert list(english) == [source for source, _ in pairs]
    assert english.identity() == documents(location, "valid", "valid", "en").identity() != french.identity()
    assert english.identity() != documents(location, "valid", "train", "en").identity()


def test_files_are_read_without_tensorflow_datasets(tmp_path):
    prefix = write_pairs(tmp_path / "train")
    code = (
        "import sys; from zoo.data.examples.pairs import parallel; "
        f"assert len(list(parallel({prefix!r}, 'en', 'fr'))) == 4; assert 'tensorflow_datasets' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_dataset_without_random_access_says_how_to_get_it(prepared, tmp_path):
    directory = shutil.copytree(prepared / "tiny_parallel" / "1.0.0", tmp_path / "tiny_parallel" / "1.0.0")
    info = directory / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    line = message(parallel, f"tfds:{directory}", "en", "fr")
    assert "is prepared as tfrecord" in line and "file_format='array_record'" in line


def test_mistakes_about_a_dataset(prepared, tmp_path):
    here = str(prepared)
    assert "did you mean 'wmt14_translate'?" in message(parallel, "tfds:wmt14_translat/de-en", "de", "en")
    assert "did you mean 'de-en'?" in message(parallel, "tfds:wmt14_translate/de-e", "de", "en")
    line = message(parallel, "tfds:wmt14_translate/de-en", "de", "en", data_dir=str(tmp_path))
    assert "isn't prepared in" in line and "download_and_prepare()" in line
    assert not list(tmp_path.iterdir())
    assert "only: 1.0.0" in message(parallel, "tfds:tiny_parallel:9.9.9", "en", "fr", data_dir=here)
    assert "no language 'de': en, fr" in message(parallel, "tfds:tiny_parallel", "de", "fr", data_dir=here)
    assert "no split 'test': known: train, valid" in message(Tfds, "tiny_parallel", "en", "fr", "test", here)
    assert "no split 'train[:x]'" in message(Tfds, "tiny_parallel", "en", "fr", "train[:x]", here)
    assert "is empty" in message(Tfds, "tiny_parallel", "en", "fr", "train[:0]", here)
    line = message(Tfds, f"{prepared}/tiny_parallel", "en", "fr")
    assert f"such as {prepared}/tiny_parallel/1.0.0" in line
    assert "no prepared dataset" in message(Tfds, str(tmp_path), "en", "fr")
    (tmp_path / "unprepared").mkdir()
    assert "is not available" in message(Tfds, "unprepared", "en", "fr", data_dir=str(tmp_path))
