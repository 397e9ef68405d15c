"""What can be wrong before a run starts: one line names the thing, the value and the remedy; nothing is left behind."""

import json

import pytest
from spoiling import files_under, write

from zoo.tasks.translation import Translation, TranslationData

pytestmark = pytest.mark.usefixtures("log_as_before")

WRONG_STARTS = {
    "a misspelt key": ({"train.stepz": 3}, {}, ["config.train.stepz is not a key", "did you mean 'steps'?"]),
    "a wrong type": ({"train.steps": "many"}, {}, ["config.train.steps='many' is not a whole number"]),
    "no number": ({"optimizer.peak": "nan"}, {}, ["config.optimizer.peak='nan' is not a number"]),
    "a missing file": ({"data.train": "HERE/no"}, {}, ["no file HERE/no.en or HERE/no.en.gz", "data.path"]),
    "a missing validation file": ({"data.valid": "HERE/no"}, {}, ["no file HERE/no.en or HERE/no.en.gz"]),
    "a missing test file": ({"data.test": "HERE/no.tsv"}, {}, ["no file HERE/no.tsv or HERE/no.tsv.gz"]),
    "no validation split": ({"data.valid": ""}, {}, ["no data.valid", "--config.data.valid="]),
    "sides that differ": (
        {"data.train": "HERE/x"},
        {"x.en": "a\nb\nc\n", "x.fr": "a\nb\n"},
        ["HERE/x.en has 3 lines and HERE/x.fr has 2 lines", "line N of one must be"],
    ),
    "validation sides that differ": (
        {"data.valid": "HERE/x"},
        {"x.en": "a\nb\nc\n", "x.fr": "a\nb\n"},
        ["HERE/x.en has 3 lines and HERE/x.fr has 2 lines"],
    ),
    "empty files": ({"data.train": "HERE/x"}, {"x.en": "", "x.fr": ""}, ["x.en and", "x.fr are empty", "hold text"]),
    "blank lines": ({"data.train": "HERE/x"}, {"x.en": " \n", "x.fr": "a\n"}, ["data.train='HERE/x'", "no pairs"]),
    "too long for all": ({"data.max_length": 2}, {}, ["no sentence pairs are left of data.train", "40 with more than"]),
    "no tab": ({"data.train": "HERE/x.tsv"}, {"x.tsv": "a\tb\nplain\n"}, ["HERE/x.tsv:2: no tab", "'plain'"]),
    "no row that fits": (
        {"data.train": "HERE/x.tsv", "data.skip_malformed": "true"},
        {"x.tsv": "plain\n\n"},
        ["HERE/x.tsv:1: no tab", "no other row fits"],
    ),
    "another encoding": (
        {"data.train": "HERE/x"},
        {"x.en": "a\nb\n".encode("utf-16"), "x.fr": "a\nb\n"},
        ["HERE/x.en:1: not UTF-8, but probably UTF-16", "iconv"],
    ),
    "Latin-1": (
        {"data.valid": "HERE/x"},
        {"x.en": "a\nb\n", "x.fr": "déjà\nvécu\n".encode("latin-1")},
        ["HERE/x.fr:1: not UTF-8, but probably ISO-8859-1", "iconv"],
    ),
    "no gzip": (
        {"data.train": "HERE/x"},
        {"x.en.gz": "a\n", "x.fr": "a\n"},
        ["x.en.gz isn't a gzip file", "remove .gz"],
    ),
    "too many pieces": ({"data.vocabulary": 5000}, {}, ["data.vocabulary=5000 is too large", "set it to at most"]),
    "too few pieces": ({"data.vocabulary": 6}, {}, ["data.vocabulary=6 is too small", "set it to at least"]),
    "too many words": (
        {"data.vocabulary": 500, "data.tokenizer": "word"},
        {},
        ["too large for the words", "at most 48"],
    ),
    "too many words of the target": (
        {"data.vocabulary": 46, "data.target_vocabulary": 500, "data.tokenizer": "word", "data.joint": "false"},
        {},
        ["data.target_vocabulary=500 is too large", "at most 46"],
    ),
    "sentences that parts cannot share": (
        {"data.batch_sentences": 9, "train.accumulate": 2},
        {},
        ["data.batch_sentences=9 does not divide by 2", "train.accumulate", "use 10"],
    ),
    "a small batch": ({"data.batch_tokens": 8}, {}, ["data.batch_tokens=8", "data.max_length=24", "use at least 24"]),
    "a padded length below 2": ({"data.steps": "-4"}, {}, ["data.steps=(-4,)", "at least 2"]),
    "an unknown dataset": ({"data.train": "tfds:wmt14_translat/de-en"}, {}, ["'wmt14_translat'", "'wmt14_translate'"]),
    "an unknown selection": ({"train.select": "blue"}, {}, ["train.select='blue'", "did you mean 'bleu'?"]),
    "a mesh for others": ({"mesh.data": 7}, {}, ["data=7", "1 devices", "change config.mesh"]),
    "a seed below 0": ({"seed": -1}, {}, ["seed=-1", "from 0 to"]),
    "no layers": ({"model.layers": 0}, {}, ["model.layers=0", "at least 1"]),
    "no heads": ({"model.heads": 0}, {}, ["model.heads=0", "at least 1"]),
    "much dropout": ({"model.dropout": 1}, {}, ["model.dropout=1.0", "[0, 1)"]),
}


@pytest.mark.parametrize("name", WRONG_STARTS)
def test_a_wrong_start_is_reported_at_once_and_leaves_nothing_behind(start, tmp_path, name):
    changes, files, told = WRONG_STARTS[name]
    data = tmp_path / "data"
    data.mkdir()
    write(data, files)
    line = start({key: str(value).replace("HERE", str(data)) for key, value in changes.items()})
    for part in told:
        assert part.replace("HERE", str(data)) in line
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


WRONG_TEXTS = {
    "a folder with no text": (
        {"data.train": "HERE/empty"},
        {"empty/notes.md": b"a"},
        ["no text at HERE/empty", ".txt"],
    ),
    "blank texts": ({"data.train": "HERE/x"}, {"x/a.txt": b" \n"}, ["data.train='HERE/x'", "holds no text"]),
    "a picture": ({"data.valid": "HERE/a.txt"}, {"a.txt": b"\x89PNG\0\x01"}, ["HERE/a.txt:1: a NUL byte"]),
    "another encoding": ({"data.train": "HERE"}, {"b.txt": "Где же?".encode("koi8-r")}, ["HERE/b.txt:1: not UTF-8"]),
    "no vocabulary files": ({"data.tokenizer": "gpt1"}, {}, ["data.vocabulary_files is not set", "encoder_bpe_40000"]),
    "another directory": (
        {"data.tokenizer": "gpt2", "data.vocabulary_files": "HERE"},
        {},
        ["data.vocabulary_files=HERE holds no encoder.json or vocab.json"],
    ),
    "foreign vocabulary files": (
        {"data.tokenizer": "gpt2", "data.vocabulary_files": "HERE"},
        {"encoder.json": b'{"a": 0, "b": 1, "ab": 2}', "vocab.bpe": b"#version: 0.2\na b\n"},
        ["HERE/encoder.json and vocab.bpe", "not of gpt2", "bytes have no piece"],
    ),
    "a truncated vocabulary file": (
        {"data.tokenizer": "gpt1", "data.vocabulary_files": "HERE"},
        {"vocab.json": b'{"a": 0, "b</w', "merges.txt": b"#version: 0.2\n"},
        ["HERE/vocab.json and merges.txt", "truncated", "fetch them again"],
    ),
    "a tokenizer that is none": ({"data.tokenizer": "gpt"}, {}, ["data.tokenizer='gpt'", "gpt1, gpt2"]),
}


@pytest.mark.parametrize("name", WRONG_TEXTS)
def test_a_wrong_start_on_text_is_reported_and_leaves_nothing_behind(mistake, tmp_path, name):
    changes, files, told = WRONG_TEXTS[name]
    for file, content in files.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(content)
    options = [f"--config.{key}={value.replace('HERE', str(tmp_path))}" for key, value in changes.items()]
    line = mistake("train", "--config=gpt.py:nano", f"--workdir={tmp_path / 'run'}", *options)
    assert all(part.replace("HERE", str(tmp_path)) in line for part in told), line
    assert not (tmp_path / "run").exists()


def test_a_failed_start_keeps_the_empty_directory_that_it_was_given(start, tmp_path):
    (tmp_path / "run").mkdir()
    start({"data.batch_tokens": 8})
    assert [path.name for path in tmp_path.rglob("*")] == ["run"]


def test_the_values_that_can_be_selected_are_those_of_an_evaluation(workdir):
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    names = {name.removeprefix("valid/") for record in records for name in record if name.startswith("valid/")}
    assert names == set(Translation.selectable(TranslationData()))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("phrases.py:en-xx", ["unknown locale 'xx'", "name one of CLDR's"]),
        ("phrases.py:enfr", ["'enfr'", "en-fr"]),
        ("bahdanau2014.py:40", ["'40'", "30 or 50"]),
        ("bahdanau2014.py:50,rnnencdc", ["'rnnencdc'", "did you mean 'rnnencdec'?"]),
        ("sutskever2014.py:en-fr", ["'en-fr'", "takes none"]),
        ("cho2014.py:30", ["'30'", "bahdanau2014.py:30,rnnencdec"]),
        ("phrase", ["no config file 'phrase'", "'phrases.py'"]),
        ("nowhere/phrases.py", ["no config file 'nowhere/phrases.py'"]),
        ("HERE/broken.py", ["broken.py, line 2", "KeyError: 'x'", "fix it"]),
        ("HERE/syntax.py", ["syntax.py", "SyntaxError"]),
        ("HERE/nothing.py", ["nothing.py", "no function get_config"]),
    ],
)
def test_a_wrong_config_is_reported_and_leaves_nothing_behind(mistake, tmp_path, config, told):
    write(tmp_path, {"broken.py": "def get_config():\n    return {}['x']\n", "syntax.py": "def (\n", "nothing.py": ""})
    line = mistake("train", f"--config={config.replace('HERE', str(tmp_path))}", f"--workdir={tmp_path / 'run'}")
    for part in told:
        assert part in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["file", "file/below", "file/far/below"])
def test_a_directory_that_cannot_be_made_is_reported(start, tmp_path, place):
    write(tmp_path, {"file": "mine"})
    line = start({}, tmp_path / place)
    for part in (f"cannot write {tmp_path / place}", "Not a directory", "choose another --workdir"):
        assert part in line
    assert (tmp_path / "file").read_text() == "mine"


def test_another_store_is_not_a_working_directory_and_no_directory_of_that_name_is_made(mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "s3://bucket/run: checkpoints go to a file system or to gs://" in mistake(
        "train", "--workdir=s3://bucket/run"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"optimizer.peak": 0.5}, ["optimizer.peak was", "now 0.5", "choose another --workdir", "its own config"]),
        ({"mesh.data": 7}, ["data=7", "change config.mesh"]),  # which a run may change, if it can start
        ({"train.steps": 9, "data.path": "/nowhere", "data.max_length": 2}, ["data.max_length was 24, now 2"]),
    ],
)
def test_a_working_directory_that_a_start_is_refused_is_as_it_was(start, copy, changes, told):
    before = files_under(copy)
    line = start(changes, copy)
    for part in told:
        assert part in line
    assert files_under(copy) == before


def test_a_loss_that_is_not_a_number_ends_the_run_and_keeps_what_was_saved(start, tmp_path):
    line = start({"optimizer.peak": 1e30, "optimizer.warmup": 0})
    for part in ("the loss of step 2 is not a number", "step 1 is kept", "lower optimizer.peak", "optimizer.clip"):
        assert part in line
    assert (tmp_path / "run" / "checkpoints" / "1" / "checksums.json").is_file()
    assert not (tmp_path / "run" / "checkpoints" / "2").exists()
