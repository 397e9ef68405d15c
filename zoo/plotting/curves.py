"""What a training run did, from its `metrics.jsonl`."""

import json
from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from zoo.errors import UserError

COLUMNS = 3
# Perplexity is the exponential of the loss, and the time waited for data is no property of the model.
LEFT_OUT = ("perplexity", "data_wait")

Curve = tuple[list[int], list[float]]


def read_curves(path: Path) -> dict[str, dict[str, Curve]]:
    """{"loss": {"train": (steps, values), "valid": ...}, ...}, in the order of the file.

    Values that were not finite are gaps, and the line that a kill cut short is passed over. Raises `UserError` when
    there is nothing to draw.
    """
    if not path.is_file():
        raise UserError(f"no {path}: it is written while a model is trained there")
    curves: dict[str, dict[str, Curve]] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
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


def draw_curves(path: Path, picture: str | Path, title: str) -> None:
    """Write a PNG with a panel for every value of `path`, training and validation together."""
    curves = {name: splits for name, splits in sorted(read_curves(path).items(), key=_rank) if name not in LEFT_OUT}
    rows = -(-len(curves) // COLUMNS)
    figure = Figure(figsize=(4 * COLUMNS, 2.8 * rows + 0.4), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, COLUMNS, squeeze=False).flat
    for axes, (name, splits) in zip(panels, curves.items(), strict=False):
        draw_panel(axes, dict(sorted(splits.items())), name)
    for axes in list(panels)[len(curves) :]:
        axes.set_axis_off()
    for axes in list(panels)[max(len(curves) - COLUMNS, 0) : len(curves)]:
        axes.set_xlabel("step")
    figure.suptitle(title, parse_math=False)
    figure.savefig(picture, format="png")


def draw_panel(axes: Axes, curves: Mapping[str, Curve], name: str) -> None:
    """The curves of the value called `name` onto `axes`, each with its key in the legend."""
    for label, (steps, values) in curves.items():
        axes.plot(steps, values, marker="o" if len(steps) < 30 else "", markersize=3, label=label)
    axes.set_title(name.replace("_", " "), fontsize="medium")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", frameon=False)


def _rank(item: tuple[str, dict[str, Curve]]) -> tuple[int, str]:
    first = ("loss", "accuracy", "bleu", "chrf", "exact_match")
    return first.index(item[0]) if item[0] in first else len(first), item[0]
