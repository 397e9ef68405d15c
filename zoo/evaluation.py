"""The scores of a working directory on a split, or on other data."""

from typing import Any

from zoo.workdirs import Workdir


def score(workdir: Workdir, split: str = "test", location: str = "") -> dict[str, Any]:
    """The values of the task's evaluation on `split`, or on the data at `location`, and what they were measured on.

    Raises `UserError` where there is no such data or no such checkpoint.
    """
    evaluation = workdir.task.evaluate(workdir.model, workdir.params, split, location)
    measured = {
        "split": split,
        "data": location or getattr(workdir.experiment.data, split),
        "checkpoint": workdir.checkpoint,
        "step": workdir.step,
    }
    return measured | evaluation.measured | evaluation.values


def table(scores: dict[str, Any]) -> str:
    """`score`'s result to read: what was measured in the first line, then a value a line; a BLEU with its signature."""
    direction = scores.get("direction", "").replace("-", "→", 1)
    counts = [f"{scores[what]:,} {what}" for what in ("sentences", "documents", "tokens") if what in scores]
    what = [f"{scores['split']} ({scores['data']})", *filter(None, [direction]), *counts, f"step {scores['step']}"]
    lines = [", ".join(what)]
    for name, value in scores.items():
        if isinstance(value, float):
            signature = scores.get(f"{name}_signature")
            lines.append(f"  {name:15} {value:9.4f}" + (f"  {direction} {signature}" if signature else ""))
    return "\n".join(lines)
