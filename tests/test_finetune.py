"""The command line for labelled examples: from a pretrained body to GLUE's submission."""

import io
import json
import shutil
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from test_generate import TINY

from zoo.checkpoints import load_parameters
from zoo.cli import main
from zoo.donors import Donor
from zoo.experiment import from_workdir
from zoo.runs import described
from zoo.workdirs import load

COLA = "".join(f"x\t{n % 2}\t\tin {n} days\n" for n in range(12))
FINE = {
    "data.batch_rows": "4",
    "train.compute_dtype": "float32",
    "train.log_every": "1",
    "optimizer.warmup": "0",
}


def options(config):
    return [f"--config.{key}={value}" for key, value in config.items()]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder of CoLA's format, and beside it a language model that was trained for a step. Not to be changed."""
    root = tmp_path_factory.mktemp("finetune")
    data = root / "cola"
    data.mkdir()
    for name in ("train.tsv", "dev.tsv"):
        (data / name).write_text(COLA)
    (data / "test.tsv").write_text("index\tsentence\n" + "".join(f"{n}\tin {n} days\n" for n in range(5)))
    (root / "text.txt").write_text("".join(f"in {n} days\n" for n in range(40)))
    config = TINY | {"data.path": root, "data.train": "text.txt", "data.valid": "text.txt", "data.test": ""}
    config |= {"train.steps": "1", "train.evaluate_every": "1", "train.compute_dtype": "float32"}
    assert main(["train", "--config=gpt", f"--workdir={root / 'gpt'}", *options(config)]) == 0
    return root


def finetune(root, workdir, *words, **changes):
    config = FINE | {"data.path": root / "cola", "train.epochs": "0.34"} | changes
    return main(["train", "--config=gpt1_finetune:cola", f"--workdir={workdir}", *words, *options(config)])


@pytest.fixture(scope="module")
def tuned(root):
    """A classifier fine-tuned for one step at a learning rate of 0, so that it is what it began with."""
    changes = {"optimizer.multipliers": "body=0"}
    assert finetune(root, root / "tuned", f"--init_from={root / 'gpt'}", **changes) == 0
    return root / "tuned"


def test_a_body_is_taken_with_its_size_and_its_tokenizer(root, tuned):
    step, params = load_parameters(tuned)
    assert step == 1  # a third of the three steps of an epoch
    _, body = load_parameters(root / "gpt")
    table = params["body"].pop("embedding")["table"]
    pretrained = body.pop("embedding")["table"]
    assert np.array_equal(table[:-3], pretrained)
    assert 0.01 < table[-3:].std() < 0.03
    assert jax.tree.all(jax.tree.map(np.array_equal, params["body"], body))
    assert from_workdir(tuned).data.length == 16
    for file in (root / "gpt" / "tokenizer").iterdir():
        assert (tuned / "tokenizer" / file.name).read_bytes() == file.read_bytes()


def test_predictions_are_written_as_glue_takes_them_of_a_split_without_labels(tuned, tmp_path, capsys):
    file = tmp_path / "CoLA.tsv"
    words = ("--split=test", f"--predictions={file}", "--format=glue", "--json")
    assert main(["eval", f"--workdir={tuned}", *words]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert (scores["examples"], "matthews" in scores) == (5, False)
    header, *rows = file.read_text().splitlines()
    assert header == "index\tprediction"
    assert [row.split("\t")[0] for row in rows] == list("01234")
    assert {row.split("\t")[1] for row in rows} <= {"0", "1"}


def test_evaluations_are_counted_in_epochs_and_steps_bound_them(root):
    run = root / "epochs"
    changes = {"train.epochs": "2", "train.evaluate_epochs": "0.5", "train.steps": "5"}  # of three steps an epoch
    assert finetune(root, run, f"--init_from={root / 'gpt'}", **changes) == 0
    reports = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [report["step"] for report in reports if "valid/loss" in report] == [2, 3, 5]


def test_the_same_size_and_tokenizer_can_begin_at_random(root):
    assert finetune(root, root / "random", f"--like={root / 'gpt'}", **{"optimizer.multipliers": "body=0"}) == 0
    _, params = load_parameters(root / "random")
    _, body = load_parameters(root / "gpt")
    assert params["body"]["embedding"]["table"].shape[0] == body["embedding"]["table"].shape[0] + 3
    assert not np.array_equal(params["body"]["positions"]["table"], body["positions"]["table"])


def test_a_body_of_another_size_is_reported_with_its_first_parameters(root, tmp_path, capfd):
    assert finetune(root, tmp_path / "run", f"--init_from={root / 'gpt'}", **{"model.width": "8"}) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    for part in ("belongs to another model", "params/decoder/", "(16,) there, (8,) here"):
        assert part in line
    assert not (tmp_path / "run").exists()


def test_a_pattern_that_no_parameter_has_and_predictions_of_no_classifier_are_reported(root, tmp_path, capfd):
    changes = {"optimizer.multipliers": "bodi=0"}
    assert finetune(root, tmp_path / "run", f"--like={root / 'gpt'}", **changes) == 2
    assert "no parameter's path has 'bodi' in it: did you mean 'body'?" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main(["eval", str(root / "gpt"), "--split=valid", f"--predictions={tmp_path / 'x'}"]) == 2
    assert "holds no classifier" in capfd.readouterr().err


def test_a_classifier_gives_its_body_and_keeps_its_head(root, tuned, capfd):
    frozen = {"optimizer.multipliers": "body=0,head=0,markers=0"}
    assert finetune(root, root / "again", f"--init_from={tuned}", **frozen) == 0
    assert "taken: body; fresh: head; left: head" in capfd.readouterr().err
    assert finetune(root, root / "head", f"--init_from={tuned}@1", "--init_head", **frozen) == 0
    one, body, whole = (load_parameters(path)[1] for path in (tuned, root / "again", root / "head"))
    assert jax.tree.all(jax.tree.map(np.array_equal, one, whole))
    assert jax.tree.all(jax.tree.map(np.array_equal, one["body"], body["body"]))
    assert (one["head"]["kernel"] != body["head"]["kernel"]).any()


def test_a_classifier_is_saved_with_its_labels_and_no_other_program_takes_it(tuned, tmp_path, capfd):
    assert main(["convert", str(tuned), str(tmp_path / "copy"), "--to=zoo"]) == 0
    one, other = (load(path).classify(["in 3 days"])[0] for path in (tuned, tmp_path / "copy"))
    assert (one.label, one.probabilities) == (other.label, other.probabilities)
    for to in ("huggingface", "ctranslate2"):
        assert main(["convert", str(tuned), str(tmp_path / to), f"--to={to}"]) == 2
        error = capfd.readouterr().err.splitlines()[-1]
        assert "GPTClassifier" in error
        assert not (tmp_path / to).exists()


@pytest.mark.parametrize("donor", ["gpt", "tuned"])
def test_a_classifier_learns_a_vocabulary_of_its_own_and_keeps_the_rows_that_it_shares(
    root, tuned, tmp_path, capfd, donor
):
    frozen = {"optimizer.multipliers": "body=0,markers=0", "data.vocabulary": "280", "data.tokenizer": "bpe"}
    assert finetune(root, tmp_path / "run", f"--init_from={root / donor}", "--new_vocabulary", **frozen) == 0
    assert "of 280 pieces kept" in capfd.readouterr().err
    before, after = load(root / donor), load(tmp_path / "run")
    old, new = (np.asarray(run.params.get("body", run.params)["embedding"]["table"]) for run in (before, after))
    rows = {before.task.tokenizer.piece(i): i for i in range(before.task.tokenizer.size)}
    shared = [(rows[piece], i) for i in range(280) if (piece := after.task.tokenizer.piece(i)) in rows]
    assert len(shared) > 15 and len(new) == 283
    assert all((old[there] == new[here]).all() for there, here in shared)
    assert (old[-3:] == new[-3:]).all() == (donor == "tuned")  # the rows of the tokens that classifiers add


def test_a_language_model_has_no_head_to_give(root, tmp_path, capfd):
    assert finetune(root, tmp_path / "run", f"--init_from={root / 'gpt'}", "--init_head") == 2
    assert "--init_head" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def test_another_tokenizer_than_the_donors_is_refused(root, tmp_path, capfd):
    assert finetune(root, tmp_path / "run", f"--init_from={root / 'gpt'}", **{"data.vocabulary": "77"}) == 2
    assert "data.vocabulary=77: the run takes the tokenizer of" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("spec", "checkpoint"), [("gpt", "best"), ("gpt/best", "best"), ("gpt@1", "1"), ("gpt/checkpoints/1", "1")]
)
def test_a_language_model_begins_with_the_sizes_of_its_donor(root, spec, checkpoint):
    donor = Donor.of(root / spec)
    assert (donor.path, donor.checkpoint) == (root / "gpt", checkpoint)
    experiment, _ = described("gpt", None, [("train.steps", "1")], donor)
    mine, theirs = experiment.model.config(), from_workdir(root / "gpt").model.config()
    assert (mine.layers, mine.width, mine.heads) == (theirs.layers, theirs.width, theirs.heads)
    assert experiment.data.vocabulary == from_workdir(root / "gpt").data.vocabulary


@pytest.fixture
def copy(tuned, tmp_path):
    """A copy of the classifier, to be changed."""
    return shutil.copytree(tuned, tmp_path / "copy")


def files_of(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def cola_with(directory, change):
    """A folder of CoLA's files with their text changed."""
    directory.mkdir()
    for name in ("train.tsv", "dev.tsv"):
        (directory / name).write_text(change(COLA))
    return directory


def test_other_labels_than_the_runs_are_refused_and_change_nothing(root, copy, tmp_path, capfd):
    before = files_of(copy)
    named = cola_with(
        tmp_path / "x", lambda text: text.replace("\t1\t", "\tgood\t").replace("\t0\t", "\tungrammatical\t")
    )
    words = (f"--init_from={root / 'gpt'}",)
    assert finetune(root, copy, *words, **{"data.path": named, "optimizer.multipliers": "body=0"}) == 2
    assert "train.tsv:1: the label 'ungrammatical' is not one of this run: known: 0, 1" in capfd.readouterr().err
    assert files_of(copy) == before


def test_a_misspelt_label_is_reported_with_file_and_line(root, tmp_path, capfd):
    misspelt = cola_with(tmp_path / "x", lambda text: text.replace("x\t1\t\tin 5", "x\tl\t\tin 5"))
    assert finetune(root, tmp_path / "run", f"--like={root / 'gpt'}", **{"data.path": misspelt}) == 2
    assert "train.tsv:6: the label 'l' is not one of this run" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def predicted(workdir, file, *words):
    assert main(["eval", f"--workdir={workdir}", f"--predictions={file}", *words]) == 0
    return [row.split("\t")[:2] for row in file.read_text().splitlines()]


def test_labels_are_part_of_the_checkpoint(tuned, copy, tmp_path, capfd):
    file = copy / "labels.json"
    given = json.loads(file.read_text())
    file.unlink()
    words = (tmp_path / "out.tsv", "--split=valid")
    assert predicted(copy, *words) == predicted(tuned, *words)
    file.write_text(json.dumps(given[::-1]))
    assert main(["eval", f"--workdir={copy}", "--split=valid"]) == 2
    assert "labels.json has 1, 0, " in capfd.readouterr().err


def test_predictions_have_a_row_for_every_row_labelled_or_not(tuned, tmp_path):
    rows = [row.split("\t") for row in COLA.splitlines()]
    for number, label in ((1, "-"), (2, ""), (7, "-1")):
        rows[number][1] = label
    (tmp_path / "some.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    whole = predicted(tuned, tmp_path / "a.tsv", "--split=valid")
    assert predicted(tuned, tmp_path / "b.tsv", f"--data={tmp_path / 'some.tsv'}") == whole
    assert len(whole) == 13


def classified(monkeypatch, capfd, workdir, text, *words):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text.encode()), isatty=lambda: False))
    code = main(["classify", str(workdir), *words])
    output = capfd.readouterr()
    return output.out.splitlines() if code == 0 else output.err


def test_classify_answers_every_line_as_an_evaluation_does(tuned, tmp_path, monkeypatch, capfd):
    assert main(["eval", f"--workdir={tuned}", "--split=valid", f"--predictions={tmp_path / 'p'}"]) == 0
    rows = [row.split("\t") for row in (tmp_path / "p").read_text().splitlines()[1:]]
    capfd.readouterr()
    text = "".join(row.split("\t")[3] + "\n" for row in COLA.splitlines()) + "\n"
    plain = classified(monkeypatch, capfd, tuned, text)
    assert len(plain) == 13  # an empty line is one too
    assert plain[:12] == [row[1] for row in rows]
    assert [row[2] for row in rows] == [row.split("\t")[1] for row in COLA.splitlines()]
    records = [json.loads(line) for line in classified(monkeypatch, capfd, tuned, text, "--json")]
    for record, label, row in zip(records[:12], plain, rows, strict=False):
        assert sum(record["probabilities"].values()) == pytest.approx(1)
        assert record["label"] == label == max(record["probabilities"], key=record["probabilities"].get)
        assert record["probabilities"][label] == pytest.approx(float(row[3]), abs=1e-4)
    top = [line.split("\t") for line in classified(monkeypatch, capfd, tuned, text, "--top=2")]
    assert [line[::2] for line in top] == [
        sorted(r["probabilities"], key=r["probabilities"].get)[::-1] for r in records
    ]
    assert [each.label for each in load(tuned).classify(["in 3 days", "in 5 days"])] == [plain[3], plain[5]]


def test_a_line_with_another_number_of_texts_is_reported(root, tuned, monkeypatch, capfd):
    assert "line 2: 2 texts where the model reads 1: write sentence" in classified(
        monkeypatch, capfd, tuned, "a\nb\tc\n"
    )
    assert "python -m zoo generate" in classified(monkeypatch, capfd, root / "gpt", "a\n")


def test_an_evaluation_shows_baselines_intervals_and_classes(tuned, tmp_path, capfd):
    assert main(["eval", f"--workdir={tuned}", "--split=valid", "--json"]) == 0
    scores = json.loads(capfd.readouterr().out)
    low, high = scores["intervals"]["matthews"]
    assert low <= scores["matthews"] <= high
    assert scores["baselines"]["matthews"] == {"majority": 0, "random": 0}
    assert np.array(scores["confusion"]).sum(axis=1).tolist() == [6, 6]
    assert set(scores["classes"]) == {"0", "1"}
    assert main(["eval", f"--workdir={tuned}", "--split=valid"]) == 0
    shown = capfd.readouterr().out
    assert "majority 0.0000  random 0.0000" in shown and "precision  recall" in shown
    assert main(["plot", str(tuned), "--confusion", "--split=valid", f"--out={tmp_path / 'c.png'}"]) == 0
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert main(["eval", f"--workdir={tuned}", "--format=glue"]) == 2
    assert "--format=glue" in capfd.readouterr().err


def test_a_run_that_is_past_its_end_says_so_and_where_its_parameters_are(root, copy, capfd):
    shutil.rmtree(copy / "best")
    (copy / "summary.json").unlink()
    words = (f"--init_from={root / 'gpt'}",)
    assert finetune(root, copy, *words, **{"optimizer.multipliers": "body=0", "train.epochs": "0.01"}) == 0
    told = capfd.readouterr().err
    assert "is at step 1, and trains to 1: nothing is left" in told
    assert f"parameters  {copy / 'checkpoints' / '1'}" in told


def test_a_folder_instead_of_a_file_is_reported_with_what_it_holds(root, tmp_path, capfd):
    changes = {"data.path": "", "data.train": root / "cola"}
    assert finetune(root, tmp_path / "run", f"--like={root / 'gpt'}", **changes) == 2
    assert "is a folder, which holds dev.tsv, test.tsv, train.tsv: name a file in it" in capfd.readouterr().err


def test_several_seeds_are_one_call_with_a_mean_and_a_spread(root, tuned, tmp_path, capfd):
    shutil.copytree(tuned, tmp_path / "runs" / "seed-0")  # trained by the same command: not trained again
    words = (f"--init_from={root / 'gpt'}", "--seeds=2")
    assert finetune(root, tmp_path / "runs", *words, **{"optimizer.multipliers": "body=0"}) == 0
    assert "seed-0 is finished" in capfd.readouterr().err
    spread = json.loads((tmp_path / "runs" / "seeds.json").read_text())
    summaries = [json.loads((tmp_path / "runs" / f"seed-{n}" / "summary.json").read_text()) for n in (0, 1)]
    assert [summary["config"]["seed"] for summary in summaries] == [0, 1]
    losses = [summary["scores"]["loss"] for summary in summaries]
    assert spread["loss"]["each"] == losses and losses[0] != losses[1]
    assert (spread["loss"]["mean"], spread["loss"]["deviation"]) == pytest.approx(
        (np.mean(losses), np.std(losses, ddof=1))
    )
    assert finetune(root, tuned, *words) == 2
    assert "holds one run" in capfd.readouterr().err


def test_own_columns_train_from_a_classifier_of_other_labels_and_rare_ones_are_pointed_out(tuned, tmp_path, capfd):
    rows = [{"stars": ["good", "bad"][n % 2], "review": f"in {n} days"} for n in range(120)]
    rows[3]["stars"] = "baad"
    for name in ("train.jsonl", "dev.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = FINE | {"data.path": tmp_path, "data.train": "train.jsonl", "data.valid": "dev.jsonl", "data.test": ""}
    config |= {"train.epochs": "0.01"}
    words = ["--config=gpt1_finetune:own,text:review,label:stars", f"--init_from={tuned}", *options(config)]
    assert main(["train", f"--workdir={tmp_path / 'head'}", "--init_head", *words]) == 2
    assert f"--init_head: the outputs of {tuned} are 0, 1, and this run has baad, bad, good" in capfd.readouterr().err
    assert main(["train", f"--workdir={tmp_path / 'run'}", *words]) == 0
    told = capfd.readouterr().err
    assert "120 examples: good 60, bad 59, baad 1" in told
    assert "few have the label baad: check its spelling" in told
    assert json.loads((tmp_path / "run" / "labels.json").read_text()) == ["baad", "bad", "good"]
