"""The reports of a training run: files to keep, and listeners such as the terminal."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, SupportsFloat

from zoo.storage import Growing, located
from zoo.training.listeners import (
    Listener,
    Metrics,
    Sample,
    Samples,
    Span,
    TensorBoard,
    Terminal,
    WeightsAndBiases,
    readable,
)

log = logging.getLogger("zoo")


class Reporter:
    """The reports of one run from `start` to `steps`: to `metrics.jsonl`, `samples/`, TensorBoard, W&B if asked, and to
    `listeners`, a terminal by default.

    What an interrupted run reported after step `start` is forgotten, for it is about to happen again. `wandb` is the
    name of a Weights & Biases project; `config` is shown beside the curves there. A reporter that is not `primary` (any
    process but the first) tells only the log.

    In an object store, which cannot append, `metrics.jsonl` and TensorBoard's files are as they were at the last
    `publish`.

    Raises `UserError` when `wandb` is asked for but not installed.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        steps: int,
        start: int = 0,
        wandb: str | None = None,
        config: dict[str, Any] | None = None,
        listeners: Sequence[Listener] | None = None,
        primary: bool = True,
    ):
        workdir = located(workdir)
        self._growing = Growing(workdir)
        self._listeners: list[Listener] = []
        if not primary:
            return
        if wandb:
            self._listeners.append(WeightsAndBiases(wandb, workdir, config or {}))
        self._listeners += [
            Metrics(self._growing.fetch("metrics.jsonl")),
            TensorBoard(self._growing.local / "tensorboard"),
            Samples(workdir / "samples"),
            *((Terminal(),) if listeners is None else listeners),
        ]
        for listener in self._listeners:
            listener.begin(Span(start, steps))

    @property
    def local(self) -> Path:
        """Where its growing files are while it is open: the working directory, or what is published there."""
        return self._growing.local

    def report(self, step: int, values: dict[str, SupportsFloat]) -> None:
        """Record `values`, such as `{"train/loss": 3.2, "train/tokens_per_second": 12345.0}`, at `step`."""
        numbers = {name: float(value) for name, value in values.items()}
        log.debug("%s", "  ".join([f"step {step}", *readable(numbers)]))
        for listener in self._listeners:
            listener.report(step, numbers)

    def samples(self, step: int, samples: list[Sample]) -> None:
        """Sources with their references and the model's outputs."""
        for listener in self._listeners:
            listener.samples(step, samples)

    def message(self, text: str) -> None:
        """Anything else that a person should read."""
        if self._listeners:
            log.debug("%s", text)
        for listener in self._listeners:
            listener.message(text)

    def publish(self) -> None:
        """Copy the reports so far to an object store; called before a checkpoint, so that a run that resumes from it
        finds all its reports."""
        for listener in self._listeners:
            listener.flush()
        self._growing.publish()

    def close(self) -> None:
        """Finish every file; a progress bar stays where it is."""
        for listener in reversed(self._listeners):
            listener.close()
        self._growing.close()
