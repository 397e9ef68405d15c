"""What a score is measured on, and what it says."""

import pytest

import zoo
from zoo.errors import UserError
from zoo.evaluation import score, table


@pytest.mark.smoke
def test_a_score_tells_its_data_its_direction_and_its_step(workdir):
    scores = score(zoo.load(workdir), "valid")
    assert scores["direction"] == "en-fr"
    assert scores["step"] == 3
    assert scores["sentences"] == 40
    assert {"bleu", "bleu_signature", "chrf", "exact_match", "loss", "perplexity", "accuracy"} <= scores.keys()


def test_other_data_is_scored_in_place_of_the_split(workdir, tmp_path):
    (tmp_path / "two.tsv").write_text("in 1 days\tdans 1 jours\n\tvide\n", encoding="utf-8")
    scores = score(zoo.load(workdir), "test", str(tmp_path / "two.tsv"))
    assert scores["sentences"] == 2
    assert scores["data"] == str(tmp_path / "two.tsv")


def test_each_bleu_stands_beside_its_signature_and_direction():
    scores = {"split": "test", "data": "x", "direction": "en-fr", "step": 3, "sentences": 40}
    lines = table(scores | {"bleu": 12.5, "bleu_signature": "nrefs:1|case:mixed"}).splitlines()
    assert lines[1].split() == ["bleu", "12.5000", "en→fr", "nrefs:1|case:mixed"]


def test_a_checkpoint_that_is_not_there_is_the_users_mistake(workdir):
    with pytest.raises(UserError, match="no checkpoint of step 77"):
        score(zoo.load(workdir, "77"), "valid")
