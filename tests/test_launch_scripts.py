"""The launch scripts for one GPU: which commands they give, what they repeat, and that those commands work."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from zoo.data.examples.labelled import FORMATS

LAUNCH = Path(__file__).parent.parent / "docs" / "launch"
# Stands in for the zoo: notes its arguments, makes the working directory, and answers `eval` with a score.
STUB = """
import pathlib, sys
name, *rest = sys.argv[1:]
with open(pathlib.Path(__file__).parent / "commands", "a") as file:
    print(name, *rest, file=file)
for argument in rest:
    if argument.startswith("--workdir="):
        pathlib.Path(argument.partition("=")[2]).mkdir(parents=True, exist_ok=True)
if name == "eval":
    print('{"score": 1}')
"""


def commands(tmp_path: Path, script: str, *arguments: str, **environment: str) -> list[str]:
    """What the script asks of the zoo."""
    stub, written = tmp_path / "stub.py", tmp_path / "commands"
    stub.write_text(STUB)
    written.unlink(missing_ok=True)
    run = [str(LAUNCH / script), *arguments]
    subprocess.run(run, env=os.environ | {"ZOO": f"{sys.executable} {stub}"} | environment, check=True)
    return written.read_text().splitlines()


def test_a_translation_model_is_trained_and_scored(tmp_path):
    workdir = tmp_path / "run"
    train, score = commands(tmp_path, "one-gpu-translation.sh", "DATA", str(workdir), "--config.train.steps=3")
    assert train.startswith("train --config=multi30k.py:en-de ") and train.endswith("--config.train.steps=3")
    assert "--config.data.path=DATA" in train
    assert score == f"eval {workdir} --split=test --json"
    assert (workdir / "test.json").read_text() == '{"score": 1}\n'


def test_gpt_is_pretrained_and_each_task_trained_with_it_and_without(tmp_path):
    arguments = ("one-gpu-gpt1.sh", "BOOKS", "FILES", "GLUE", str(tmp_path / "runs"))
    first, *others = commands(tmp_path, *arguments, STEPS="7", FINETUNE="--config.train.epochs=1 --config.seed=2")
    assert "--config=gpt1_books.py:paper" in first and "--config.train.steps=7" in first
    trained = [line for line in others if line.startswith("train")]
    assert len(trained) == 8 and all("--config.train.epochs=1 --config.seed=2" in line for line in trained)
    books = tmp_path / "runs" / "books"
    assert {f"--{start}={books}" in line for line, start in zip(trained, 4 * ("init_from", "like"), strict=True)} == {
        True
    }
    # What has its score is not trained again; what lost it is.
    (tmp_path / "runs" / "rte-like" / "valid.json").unlink()
    _, *again = commands(tmp_path, *arguments)
    assert [line.split()[0] for line in again] == ["train", "eval"] and "gpt1_finetune.py:rte" in again[0]


REAL = {"ZOO": f"{sys.executable} -m zoo", "JAX_PLATFORMS": "cpu"}
TINY = "--config.model.width=16 --config.model.ffn=32 --config.model.layers=1 --config.model.heads=2"


def run(script: str, *arguments: object, **environment: str) -> str:
    """What the script prints, with the zoo itself."""
    command = [str(LAUNCH / script), *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | REAL | environment, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


@pytest.mark.slow
def test_the_translation_script_goes_from_sentences_to_scores(tmp_path):
    for split, rows in {"train": 60, "val": 4, "test_2016_flickr": 4}.items():
        for language in ("en", "de"):
            (tmp_path / f"{split}.{language}").write_text("".join(f"{language} {n} {n + 1}\n" for n in range(rows)))
    changes = "--config.train.steps=2 --config.data.vocabulary=20 --config.data.batch_tokens=64"
    printed = run("one-gpu-translation.sh", tmp_path, tmp_path / "run", *f"{TINY} {changes}".split())
    assert json.loads(printed.splitlines()[-1]) == json.loads((tmp_path / "run" / "test.json").read_text())


def glue(root: Path) -> None:
    """Twelve examples of each task, in its own columns."""
    labels = {"cola": ("0", "1"), "sst2": ("0", "1"), "stsb": ("0.0", "5.0"), "rte": ("entailment", "not_entailment")}
    for name, folder in {"cola": "CoLA", "sst2": "SST-2", "stsb": "STS-B", "rte": "RTE"}.items():
        form, lines = FORMATS[name], []
        columns = form.header or (*form.first, *form.seconds, form.label)
        for number in range(12):
            cells = [labels[name][number % 2] if column == form.label else f"in {number} days" for column in columns]
            lines.append("\t".join(cells))
        if not form.header:
            lines.insert(0, "\t".join(columns))
        (root / folder).mkdir(parents=True)
        for split in ("train", "dev"):
            (root / folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")


@pytest.mark.slow
def test_the_script_of_gpt_goes_from_books_to_the_scores_of_four_tasks(tmp_path):
    glue(tmp_path / "glue")
    with tarfile.open(tmp_path / "books.tar.xz", "w:xz") as archive:
        for name, rows in {"train": 400, "valid": 40}.items():
            text = "".join(f"after {n} days came {n + 1}.\n" for n in range(rows)).encode()
            member = tarfile.TarInfo(f"books/{name}/one.txt")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    small = {"SIZE": "small", "STEPS": "2", "FINETUNE": "--config.train.epochs=1 --config.data.batch_rows=4"}
    small["PRETRAIN"] = f"{TINY} --config.data.vocabulary=300 --config.model.max_length=64 --config.data.length=16"
    arguments = ("one-gpu-gpt1.sh", tmp_path, "unused", tmp_path / "glue", tmp_path / "runs")
    printed = run(*arguments, **small)
    scores = dict(line.split(" ", 1) for line in printed.splitlines()[-8:])
    tasks = {f"{task}-{start}" for task in ("cola", "sst2", "stsb", "rte") for start in ("init_from", "like")}
    assert set(scores) == tasks and all(json.loads(score) for score in scores.values())
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/valid.json")}
    assert run(*arguments, **small).splitlines()[-8:] == printed.splitlines()[-8:]
    assert before == {path: path.stat().st_mtime_ns for path in before}
