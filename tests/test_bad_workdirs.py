"""What can be wrong with a working directory: one line names it and the remedy; nothing is lost or altered."""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from spoiling import files_under, truncate

from zoo.cli import main
from zoo.data import tokenizers
from zoo.training import listeners

pytestmark = pytest.mark.usefixtures("log_as_before")


def test_a_truncated_checkpoint_is_passed_over_with_a_warning(copy, capfd):
    truncate(copy / "checkpoints" / "3")
    assert main(["eval", str(copy), "--checkpoint=latest", "--split=valid", "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["step"] == 2
    warnings = [line for line in err.splitlines() if line.startswith("zoo: warning: ")]
    assert len(warnings) == 1
    assert f"{copy / 'checkpoints' / '3'} is damaged" in warnings[0]


def test_training_continues_from_the_checkpoint_before_a_truncated_one_and_keeps_that(copy, capfd):
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
def test_a_spoilt_working_directory_is_reported_and_left_as_it_is(mistake, copy, name, command):
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


def test_a_missing_average_is_reported_with_the_command_that_makes_one(mistake, copy):
    shutil.rmtree(copy / "average", ignore_errors=True)
    line = mistake("eval", copy, "--checkpoint=average")
    assert f"{copy} holds no average" in line and f"zoo average --last 5 {copy}" in line


def test_a_run_that_cannot_continue_keeps_its_config(mistake, copy):
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
def test_a_damaged_record_is_reported(mistake, copy, text):
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
