"""What a user can get wrong on a command line: one line names the thing, the value and the remedy."""

import errno
import io
import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from spoiling import files_under

import zoo.cli
from zoo.cli import main
from zoo.data import tokenizers

pytestmark = pytest.mark.usefixtures("log_as_before")

OPTIONS = {
    "a command": (["trian"], ["no command 'trian'", "did you mean 'train'?"]),
    "an option": (["eval", "DIR", "--beem=3"], ["eval does not accept '--beem=3'", "'--beam'"]),
    "a split": (["eval", "DIR", "--split=tset"], ["--split", "'tset'", "'valid', 'test'"]),
    "a checkpoint": (["eval", "DIR", "--checkpoint=bets"], ["'bets'", "best, latest, average"]),
    "a step": (["eval", "DIR", "--checkpoint=77"], ["no checkpoint of step 77", "there are: 1, 2, 3"]),
    "a digit that is no number": (["eval", "DIR", "--checkpoint=²"], ["'²'", "the number of a step"]),
    "other data": (["eval", "DIR", "--data=nowhere"], ["no file nowhere.en or nowhere.en.gz"]),
    "no directory": (["eval"], ["--workdir=DIR"]),
    "a beam": (["translate", "DIR", "--beam-size=x"], ["--beam-size", "'x' is not a whole number"]),
    "a beam of none": (["translate", "DIR", "--beam=0"], ["--beam", "'0' is not a whole number of at least 1"]),
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
    "the same twice": (["plot", "DIR", "DIR"], ["name each working directory only once"]),
    "a layer": (["plot", "DIR", "--text=in 1 days", "--layer=3"], ["--layer=3", "has 2, counted from 1"]),
    "a head": (["plot", "DIR", "--text=in 1 days", "--head=9"], ["--head=9", "has 2, counted from 1"]),
    "a place": (["plot", "DIR", "--out=nowhere/x.png"], ["--out", "nowhere/x.png", "no directory nowhere"]),
    "a directory for a picture": (["plot", "DIR", "--out=."], ["--out", ". is a directory", "name a file in it"]),
    "a place for predictions": (["eval", "DIR", "--predictions=no/p.tsv"], ["--predictions", "no directory no"]),
    "bytes in a text": (["generate", "DIR", "--prompt", "a\udce9"], ["--prompt: 'a\\\\udce9' is not UTF-8"]),
    "bytes in another": (["translate", "DIR", "--prefix=\udcff"], ["--prefix: ", "is not UTF-8 at character 10"]),
    "bytes in a name": (["translate", "run\udcff"], ["argument 1: ", "is not UTF-8", "rename the file"]),
    "a layer of no attention": (["plot", "DIR", "--layer=1"], ["--layer has no effect on learning curves", "--text"]),
    "a beam of no translation": (["plot", "DIR", "--no-unk"], ["--no-unk has no effect on learning curves"]),
    "a split of a sentence": (["plot", "DIR", "--text=a", "--split=valid"], ["--split has no effect on --text"]),
    "a head of lengths": (["plot", "DIR", "--by-length", "--head=1"], ["--head has no effect on --by-length"]),
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


def test_a_pair_without_a_tab_is_reported_with_its_line_before_any_score(mistake, workdir, monkeypatch):
    given = b"in 1 days\tdans 1 jours\n\nin 2 days dans 2 jours\n"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(given), isatty=lambda: False))
    line = mistake("score", workdir)
    for part in ("line 3: no tab", "'in 2 days dans 2 jours'", "source<TAB>target"):
        assert part in line


def test_a_dictionary_that_is_not_utf8_is_reported(mistake, workdir, tmp_path):
    (tmp_path / "words.tsv").write_bytes(b"house\tmaison\nna\xefve\tna\xeff\n")
    line = mistake("translate", workdir, f"--dictionary={tmp_path / 'words.tsv'}")
    assert "words.tsv:2: not UTF-8" in line


def test_an_ensemble_over_different_vocabularies_is_reported_with_both_names(mistake, workdir, copy):
    other = tokenizers.train("unigram", [f"in {n} days" for n in range(200)], 22)
    other.save(copy / "tokenizer", "joint")
    line = mistake("translate", workdir, copy)
    assert f"{workdir} and {copy} have different vocabularies" in line


def test_an_ensemble_of_two_directions_is_reported_with_both_names(mistake, workdir, copy):
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


def test_a_split_that_the_experiment_does_not_have_is_reported(mistake, copy):
    config = json.loads((copy / "config.json").read_text())
    config["data"]["test"] = ""
    (copy / "config.json").write_text(json.dumps(config))
    line = mistake("eval", copy, "--split=test")
    assert "no data.test" in line
    assert "--data=" in line


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
