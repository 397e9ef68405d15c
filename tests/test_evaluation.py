"""What a score is measured on, and what it says."""

import json
import shutil

import pytest
from sacrebleu.metrics import BLEU

import zoo
from zoo.cli import main
from zoo.errors import UserError
from zoo.evaluation import by_length, length_table, score, table
from zoo.tasks import translation


@pytest.mark.smoke
def test_a_score_tells_its_data_its_direction_and_its_step(workdir):
    scores = score(zoo.load(workdir), "valid")
    assert scores["direction"] == "en-fr"
    assert scores["step"] == 3
    assert scores["sentences"] == 40
    assert {"bleu", "bleu_signature", "chrf", "exact_match", "loss", "perplexity", "accuracy"} <= scores.keys()


def test_every_checkpoint_scores_what_training_recorded(workdir, capsys):
    recorded = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    (loss,) = [record["valid/loss"] for record in recorded if "valid/loss" in record]
    for checkpoint in ("latest", "best", "3"):
        capsys.readouterr()
        assert main(["eval", str(workdir), "--split=valid", f"--checkpoint={checkpoint}", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["loss"] == pytest.approx(loss, rel=1e-5), checkpoint


def test_other_data_is_scored_in_place_of_the_split(workdir, tmp_path):
    (tmp_path / "two.tsv").write_text("in 1 days\tdans 1 jours\n\tvide\n", encoding="utf-8")
    scores = score(zoo.load(workdir), "test", str(tmp_path / "two.tsv"))
    assert scores["sentences"] == 2
    assert scores["data"] == str(tmp_path / "two.tsv")


def test_where_the_true_alignment_is_known_the_models_own_error_rate_is_reported(workdir, monkeypatch):
    monkeypatch.setattr(translation, "HELD_OUT_PHRASES", 20)
    assert 0 < score(zoo.load(workdir), "test", "phrases")["alignment_error_rate"] <= 1
    assert "alignment_error_rate" not in score(zoo.load(workdir), "test")


def test_each_bleu_stands_beside_its_signature_and_direction():
    scores = {"split": "test", "data": "x", "direction": "en-fr", "step": 3, "sentences": 40}
    lines = table(scores | {"bleu": 12.5, "bleu_signature": "nrefs:1|case:mixed"}).splitlines()
    assert lines[1].split() == ["bleu", "12.5000", "en→fr", "nrefs:1|case:mixed"]


def test_a_checkpoint_that_is_not_there_is_the_users_mistake(workdir):
    with pytest.raises(UserError, match="no checkpoint of step 77"):
        score(zoo.load(workdir, "77"), "valid")


def test_the_bins_of_lengths_hold_the_split_and_each_directory_has_its_line(workdir, tmp_path):
    other = shutil.copytree(workdir, tmp_path / "other")
    opened = zoo.load(workdir)
    scores = by_length([opened, zoo.load(other, "1")], "valid")
    assert sum(b["sentences"] for b in scores["bins"]) == 40
    assert list(scores["bleu"]) == [str(workdir), str(other)]
    assert all(len(values) == len(scores["bins"]) for values in scores["bleu"].values())
    sources, references = zip(*opened.task.pairs("valid"), strict=True)
    whole = BLEU(effective_order=True).corpus_score(opened.translate(list(sources)), [list(references)])
    assert scores["bleu"][str(workdir)] == [pytest.approx(whole.score)]  # all are of three words
    header, *_, signature = length_table(scores).splitlines()
    assert header.split() == ["words", "sentences", str(workdir), str(other)]
    assert scores["bleu_signature"] in signature


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"target": "de"}, "translates en-de and .* en-fr"), ({"valid": "HERE/two.tsv"}, "other valid data .* --data=")],
)
def test_other_sentences_are_not_compared(workdir, tmp_path, changes, told):
    other = shutil.copytree(workdir, tmp_path / "other")
    (tmp_path / "two.tsv").write_text("in 1 days\tdans 1 jours\n", encoding="utf-8")
    config = json.loads((other / "config.json").read_text())
    config["data"] |= {key: value.replace("HERE", str(tmp_path)) for key, value in changes.items()}
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=told):
        by_length([zoo.load(workdir), zoo.load(other)], "valid")
