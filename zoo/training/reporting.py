"""What a training run says: a line to read, a file to keep, a picture to watch.

`metrics.jsonl` is the record that other programs read: one JSON object a line, `{"step": 100, "train/loss": 3.2, ...}`.
"""

import io
import json
import logging
import math
import os
import sys
import time
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any, SupportsFloat

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar
from tqdm import tqdm

from zoo.errors import UserError
from zoo.storage import AnyPath, Growing, located, scratch, write_whole

log = logging.getLogger("zoo")
_SHOWN_SAMPLES = 3
_ON_THE_BAR = ("train/loss", "train/tokens_per_second")

# How a value stands on a line: the last part of its name, what the reader sees, how it is written. Others stand as
# `name value`. A share is a number from 0 to 1.
_READABLE = {
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


class Reporter:
    """The reports of one run from `start` to `steps`: `metrics.jsonl`, TensorBoard, W&B if asked, and the log.

    On a terminal the log lines stand above a progress bar; elsewhere they are plain lines without control characters.
    A value that is not finite is `null` in `metrics.jsonl` (JSON has no NaN), absent from TensorBoard, and stands as it
    is in the log.
    What an interrupted run reported after step `start` is forgotten, for it is about to happen again.

    `wandb` is the name of a Weights & Biases project; `config` is shown beside the curves there. A reporter that is not
    `primary` (any process but the first) says and writes nothing.

    In an object store, which cannot append, `metrics.jsonl` and TensorBoard's files are as they were at the last
    `publish`.

    Raises UserError when `wandb` is asked for but not installed.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        steps: int,
        start: int = 0,
        wandb: str | None = None,
        config: dict[str, Any] | None = None,
        stream: io.TextIOBase | None = None,
        primary: bool = True,
    ):
        self._steps, self._start, self._primary = steps, start, primary
        self._workdir = located(workdir)
        self._growing = Growing(self._workdir)
        self._began = time.monotonic()
        if not primary:
            return
        self._stream = sys.stderr if stream is None else stream
        self._wandb = _weights_and_biases(wandb, self._workdir, config or {}) if wandb else None
        path = self._growing.fetch("metrics.jsonl")
        _forget_after(path, start)
        # Without a buffer, which would be written once more, and fail once more, when a full disk ends the run.
        self._metrics = path.open("ab", buffering=0)
        self._tensorboard = _Events(self._growing.local / "tensorboard", start)
        self._bar = None
        if self._stream.isatty():
            self._bar = tqdm(total=steps, initial=start, file=self._stream, unit="step", dynamic_ncols=True)

    @property
    def local(self) -> Path:
        """Where its growing files are while it is open: the working directory, or what is published there."""
        return self._growing.local

    def report(self, step: int, values: dict[str, SupportsFloat]) -> None:
        """Record `values`, such as `{"train/loss": 3.2, "train/tokens_per_second": 12345.0}`, at `step`."""
        values = {name: float(value) for name, value in values.items()}
        line = "  ".join([f"step {step}/{self._steps}", *_readable(values), *self._remaining(step)])
        if not self._primary:
            log.debug("%s", line)
            return
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._metrics.write((json.dumps({"step": step, **finite}, allow_nan=False) + "\n").encode())
        self._tensorboard.add(step, {name: value for name, value in finite.items() if value is not None})
        if self._wandb is not None:
            self._wandb.log(values, step=step)
        if self._bar is not None:
            if shown := _readable({name: values[name] for name in _ON_THE_BAR if name in values}):
                self._bar.set_postfix_str("  ".join(shown), refresh=False)
            self._bar.update(step - self._bar.n)
        self.message(line)

    def samples(self, step: int, samples: list[tuple[str, str, str]]) -> None:
        """Write (source, reference, output) triples to `samples/<step>.txt`, and the first three to the log."""
        if not self._primary:
            return
        texts = [
            f"source     {source}\nreference  {reference}\noutput     {output}\n"
            for source, reference, output in samples
        ]
        write_whole(self._workdir / "samples" / f"{step}.txt", "\n".join(texts).encode())
        for text in texts[:_SHOWN_SAMPLES]:
            self.message("\n".join(f"    {line}" for line in text.splitlines()) + "\n")

    def message(self, text: str) -> None:
        """A line of the log, above the progress bar where there is one."""
        if not self._primary:
            return
        # Samples come from data and models: an escape sequence among them must not reach a terminal.
        text = "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)
        log.debug("%s", text)
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def publish(self) -> None:
        """Bring what was reported so far to an object store; before a checkpoint, so that a run that goes on from it
        finds all its reports."""
        if self._primary:
            self._tensorboard.flush()
        self._growing.publish()

    def close(self) -> None:
        """Finish every file; the bar stays where it came to."""
        if not self._primary:
            self._growing.close()
            return
        if self._bar is not None:
            self._bar.close()
        self._metrics.close()
        self._tensorboard.close()
        self._growing.close()
        if self._wandb is not None:
            self._wandb.finish()

    def _remaining(self, step: int) -> list[str]:
        """The time to the last step at the average pace since `start`, once there is a pace."""
        if not self._start < step < self._steps:
            return []
        pace = (time.monotonic() - self._began) / (step - self._start)
        return [f"eta {_duration(pace * (self._steps - step))}"]


class _Events:
    """A file of TensorBoard. tensorboardX would write it in a thread, and once a full disk has ended that thread, the
    run waits for it for ever."""

    FLUSHED_EVERY = 30.0  # seconds

    def __init__(self, directory: Path, start: int):
        directory.mkdir(exist_ok=True)
        # The suffix keeps apart the files of two starts within one second, which would share a name.
        self._writer = EventsWriter(str(directory / "events"), f".{start}")
        self._flushed = 0.0
        # What an interrupted run has written after `start` is hidden.
        self._write(Event(step=start + 1, session_log=SessionLog(status=SessionLog.START)))

    def add(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
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


def _readable(values: dict[str, float]) -> list[str]:
    """The values as words of a line, split by split, known ones first; a split other than "train" is named once."""
    order = list(_READABLE)

    def rank(name: str) -> tuple[bool, str, int]:
        split, _, last = name.rpartition("/")
        return split not in ("", "train"), split, order.index(last) if last in order else len(order)

    words, named = [], {"", "train"}
    for name in sorted(values, key=rank):
        split, _, last = name.rpartition("/")
        text = _READABLE.get(last, last + " {:.4g}").format(values[name])
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
    """Whether `line` is a whole record of a step up to `start`; what a kill cut short is not JSON any more."""
    try:
        return json.loads(line)["step"] <= start
    except (json.JSONDecodeError, TypeError, KeyError):
        return False


def _weights_and_biases(project: str, workdir: AnyPath, config: dict[str, Any]) -> Any:
    """A W&B run that is continued when the working directory is."""
    try:
        import wandb
    except ImportError as error:
        raise UserError(f"wandb={project!r} needs Weights & Biases: pip install 'seqzoo[wandb]'") from error
    identity = workdir / "wandb_id"
    if not identity.exists():
        write_whole(identity, uuid.uuid4().hex.encode())
    run, local = identity.read_text(encoding="utf-8"), scratch(workdir, "")
    return wandb.init(project=project, id=run, resume="allow", name=workdir.name, dir=str(local), config=config)
