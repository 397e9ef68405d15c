"""Listeners that receive the reports of a run: a terminal, `metrics.jsonl`, TensorBoard, Weights & Biases, or your own.

Other programs read `metrics.jsonl`: one JSON object per line, `{"step": 100, "train/loss": 3.2, ...}`.
"""

import importlib.util
import io
import json
import math
import sys
import time
import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar
from tqdm import tqdm

from zoo.errors import UserError
from zoo.storage import AnyPath, scratch, write_whole

SHOWN_SAMPLES = 3
ON_THE_BAR = ("train/loss", "train/tokens_per_second")
Sample = tuple[str, str, str]  # source, reference, output


@dataclass(frozen=True)
class Span:
    """The steps ahead of a run: from the step after `start` to `steps`."""

    start: int
    steps: int


class Listener:
    """Receives the reports of a run. Override what you need, and pass an instance: `zoo.train(...,
    listeners=[Mine()])`."""

    def begin(self, span: Span) -> None:
        """The run starts or resumes. Steps after `span.start` that were reported before will be repeated."""

    def report(self, step: int, values: dict[str, float]) -> None:
        """Numbers at a step, such as `{"train/loss": 3.2, "valid/bleu": 20.1}`."""

    def samples(self, step: int, samples: list[Sample]) -> None:
        """The model's outputs for a few examples."""

    def message(self, text: str) -> None:
        """Any other message to a person."""

    def flush(self) -> None:
        """A checkpoint is about to be saved: write all reports so far to files."""

    def close(self) -> None:
        """The run has ended."""


class Terminal(Listener):
    """Plain lines; above a progress bar on a terminal, above a widget in a notebook with `ipywidgets`."""

    def __init__(self, stream: io.TextIOBase | None = None):
        self._stream = sys.stderr if stream is None else stream
        self._bar: tqdm | None = None

    def begin(self, span: Span) -> None:
        self._span, self._began = span, time.monotonic()
        if (bar := _progress_bar(self._stream)) is not None:
            self._bar = bar(total=span.steps, initial=span.start, file=self._stream, unit="step", dynamic_ncols=True)

    def report(self, step: int, values: dict[str, float]) -> None:
        if self._bar is not None:
            if shown := readable({name: values[name] for name in ON_THE_BAR if name in values}):
                self._bar.set_postfix_str("  ".join(shown), refresh=False)
            self._bar.update(step - self._bar.n)
        self.message("  ".join([f"step {step}/{self._span.steps}", *readable(values), *self._remaining(step)]))

    def samples(self, step: int, samples: list[Sample]) -> None:
        for sample in samples[:SHOWN_SAMPLES]:
            self.message("\n".join(f"    {line}" for line in _as_text(sample).splitlines()) + "\n")

    def message(self, text: str) -> None:
        # Samples come from data and models: an escape sequence among them must not reach a terminal.
        text = "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _remaining(self, step: int) -> list[str]:
        """The time until the last step at the average pace since the start, once it is known."""
        start, steps = self._span.start, self._span.steps
        if not start < step < steps:
            return []
        pace = (time.monotonic() - self._began) / (step - start)
        return [f"eta {_duration(pace * (steps - step))}"]


def _progress_bar(stream: io.TextIOBase) -> type[tqdm] | None:
    if stream.isatty():
        return tqdm
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if getattr(shell, "kernel", None) is not None and importlib.util.find_spec("ipywidgets"):
        from tqdm.notebook import tqdm as widget

        return widget
    return None


class Metrics(Listener):
    """Writes `metrics.jsonl`, a line per report. A value that is not finite becomes `null`, since JSON has no NaN."""

    def __init__(self, path: Path):
        self._path = path

    def begin(self, span: Span) -> None:
        _forget_after(self._path, span.start)
        # Without a buffer: it would be written again, and fail again, when a full disk ends the run.
        self._file = self._path.open("ab", buffering=0)

    def report(self, step: int, values: dict[str, float]) -> None:
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write((json.dumps({"step": step, **finite}, allow_nan=False) + "\n").encode())

    def close(self) -> None:
        self._file.close()


class Samples(Listener):
    """Writes `samples/<step>.txt` with every sample of an evaluation."""

    def __init__(self, directory: AnyPath):
        self._directory = directory

    def samples(self, step: int, samples: list[Sample]) -> None:
        write_whole(self._directory / f"{step}.txt", "\n".join(map(_as_text, samples)).encode())


def _as_text(sample: Sample) -> str:
    source, reference, output = sample
    return f"source     {source}\nreference  {reference}\noutput     {output}\n"


class TensorBoard(Listener):
    """Writes a file for TensorBoard, without values that are not finite. tensorboardX's own writer uses a thread; once
    a full disk has ended that thread, the run would wait for it for ever."""

    FLUSHED_EVERY = 30.0  # seconds

    def __init__(self, directory: Path):
        self._directory = directory

    def begin(self, span: Span) -> None:
        self._directory.mkdir(exist_ok=True)
        # Without the suffix, the files of two starts within one second would have the same name.
        self._writer = EventsWriter(str(self._directory / "events"), f".{span.start}")
        self._flushed = 0.0
        # Hides what an interrupted run wrote after this step.
        self._write(Event(step=span.start + 1, session_log=SessionLog(status=SessionLog.START)))

    def report(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            if math.isfinite(value):
                self._write(Event(step=step, summary=scalar(name, value)))

    def _write(self, event: Event) -> None:
        event.wall_time = datetime.now().timestamp()
        self._writer.write_event(event)
        if event.wall_time - self._flushed > self.FLUSHED_EVERY:
            self.flush()

    def flush(self) -> None:
        self._writer.flush()
        self._flushed = datetime.now().timestamp()

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases(Listener):
    """Logs to Weights & Biases in `project`; resuming the working directory resumes that run. `config` is shown beside
    it.

    Raises `UserError` if wandb is not installed.
    """

    def __init__(self, project: str, workdir: AnyPath, config: dict[str, Any]):
        try:
            import wandb
        except ImportError as error:
            raise UserError(f"wandb={project!r} needs Weights & Biases: pip install 'seqzoo[wandb]'") from error
        identity = workdir / "wandb_id"
        if not identity.exists():
            write_whole(identity, uuid.uuid4().hex.encode())
        run, local = identity.read_text(encoding="utf-8"), scratch(workdir, "")
        kept = {"id": run, "resume": "allow", "name": workdir.name, "dir": str(local)}
        self._run = wandb.init(project=project, config=config, **kept)

    def report(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


# How a line shows a value: the last part of its name, the label, and the format. Others are shown as `name value`. A
# share is a number from 0 to 1.
READABLE = {
    "loss": "loss {:.4g}",
    "perplexity": "ppl {:.4g}",
    "accuracy": "acc {:.3f}",
    "tokens_per_second": "{:,.0f} tok/s",
    "mfu": "mfu {:.2f}",
    "bleu": "BLEU {:.2f}",
    "bleu_lowercase": "lower-cased {:.2f}",
    "chrf": "chrF {:.2f}",
    "exact_match": "exact {:.3f}",
    "learning_rate": "lr {:.2e}",
    "gradient_norm": "|g| {:.3g}",
    "data_wait": "wait {:.1%}",
}


def readable(values: dict[str, float]) -> list[str]:
    """The values as words of a line, by split, known ones first; a split other than "train" is named once."""
    order = list(READABLE)

    def rank(name: str) -> tuple[bool, str, int]:
        split, _, last = name.rpartition("/")
        return split not in ("", "train"), split, order.index(last) if last in order else len(order)

    words, named = [], {"", "train"}
    for name in sorted(values, key=rank):
        split, _, last = name.rpartition("/")
        text = READABLE.get(last, last + " {:.4g}").format(values[name])
        words.append(text if split in named else f"{split}: {text}")
        named.add(split)
    return words


def _duration(seconds: float) -> str:
    """The two largest units: 45s, 2m10s, 3h05m, 2d04h."""
    seconds = round(seconds)
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if seconds >= size:
            return f"{seconds // size}{unit}{seconds % size // part:02d}{smaller}"
    return f"{seconds}s"


def _forget_after(path: Path, start: int) -> None:
    """Keep the whole lines of `path` up to step `start`; a kill leaves either the old file or the new one."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    kept = [line for line in lines if _is_record_until(line, start)]
    temporary = path.with_suffix(".jsonl.tmp")
    temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    temporary.replace(path)


def _is_record_until(line: str, start: int) -> bool:
    """Whether `line` is a whole record of a step up to `start`; a line that a kill cut short is not JSON.

    The average of checkpoints is made after the last step, so its record will be repeated too.
    """
    try:
        record = json.loads(line)
        made_after = any(name.startswith("average/") for name in record)
        return record["step"] <= start - made_after
    except (json.JSONDecodeError, TypeError, KeyError):
        return False
