"""What a user can get wrong: one line names the thing, the value and the remedy; nothing is lost or left behind."""

import errno
import hashlib
import io
import json
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import TINY

import zoo.cli
from zoo.cli import main
from zoo.data import tokenizers
from zoo.tasks.translation import Translation, TranslationData
from zoo.training import listeners

Files = dict[str, str]


def files_under(directory: Path) -> Files:
    """{name: digest} of all files, so that a lost, a new and an altered one all show."""
    paths = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture
def mistake(capfd):
    """`mistake(*argv)`: the one line that answers it, log lines before it aside, and no word on standard output."""

    def run(*argv: object) -> str:
        capfd.readouterr()
        assert main([str(word) for word in argv]) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert err.count("zoo: error: ") == 1
        last = err.splitlines()[-1]
        assert last.startswith("zoo: error: ")
        assert "Traceback" not in err
        return last

    return run


@pytest.fixture
def start(mistake, tmp_path, pairs_in_files):
    """`start({key: value})`: the answer to a start with these changes of a config that is right, in a new directory."""

    def run(changes: dict[str, object], workdir: Path | None = None) -> str:
        config = TINY | {f"data.{split}": pairs_in_files for split in ("train", "valid", "test")} | changes
        options = [f"--config.{key}={value}" for key, value in config.items()]
        return mistake("train", f"--workdir={workdir or tmp_path / 'run'}", *options)

    return run


@pytest.fixture
def copy(workdir, tmp_path) -> Path:
    """A trained working directory to spoil."""
    return shutil.copytree(workdir, tmp_path / "copy")


def write(directory: Path, files: dict[str, str | bytes]) -> None:
    for name, text in files.items():
        (directory / name).write_bytes(text.encode() if isinstance(text, str) else text)


def truncate(checkpoint: Path) -> None:
    """Cut the largest file of a checkpoint short."""
    largest = max((p for p in (checkpoint / "state").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:100])


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
def test_a_wrong_start_is_told_at_once_and_leaves_nothing_behind(start, tmp_path, name):
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
def test_a_wrong_start_on_text_is_told_and_leaves_nothing_behind(mistake, tmp_path, name):
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
def test_a_wrong_config_is_told_and_leaves_nothing_behind(mistake, tmp_path, config, told):
    write(tmp_path, {"broken.py": "def get_config():\n    return {}['x']\n", "syntax.py": "def (\n", "nothing.py": ""})
    line = mistake("train", f"--config={config.replace('HERE', str(tmp_path))}", f"--workdir={tmp_path / 'run'}")
    for part in told:
        assert part in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["file", "file/below", "file/far/below"])
def test_a_directory_that_cannot_be_made_is_told(start, tmp_path, place):
    write(tmp_path, {"file": "mine"})
    line = start({}, tmp_path / place)
    for part in (f"cannot write {tmp_path / place}", "Not a directory", "choose another --workdir"):
        assert part in line
    assert (tmp_path / "file").read_text() == "mine"


def test_another_store_is_no_working_directory_and_no_directory_of_that_name_is_made(mistake, tmp_path, monkeypatch):
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


def test_a_truncated_checkpoint_is_passed_over_with_a_warning(copy, capfd):
    truncate(copy / "checkpoints" / "3")
    assert main(["eval", str(copy), "--checkpoint=latest", "--split=valid", "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["step"] == 2
    warnings = [line for line in err.splitlines() if line.startswith("zoo: warning: ")]
    assert len(warnings) == 1
    assert f"{copy / 'checkpoints' / '3'} is damaged" in warnings[0]


def test_training_goes_on_from_the_checkpoint_before_a_truncated_one_and_keeps_that(copy, capfd):
    truncate(copy / "checkpoints" / "3")
    assert main(["train", f"--workdir={copy}", "--config.train.steps=4"]) == 0
    err = capfd.readouterr().err
    assert f"{copy / 'checkpoints' / '3'} is damaged" in err
    assert "resuming from step 2 of 4" in err
    assert (copy / "checkpoints" / "3.broken").is_dir()
    assert (copy / "checkpoints" / "4").is_dir()


def without(name: str) -> Callable[[Path], None]:
    return lambda copy: shutil.rmtree(copy / name) if (copy / name).is_dir() else (copy / name).unlink()


def holding(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda copy: (copy / name).write_bytes(content)


def all_truncated(copy: Path) -> None:
    for checkpoint in (copy / "checkpoints").iterdir():
        truncate(checkpoint)


def of_another_model(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["model"]["width"] = 8
    (copy / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def cut_tokenizer(copy: Path) -> None:
    path = copy / "tokenizer" / "joint.model"
    path.write_bytes(path.read_bytes()[:100])


SPOILT = {
    "all checkpoints": (
        all_truncated,
        ["every checkpoint in COPY/checkpoints is damaged", "checkpoints/3", "start over"],
    ),
    "the model": (of_another_model, ["belongs to another model", "params/decoder", "(16, 2, 8) there, (8, 2, 4) here"]),
    "no tokenizer": (without("tokenizer"), ["no tokenizer COPY/tokenizer/joint.model:", "copy it from where"]),
    "a cut tokenizer": (cut_tokenizer, ["COPY/tokenizer/joint.model can't be read", "truncated", "copy it again"]),
    "an empty tokenizer": (holding("tokenizer/joint.model", b""), ["joint.model can't be read", "it is empty"]),
    "a cut config": (holding("config.json", b'{"name": "x", '), ["COPY/config.json is damaged", "put back a copy"]),
    "a binary config": (holding("config.json", b"\xff\xfe"), ["COPY/config.json is damaged", "put back a copy"]),
    "another config": (holding("config.json", b"[]"), ["COPY/config.json is damaged", "[] has no keys"]),
    "a list as a number": (holding("config.json", b'{"data": {"steps": 5}}'), ["config.data.steps=5 is not a list"]),
}


@pytest.mark.parametrize("command", ["train", "eval"])
@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_working_directory_is_told_and_left_as_it_is(mistake, copy, name, command):
    spoil, told = SPOILT[name]
    spoil(copy)
    (copy / "summary.json").unlink()  # or the run counts as finished
    before = files_under(copy)
    line = mistake(command, f"--workdir={copy}", *(["--checkpoint=latest"] if command == "eval" else []))
    for part in told:
        assert part.replace("COPY", str(copy)) in line
    after = files_under(copy)
    for files in (before, after):
        files.pop("logs/host-0.log")  # where the mistake is told, too
    assert after == before


def test_an_average_that_there_is_not_is_told_with_what_makes_one(mistake, copy):
    shutil.rmtree(copy / "average", ignore_errors=True)
    line = mistake("eval", copy, "--checkpoint=average")
    assert f"{copy} holds no average" in line and f"zoo average --last 5 {copy}" in line


def test_a_run_that_cannot_go_on_keeps_its_config(mistake, copy):
    cut_tokenizer(copy)
    before = files_under(copy)
    mistake("train", f"--workdir={copy}", "--config.train.steps=9")
    assert files_under(copy) == before


def test_a_directory_without_its_config_is_not_taken_for_one(mistake, copy):
    (copy / "config.json").unlink()
    before = files_under(copy)
    assert "no config.json" in mistake("eval", copy)
    assert "no working directory: choose another --workdir" in mistake("train", f"--workdir={copy}")
    assert files_under(copy) == before


def test_without_a_best_checkpoint_the_latest_is_used_and_without_any_it_says_how_to_train(copy, mistake, capfd):
    shutil.rmtree(copy / "best")
    assert main(["eval", str(copy), "--split=valid", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["step"] == 3
    shutil.rmtree(copy / "checkpoints")
    line = mistake("eval", copy, "--split=valid")
    assert f"no checkpoint in {copy / 'checkpoints'}" in line
    assert f"train.py --workdir={copy}" in line


@pytest.mark.parametrize("text", [b'{"step": 1, "train/lo', b"\xff\xfe", b'3\n{"train/loss": 1}\n'])
def test_a_damaged_record_is_told(mistake, copy, text):
    (copy / "metrics.jsonl").write_bytes(text)
    for command in (["plot", copy], ["average", copy, "--best=1"]):
        assert f"{copy / 'metrics.jsonl'} holds no report yet" in mistake(*command)


def test_a_summary_of_something_else_is_made_again(copy, capfd):
    (copy / "summary.json").write_text("{}")
    assert main(["train", f"--workdir={copy}"]) == 0
    assert json.loads((copy / "summary.json").read_text())["scores"]["step"] == 3


def full(*args: object, **options: object) -> None:
    """As a write to an open file fails: without the name of the file."""
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("listener", "hears"),
    [(listeners.Metrics, "report"), (listeners.TensorBoard, "report"), (listeners.Samples, "samples")],
)
def test_a_disk_that_fills_up_ends_a_run_in_one_line_and_its_checkpoints_stay(
    mistake, copy, monkeypatch, listener, hears
):
    monkeypatch.setattr(listener, hears, full)
    before = files_under(copy / "checkpoints")
    line = mistake("train", f"--workdir={copy}", "--config.train.steps=6")
    for part in (str(copy), "No space left on device", "make room"):
        assert part in line
    after = files_under(copy / "checkpoints")
    assert all(after[name] == digest for name, digest in before.items() if name.startswith("3/") and name in after)
    assert any(name.startswith(("3/", "6/")) for name in after)


def test_a_disk_too_full_for_the_tokenizer_leaves_nothing_behind(start, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizers.SentencePiece, "save", full)
    assert "No space left on device" in start({})
    assert list(tmp_path.iterdir()) == []


OPTIONS = {
    "a command": (["trian"], ["no command 'trian'", "did you mean 'train'?"]),
    "an option": (["eval", "DIR", "--beem=3"], ["eval takes no '--beem=3'", "'--beam'"]),
    "a split": (["eval", "DIR", "--split=tset"], ["--split", "'tset'", "'valid', 'test'"]),
    "a checkpoint": (["eval", "DIR", "--checkpoint=bets"], ["'bets'", "best, latest, average"]),
    "a step": (["eval", "DIR", "--checkpoint=77"], ["no checkpoint of step 77", "there are: 1, 2, 3"]),
    "a digit that is no number": (["eval", "DIR", "--checkpoint=²"], ["'²'", "the number of a step"]),
    "other data": (["eval", "DIR", "--data=nowhere"], ["no file nowhere.en or nowhere.en.gz"]),
    "no directory": (["eval"], ["--workdir=DIR"]),
    "a beam": (["translate", "DIR", "--beam-size=x"], ["--beam-size", "'x' is not a whole number"]),
    "a beam of none": (["translate", "DIR", "--beam=0"], ["--beam", "'0' is not a whole number from 1 on"]),
    "a quantization": (["translate", "DIR", "--quantize=int4"], ["quantize='int4'", "none, int8"]),
    "a dtype": (["score", "DIR", "--compute-dtype=float16"], ["compute_dtype='float16'", "float32, bfloat16"]),
    "a penalty": (["translate", "DIR", "--length-penalty=nan"], ["--length-penalty", "'nan' is not a number"]),
    "n best": (["translate", "DIR", "--beam=2", "--n-best=3"], ["--n-best=3", "beam of 2", "--beam-size=3"]),
    "no penalty": (["translate", "DIR", "--coverage-penalty=-1"], ["coverage_penalty=-1", "below 0"]),
    "a temperature": (["translate", "DIR", "--temperature=-1"], ["temperature=-1: use 0"]),
    "a share": (["translate", "DIR", "--top-p=0"], ["top_p=0", "(0, 1]"]),
    "a number to draw by": (["translate", "DIR", "--seed=-1"], ["--seed", "'-1'", "from 0 to"]),
    "a beam that draws": (["translate", "DIR", "--top-k=3", "--beam=2"], ["--beam-size=2", "--n-best=N draws"]),
    "two kinds of prefix": (["translate", "DIR", "--prefix=a", f"--prefixes={__file__}"], ["not allowed with"]),
    "no prefixes": (["translate", "DIR", "--prefixes=nowhere"], ["--prefixes", "no file nowhere"]),
    "no dictionary": (["translate", "DIR", "--dictionary=nowhere"], ["--dictionary", "no file nowhere"]),
    "another dictionary": (["translate", "DIR", f"--dictionary={__file__}"], ["test_bad_inputs.py:1", "a tab"]),
    "an ensemble with nothing": (["translate", "DIR", "nowhere"], ["nowhere is not a working directory"]),
    "no text": (["plot", "DIR", "--text="], ["''", "give a sentence"]),
    "two to look at": (["plot", "DIR", "elsewhere", "--text=a"], ["one working directory, not of 2"]),
    "two pictures": (["plot", "DIR", "--text=a", "--by-length"], ["--by-length", "not allowed with"]),
    "the same twice": (["plot", "DIR", "DIR"], ["name every working directory once"]),
    "a layer": (["plot", "DIR", "--text=in 1 days", "--layer=3"], ["--layer=3", "has 2, counted from 1"]),
    "a head": (["plot", "DIR", "--text=in 1 days", "--head=9"], ["--head=9", "has 2, counted from 1"]),
    "a place": (["plot", "DIR", "--out=nowhere/x.png"], ["--out", "nowhere/x.png", "no directory nowhere"]),
    "a directory for a picture": (["plot", "DIR", "--out=."], ["--out", ". is a directory", "name a file in it"]),
    "a place for predictions": (["eval", "DIR", "--predictions=no/p.tsv"], ["--predictions", "no directory no"]),
    "bytes in a text": (["generate", "DIR", "--prompt", "a\udce9"], ["--prompt: 'a\\\\udce9' is not UTF-8"]),
    "bytes in another": (["translate", "DIR", "--prefix=\udcff"], ["--prefix: ", "is not UTF-8 at character 10"]),
    "bytes in a name": (["translate", "run\udcff"], ["argument 1: ", "is not UTF-8", "rename the file"]),
    "a layer of no attention": (["plot", "DIR", "--layer=1"], ["--layer changes nothing of learning curves", "--text"]),
    "a beam of no translation": (["plot", "DIR", "--no-unk"], ["--no-unk changes nothing of learning curves"]),
    "a split of a sentence": (["plot", "DIR", "--text=a", "--split=valid"], ["--split changes nothing of --text"]),
    "a head of lengths": (["plot", "DIR", "--by-length", "--head=1"], ["--head changes nothing of --by-length"]),
    "a format": (["plot", "DIR", "--out=x.docx"], ["x.docx", ".docx", ".png"]),
    "a tokenizer for BLEU": (["eval", "DIR", "--bleu-tokenizer=13b"], ["data.bleu_tokenizer='13b'", "13a"]),
    "an average of too many": (["average", "DIR", "--last=9"], ["keeps 3", "[1, 2, 3]", "train.keep=9"]),
    "a beginning": (["train", "--init_from=nowhere", "--workdir=run"], ["nowhere is not a working directory"]),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_wrong_word_is_named_with_its_remedy_and_writes_nothing(mistake, workdir, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    argv, told = OPTIONS[name]
    before = files_under(workdir)
    line = mistake(*({"DIR": workdir}.get(word, word) for word in argv))
    for part in told:
        assert part.replace("DIR/", f"{workdir}/") in line
    assert files_under(workdir) == before
    assert list(tmp_path.iterdir()) == []


def test_a_pair_without_a_tab_is_told_by_its_line_and_no_score_before_it_is_written(mistake, workdir, monkeypatch):
    given = b"in 1 days\tdans 1 jours\n\nin 2 days dans 2 jours\n"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(given), isatty=lambda: False))
    line = mistake("score", workdir)
    for part in ("line 3: no tab", "'in 2 days dans 2 jours'", "source<TAB>target"):
        assert part in line


def test_a_dictionary_that_is_not_utf8_is_told(mistake, workdir, tmp_path):
    (tmp_path / "words.tsv").write_bytes(b"house\tmaison\nna\xefve\tna\xeff\n")
    line = mistake("translate", workdir, f"--dictionary={tmp_path / 'words.tsv'}")
    assert "words.tsv:2: not UTF-8" in line


def test_an_ensemble_over_different_vocabularies_is_told_by_both_names(mistake, workdir, copy):
    other = tokenizers.train("unigram", [f"in {n} days" for n in range(200)], 22)
    other.save(copy / "tokenizer", "joint")
    line = mistake("translate", workdir, copy)
    assert f"{workdir} and {copy} have different vocabularies" in line


def test_an_ensemble_of_two_directions_is_told_by_both_names(mistake, workdir, copy):
    config = json.loads((copy / "config.json").read_text())
    config["data"] |= {"source": "fr", "target": "en"}
    (copy / "config.json").write_text(json.dumps(config))
    assert f"{workdir} translates en to fr and {copy} fr to en" in mistake("translate", workdir, copy)


@pytest.mark.parametrize(
    "options", [("--coverage-penalty=0.2",), ("--replace-unk",), ("--alignment",), ("--alignment", "--json")]
)
@pytest.mark.parametrize("name", ["cho", "seq2seq"])
def test_what_needs_attention_is_refused_to_a_model_without(mistake, copy, workdir, name, options):
    """And to an ensemble in which it is not the first."""
    config = json.loads((copy / "config.json").read_text())
    config["model"] = {"name": name, "size": "tiny"}
    (copy / "config.json").write_text(json.dumps(config))
    assert f"{name} " in (line := mistake("translate", copy, *options)) and "has no attention" in line
    if "--alignment" in options:
        assert f"the {name} of {copy} has no attention" in mistake("translate", workdir, copy, *options)


def test_a_split_that_the_experiment_does_not_have_is_told(mistake, copy):
    config = json.loads((copy / "config.json").read_text())
    config["data"]["test"] = ""
    (copy / "config.json").write_text(json.dumps(config))
    line = mistake("eval", copy, "--split=test")
    assert "no data.test" in line
    assert "--data=" in line


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_what_was_saved(start, tmp_path):
    line = start({"optimizer.peak": 1e30, "optimizer.warmup": 0})
    for part in ("the loss of step 2 is not a number", "step 1 is kept", "lower optimizer.peak", "optimizer.clip"):
        assert part in line
    assert (tmp_path / "run" / "checkpoints" / "1" / "checksums.json").is_file()
    assert not (tmp_path / "run" / "checkpoints" / "2").exists()


@pytest.fixture(autouse=True)
def log_as_before():
    """The command line takes the log for itself."""
    propagate = logging.getLogger("zoo").propagate
    yield
    logging.getLogger("zoo").propagate = propagate


def test_a_tilde_is_the_home_directory_in_every_path(mistake, start, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    home = str(tmp_path / "home")
    os.mkdir(home)
    for command in ("translate", "eval", "generate"):
        assert f"{home}/run is not a working directory" in mistake(command, "~/run")
    assert f"{home}/run is not a working directory" in mistake("train", "--init_from=~/run", "--workdir=~/new")
    assert f"no config file '{home}/a.py'" in mistake("train", "--config=~/a.py")
    assert f"no file {home}/text.en" in start({"data.train": "~/text"})
    assert f"no file {home}/text.en" in start({"data.path": "~", "data.train": "text"}, Path("~/run"))
    assert f"{home} is a directory" in mistake("plot", "~/run", "--out=~")
    assert [path.name for path in tmp_path.rglob("*")] == ["home"]


def test_a_remedy_fits_what_was_refused(capsys, monkeypatch):
    for code, remedy in ((errno.ENOSPC, "make room"), (errno.EACCES, "permission"), (errno.EROFS, "read-only")):

        def refuse(args, code=code):
            raise OSError(code, os.strerror(code), "/some/file")

        monkeypatch.setattr(zoo.cli.models, "run", refuse)
        assert main(["models"]) == 2
        assert remedy in capsys.readouterr().err.rpartition("/some/file")[2]


def test_a_command_that_is_printed_can_be_pasted(workdir, tmp_path, capsys):
    copy = shutil.copytree(workdir, tmp_path / "a $run")
    assert main(["average", str(copy), "--last=2"]) == 0
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert words[:2] == ["python", "eval.py"] and words[2] == f"--workdir={copy}"
