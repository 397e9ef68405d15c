"""The labels of a task, and the number or the value of each example's own label."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Num

from zoo.data.examples.labelled import Example, Format
from zoo.data.specials import NOTHING
from zoo.errors import UserError, nearest
from zoo.storage import AnyPath, write_whole

FILE = "labels.json"
RARE = 0.01  # the share of the examples below which a class may be a misspelling


def classes(form: Format, examples: Sequence[Example]) -> list[str]:
    """The classes in the order of their numbers: those of the task's definition, or else all that occur in `examples`.
    A regression has none."""
    if form.regression or form.names:
        return list(form.names)
    return sorted({example.label for example in examples if example.label is not None})


def targets(form: Format, examples: Sequence[Example], known: Sequence[str]) -> Num[np.ndarray, "_"]:
    """The number of each example's label among the `known`, or its value; `NOTHING` or NaN for no label.

    Raises `UserError`, with file and line, for an unknown label, or one that is not a number.
    """
    if form.regression:
        return np.array([_value(example) for example in examples], np.float32)
    numbers: dict[str | None, int] = {None: NOTHING} | {label: i for i, label in enumerate(known)}
    for example in examples:
        if example.label not in numbers:
            raise UserError(
                f"{example.place}: the label {example.label!r} is not one of this run: {nearest(example.label, known)}"
            )
    return np.array([numbers[example.label] for example in examples], np.int32)


def _value(example: Example) -> float:
    if example.label is None:
        return math.nan
    try:
        value = float(example.label)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{example.place}: the label {example.label!r} is not a number, and this task predicts numbers")
    return value


def counted(examples: Iterable[Example]) -> str:
    """How many examples have each label, in words, the most frequent first."""
    counts = Counter("no label" if example.label is None else example.label for example in examples)
    return ", ".join(f"{label} {count:,}" for label, count in counts.most_common())


def rare(examples: Sequence[Example]) -> list[str]:
    """The labels of less than one example in a hundred, and of fewer than ten."""
    counts = Counter(example.label for example in examples if example.label is not None)
    return sorted(label for label, count in counts.items() if count < min(10, RARE * len(examples)))


def save(workdir: AnyPath, known: Sequence[str]) -> None:
    write_whole(workdir / FILE, (json.dumps(list(known), ensure_ascii=False) + "\n").encode())


def saved(workdir: AnyPath) -> list[str] | None:
    """The labels that the model in `workdir` was trained with, in the order of its outputs; None before training.

    Each checkpoint holds a copy. Raises `UserError` if it differs from the working directory's.
    """
    found = {}
    for directory in (workdir, *sorted((workdir / "best").glob("[0-9]*")), *_steps(workdir)):
        if (path := directory / FILE).is_file():
            found[path] = json.loads(path.read_text(encoding="utf-8"))
    if not found:
        return None
    (first, labels), *others = found.items()
    for path, other in others:
        if other != labels:
            raise UserError(
                f"{first} has {', '.join(labels)}, {path} (written with the parameters) {', '.join(other)}: copy "
                "the latter over the former"
            )
    return labels


def _steps(workdir: AnyPath) -> list[AnyPath]:
    steps = [path for path in (workdir / "checkpoints").glob("*") if path.name.isdecimal()]
    return sorted(steps, key=lambda path: int(path.name))[-1:]
