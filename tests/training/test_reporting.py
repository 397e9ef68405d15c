"""Laws of the reports: nothing twice, nothing lost, nothing but JSON, and lines that a person can read."""

import io
import json
import math
import sys
import types

import pytest
from tensorboardX.proto.event_pb2 import Event

from zoo.errors import UserError
from zoo.training.listeners import Listener, Terminal
from zoo.training.reporting import Reporter


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def records(workdir) -> list[dict]:
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    text = (workdir / "metrics.jsonl").read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def run(workdir, first: int, last: int, **options) -> str:
    stream = io.StringIO()
    reporter = Reporter(workdir, 10, start=first - 1, listeners=[Terminal(stream)], **options)
    for step in range(first, last + 1):
        reporter.report(step, {"train/loss": 10.0 - step})
    reporter.close()
    return stream.getvalue()


def scalars(workdir) -> dict[int, float]:
    """What TensorBoard shows: of each file in turn the steps, after those that its start purges."""
    shown = {}
    for path in sorted((workdir / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
            if event.HasField("session_log"):
                shown = {step: value for step, value in shown.items() if step < event.step}
            for value in event.summary.value:
                shown[event.step] = value.simple_value
    return shown


def test_every_report_is_one_line_of_json_at_once(tmp_path):
    reporter = Reporter(tmp_path, 10, listeners=[])
    reporter.report(3, {"train/loss": 2.5, "valid/bleu": 12})
    assert records(tmp_path) == [{"step": 3, "train/loss": 2.5, "valid/bleu": 12.0}]


def test_what_is_not_finite_is_null(tmp_path):
    stream = io.StringIO()
    reporter = Reporter(tmp_path, 10, listeners=[Terminal(stream)])
    reporter.report(1, {"train/loss": math.nan, "train/gradient_norm": math.inf})
    assert records(tmp_path) == [{"step": 1, "train/loss": None, "train/gradient_norm": None}]
    assert stream.getvalue() == "step 1/10  loss nan  |g| inf  " + stream.getvalue().split("  ")[-1]


@pytest.mark.parametrize("cut", [0, 1, 9])
def test_a_run_killed_after_its_checkpoint_reports_every_step_once(tmp_path, cut):
    run(tmp_path, 1, 7)
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[: -cut or None])
    run(tmp_path, 5, 6)
    assert records(tmp_path) == [{"step": step, "train/loss": 10.0 - step} for step in range(1, 7)]
    assert scalars(tmp_path) == {step: 10.0 - step for step in range(1, 7)}
    assert not list(tmp_path.glob("*.tmp"))


def test_a_half_written_line_within_the_kept_steps_is_dropped(tmp_path):
    run(tmp_path, 1, 4)
    with (tmp_path / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"step": 5, "train/lo')
    run(tmp_path, 6, 6)
    assert [record["step"] for record in records(tmp_path)] == [1, 2, 3, 4, 6]


def test_a_line_shows_the_values_that_are_there(tmp_path):
    stream = io.StringIO()
    reporter = Reporter(tmp_path, 2000, listeners=[Terminal(stream)])
    values = {
        "loss": 3.21,
        "tokens_per_second": 12345.0,
        "learning_rate": 1.2e-3,
        "data_wait": 0.001,
        "perplexity": 24.8,
    }
    reporter.report(100, {f"train/{name}": value for name, value in values.items()})
    reporter.report(2000, {"valid/loss": 3.5, "valid/bleu": 20.25})
    first, last = stream.getvalue().splitlines()
    assert first.startswith("step 100/2000  loss 3.21  ppl 24.8  12,345 tok/s  lr 1.20e-03  wait 0.1%  eta ")
    assert last == "step 2000/2000  valid: loss 3.5  BLEU 20.25"


def test_the_time_that_remains_follows_from_the_pace_since_the_start(tmp_path, monkeypatch):
    clock = iter([1000.0, 1013.0, 1026.0])
    monkeypatch.setattr("zoo.training.listeners.time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    stream = io.StringIO()
    reporter = Reporter(tmp_path, 200, start=60, listeners=[Terminal(stream)])
    reporter.report(70, {})  # 13 s for 10 steps, 130 to go
    reporter.report(80, {})
    assert [line.split("  ")[-1] for line in stream.getvalue().splitlines()] == ["eta 2m49s", "eta 2m36s"]


def test_elsewhere_than_on_a_terminal_lines_are_plain(tmp_path):
    text = run(tmp_path, 1, 10)
    assert len(text.splitlines()) == 10
    assert all(character.isprintable() or character == "\n" for character in text)


def test_a_terminal_has_a_bar_with_loss_and_pace_below_whole_lines(tmp_path):
    stream = Screen()
    reporter = Reporter(tmp_path, 10, start=4, listeners=[Terminal(stream)])
    reporter.message("saved")
    reporter.report(5, {"train/loss": 3.25, "train/tokens_per_second": 1234.0})
    reporter.report(5, {"valid/loss": 3.5})
    reporter.close()
    text = stream.getvalue()
    assert "\rsaved\n" in text.replace(" ", "") and "step 5/10  loss 3.25  1,234 tok/s  eta " in text
    assert "5/10" in text.splitlines()[-1] and "loss 3.25  1,234 tok/s]" in text.splitlines()[-1]


def test_samples_are_kept_in_full_and_three_are_shown(tmp_path):
    stream = io.StringIO()
    reporter = Reporter(tmp_path, 10, listeners=[Terminal(stream)])
    reporter.samples(5, [(f"ein {n}", f"a {n}", f"\x1b[2Jan {n}") for n in range(5)])
    written = (tmp_path / "samples" / "5.txt").read_text()
    assert all(f"ein {n}" in written and f"an {n}" in written for n in range(5))
    assert "a 2" in stream.getvalue() and "a 3" not in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_only_the_first_process_speaks(tmp_path, capsys):
    reporter = Reporter(tmp_path, 10, primary=False)
    reporter.report(1, {"train/loss": 1.0})
    reporter.samples(1, [("a", "b", "c")])
    reporter.message("hello")
    reporter.close()
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr() == ("", "")


def test_a_listener_of_ones_own_hears_everything(tmp_path):
    heard = []

    class Ears(Listener):
        def begin(self, span):
            heard.append(span.steps)

        def report(self, step, values):
            heard.append((step, values))

        def message(self, text):
            heard.append(text)

        def close(self):
            heard.append("end")

    reporter = Reporter(tmp_path, 10, listeners=[Ears()])
    reporter.report(1, {"train/loss": 1})
    reporter.samples(1, [("a", "b", "c")])
    reporter.message("hello")
    reporter.close()
    assert heard == [10, (1, {"train/loss": 1.0}), "hello", "end"]
    assert len(records(tmp_path)) == 1


def test_weights_and_biases_is_optional_and_continues_its_run(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install 'seqzoo\[wandb\]'"):
        Reporter(tmp_path, 10, wandb="zoo")

    logged, runs = [], []
    board = types.SimpleNamespace(log=lambda values, step: logged.append((step, values)), finish=lambda: None)
    fake = types.SimpleNamespace(init=lambda **options: runs.append(options["id"]) or board)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    run(tmp_path, 1, 1, wandb="zoo")
    run(tmp_path, 2, 2, wandb="zoo")
    assert logged == [(1, {"train/loss": 9.0}), (2, {"train/loss": 8.0})]
    assert len(runs) == 2 and len(set(runs)) == 1
