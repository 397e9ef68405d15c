"""The learning curves of a training run, from its `metrics.jsonl`."""

import json
from collections.abc import Mapping, Sequence
from os import PathLike

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from zoo.errors import UserError
from zoo.plotting.pictures import name_entries, panel, picture
from zoo.storage import AnyPath

COLUMNS = 3
# Perplexity is just the exponential of the loss, and the time waited for data does not describe the model.
LEFT_OUT = ("perplexity", "data_wait")

Curve = tuple[list[int], list[float]]


def read_curves(path: AnyPath) -> dict[str, dict[str, Curve]]:
    """{"loss": {"train": (steps, values), "valid": ...}, ...}, in the order of the file.

    Values that were not finite are gaps, and a line that a kill cut short is skipped. Raises `UserError` if there is
    nothing to draw.
    """
    if not path.is_file():
        raise UserError(f"no {path}: it is written while a model is trained there")
    curves: dict[str, dict[str, Curve]] = {}
    for line in path.read_bytes().decode(errors="replace").splitlines():
        try:
            record = json.loads(line)
            record["step"]
        except (json.JSONDecodeError, TypeError, KeyError):
            continue
        for name in record.keys() - {"step"}:
            split, _, value = name.rpartition("/")
            steps, values = curves.setdefault(value, {}).setdefault(split, ([], []))
            steps.append(record["step"])
            values.append(float("nan") if record[name] is None else record[name])
    if not curves:
        raise UserError(f"{path} holds no report yet: train a few steps more, or lower train.log_every")
    return curves


def draw_curves(runs: Mapping[str, AnyPath], path: str | PathLike) -> None:
    """Write a picture with a panel for every value of the runs' `metrics.jsonl`, by the run's name. One run has a
    colour each for training and validation; several runs have a colour each, and dashes for everything but training."""
    read = {run: read_curves(metrics) for run, metrics in runs.items()}
    names = {name for curves in read.values() for name in curves} - set(LEFT_OUT)
    names = sorted(names, key=_rank)
    rows = -(-len(names) // COLUMNS)
    with picture(path, *read, size=(4 * COLUMNS, 2.8 * rows + 0.4)) as figure:
        panels = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
        for axes, name in zip(panels, names, strict=False):
            of_runs = [dict(sorted(curves.get(name, {}).items())) for curves in read.values()]
            if len(of_runs) == 1:
                draw_panel(axes, *of_runs, name)
            else:
                _compare(axes, of_runs, name)
        for axes in panels[len(names) :]:
            axes.set_axis_off()
        for axes in panels[max(len(names) - COLUMNS, 0) : len(names)]:
            axes.set_xlabel("step")
        if len(read) == 1:
            figure.suptitle(*read, parse_math=False)
        else:
            _name_runs(figure, list(read))


def draw_panel(axes: Axes, curves: Mapping[str, Curve], name: str) -> None:
    """Draw the curves of the value called `name` onto `axes`, each with its key in the legend."""
    for label, curve in curves.items():
        _draw(axes, curve, label=label)
    panel(axes, name.replace("_", " "))
    axes.legend()


def _compare(axes: Axes, runs: Sequence[Mapping[str, Curve]], name: str) -> None:
    """Draw a colour for each run, dashed except for training; `_name_runs` makes the legend."""
    for colour, curves in enumerate(runs):
        for split, curve in curves.items():
            _draw(axes, curve, color=f"C{colour}", linestyle="-" if split == "train" else "--")
    panel(axes, name.replace("_", " "))


def _draw(axes: Axes, curve: Curve, **style: str) -> None:
    steps, values = curve
    axes.plot(steps, values, marker="o" if len(steps) < 30 else "", markersize=3, **style)


def _name_runs(figure: Figure, runs: Sequence[str]) -> None:
    """One legend of colours and dashes for all panels."""
    lines = [Line2D([], [], color=f"C{colour}", label=str(colour)) for colour, _ in enumerate(runs)]
    lines += [Line2D([], [], color="0.4", linestyle=s, label=n) for n, s in (("train", "-"), ("valid", "--"))]
    legend = figure.legend(handles=lines, loc="outside upper center", ncols=min(len(lines), 6))
    name_entries(legend, [*runs, "train", "valid"])


def _rank(name: str) -> tuple[int, str]:
    first = ("loss", "accuracy", "bleu", "chrf", "exact_match")
    return first.index(name) if name in first else len(first), name
