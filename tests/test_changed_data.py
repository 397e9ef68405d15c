"""A run notices when its training data are not those that it began with."""

import json
import shutil

import numpy as np
import pytest
from test_finetune import options, root, tuned  # noqa: F401 (fixtures)

from zoo.cli import main
from zoo.data.ids import fingerprints
from zoo.experiment import from_workdir
from zoo.training.progress import Progress


def test_a_fingerprint_tells_where_an_array_ends():
    one, other = ([np.array(ids) for ids in rows] for rows in ([[1, 2], [3]], [[1], [2, 3]]))
    assert fingerprints.of_arrays(one) == fingerprints.of_arrays(np.copy(array) for array in one)
    assert fingerprints.of_arrays(one) != fingerprints.of_arrays(other)


@pytest.fixture
def stopped(workdir, pairs_in_files, tmp_path):
    """A run of three steps on pairs that lie elsewhere now, but are the same."""
    shutil.copytree(workdir, tmp_path / "run")
    config = tmp_path / "run/config.json"
    config.write_text(config.read_text().replace(str(pairs_in_files), str(tmp_path / "text")))
    for suffix in (".en", ".fr"):
        shutil.copyfile(pairs_in_files.with_suffix(suffix), tmp_path / f"text{suffix}")
    return tmp_path / "run"


def go_on(workdir, **changes):
    return main(["train", f"--workdir={workdir}", *options(changes)])


def test_pairs_that_were_changed_are_refused_unless_asked_for_and_asked_for_once(stopped, capsys):
    target = stopped.parent / "text.fr"
    fingerprint = from_workdir(stopped).make_task(stopped).training_fingerprint()
    assert saved_progress(stopped, 3).data == fingerprint
    target.write_text(target.read_text().replace("jours", "heures"))
    assert go_on(stopped, **{"train.steps": 4}) == 2
    errors = capsys.readouterr().err
    assert f"the training data (data.train) has changed since step 3 of {stopped}" in errors
    assert "--config.train.changed_data=true" in errors and "Traceback" not in errors
    assert go_on(stopped, **{"train.steps": 4, "train.changed_data": "true"}) == 0
    assert "changed_data" not in json.loads((stopped / "config.json").read_text())["train"]
    assert saved_progress(stopped, 4).data not in ("", fingerprint)
    target.write_text(target.read_text().replace("heures", "semaines"))
    assert go_on(stopped, **{"train.steps": 5}) == 2


def saved_progress(workdir, step) -> Progress:
    return Progress(**json.loads((workdir / f"checkpoints/{step}/progress/metadata").read_text()))


@pytest.mark.parametrize(("kind", "file"), [("gpt", "text.txt"), ("tuned", "cola/train.tsv")])
def test_text_and_examples_are_known_by_their_content_wherever_they_lie(kind, file, root, tuned, tmp_path, capsys):  # noqa: F811
    run, data = tmp_path / "run", (tmp_path / file).parent
    shutil.copytree(root / kind, run)
    shutil.copytree((root / file).parent, data, dirs_exist_ok=True, ignore=shutil.ignore_patterns("gpt", "tuned"))
    moved = [("data.path", str(data))]
    fingerprint = from_workdir(run, moved).make_task(run).training_fingerprint()
    assert saved_progress(run, 1).data == fingerprint
    text = (tmp_path / file).read_text()
    (tmp_path / file).write_text(text.replace("in 7 days", "in 8 days"))
    longer = {"train.steps": 2} | ({"train.epochs": 0.67} if kind == "tuned" else {})
    assert go_on(run, **dict(moved), **longer) == 2
    assert "the training data (data.train) has changed since step 1" in capsys.readouterr().err
