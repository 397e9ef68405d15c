"""Reports on the predictions of a classifier: confidence intervals, baselines, scores by class, confusion."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num

from zoo.data.specials import NOTHING
from zoo.tasks import metrics

RESAMPLES = 1000
LEVEL = 0.95
Numbers = Num[np.ndarray, "_"]


@dataclass(frozen=True)
class Predictions:
    """Predictions for all examples, in the data's order: the number of a label, or a value, and the probabilities of
    all labels (`None` for values). `true` is `NOTHING` or NaN for an example without a label."""

    labels: tuple[str, ...]
    predicted: Numbers
    true: Numbers
    probabilities: Float[np.ndarray, "N C"] | None = None

    @property
    def given(self) -> np.ndarray:
        """Which examples have a label."""
        return ~np.isnan(self.true) & (self.true != NOTHING)

    def said(self) -> list[str]:
        """The predictions as text."""
        return [f"{value:.3f}" if self.probabilities is None else self.labels[value] for value in self.predicted]

    def each(self) -> list["Classified"]:
        """The predictions one by one."""
        if self.probabilities is None:
            return [Classified(said, value=float(v)) for said, v in zip(self.said(), self.predicted, strict=True)]
        rows = (dict(zip(self.labels, map(float, row), strict=True)) for row in self.probabilities)
        return [Classified(said, row) for said, row in zip(self.said(), rows, strict=True)]


@dataclass(frozen=True)
class Classified:
    """The prediction for one example: its `label`, and the probability of every label; or, in a regression, its
    `value`, which is then the label too."""

    label: str
    probabilities: dict[str, float] = field(default_factory=dict)
    value: float | None = None


def report(predictions: Predictions, scores: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """What is reported beside the `scores` of labelled examples: `intervals`, `baselines` and, for classes, `classes`
    and `confusion`. Nothing if no example has a label."""
    given = predictions.given
    predicted, true = predictions.predicted[given], predictions.true[given]
    if not len(true):
        return {}
    count = len(predictions.labels)
    result: dict[str, Any] = {
        "intervals": {name: bootstrap(metrics.LABEL_SCORES[name], predicted, true, seed) for name in scores},
        "baselines": {name: baselines(name, true, count) for name in scores},
    }
    if count:
        table = confusion(predicted, true, count)
        result |= {"labels": list(predictions.labels), "confusion": table.tolist()}
        result["classes"] = dict(zip(predictions.labels, per_class(table), strict=True))
    return result


def rows(predictions: Predictions, glue: bool = False) -> str:
    """The predictions as a table with tabs: `index` (from 0, in the order of the data), `prediction`, the true `label`
    (empty if there is none) and the `probability` of the prediction (empty for values). With `glue`, only index and
    prediction, as GLUE's server takes them, and STS-B's values clipped to 0 to 5.
    """
    each = predictions.each()
    if glue:
        said = [c.label if c.value is None else f"{min(max(c.value, 0.0), 5.0):.3f}" for c in each]
        return "index\tprediction\n" + "".join(f"{index}\t{label}\n" for index, label in enumerate(said))
    lines = ["index\tprediction\tlabel\tprobability\n"]
    for index, (c, true, given) in enumerate(zip(each, predictions.true, predictions.given, strict=True)):
        label = "" if not given else f"{true:g}" if c.value is not None else predictions.labels[true]
        probability = f"{c.probabilities[c.label]:.4f}" if c.value is None else ""
        lines.append(f"{index}\t{c.label}\t{label}\t{probability}\n")
    return "".join(lines)


def bootstrap(
    score: Callable[[Numbers, Numbers], float], predicted: Numbers, true: Numbers, seed: int = 0, draws: int = RESAMPLES
) -> tuple[float, float]:
    """The interval of 95 % of the scores of bootstrap samples of the examples (Efron 1979, percentiles). It tells how
    much the score may differ on other examples like these, not between seeds of the training.
    """
    random = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        drawn = random.integers(len(true), size=len(true))
        found.append(score(predicted[drawn], true[drawn]))
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def baselines(name: str, true: Numbers, count: int) -> dict[str, float]:
    """The score `name` of always predicting the most frequent of `count` labels, or the mean value (`majority`), and
    the expected score of guessing each label equally often (`random`)."""
    if not count:
        return {"majority": 0.0, "random": 0.0}  # a constant, or a guess independent of the truth, has no correlation
    majority = np.full_like(true, np.bincount(true, minlength=count).argmax())
    share = float((true == 1).mean())
    guessing = {"accuracy": 1 / count, "f1": 2 * share / count / max(share + 1 / count, 1e-9)}
    return {"majority": metrics.LABEL_SCORES[name](majority, true), "random": guessing.get(name, 0.0)}


def confusion(predicted: Numbers, true: Numbers, count: int) -> Int[np.ndarray, "C C"]:
    """The number of examples of each true label (row) with each predicted label (column)."""
    table = np.zeros((count, count), int)
    np.add.at(table, (true, predicted), 1)
    return table


def per_class(table: Int[np.ndarray, "C C"]) -> list[dict[str, float]]:
    """Precision, recall and F1 of each label, 0 where undefined, and the number of `examples` that have it."""
    right, said, there = table.diagonal(), table.sum(axis=0), table.sum(axis=1)
    precision, recall = right / np.maximum(said, 1), right / np.maximum(there, 1)
    f1 = 2 * right / np.maximum(said + there, 1)
    return [
        {"precision": float(p), "recall": float(r), "f1": float(f), "examples": int(n)}
        for p, r, f, n in zip(precision, recall, f1, there, strict=True)
    ]


def text(scores: dict[str, Any]) -> list[str]:
    """The lines that show the `report` of an evaluation's result."""
    lines = []
    if "confusion" in scores:
        names = scores["labels"]
        width = max(8, *map(len, names))
        lines.append(f"  {'':{width}}  precision  recall      f1  examples   of these said {', '.join(names)}")
        for name, counts in zip(names, scores["confusion"], strict=True):
            c = scores["classes"][name]
            figures = f"{c['precision']:9.3f} {c['recall']:7.3f} {c['f1']:7.3f} {c['examples']:9,}"
            lines.append(f"  {name:{width}}  {figures}   {' '.join(f'{n:,}' for n in counts)}")
    return lines


def beside(scores: dict[str, Any], name: str) -> str:
    """The text after the score `name` of an evaluation's result."""
    if name not in scores.get("intervals", {}):
        return ""
    (low, high), base = scores["intervals"][name], scores["baselines"][name]
    return f"  [{low:.4f}, {high:.4f}]  majority {base['majority']:.4f}  random {base['random']:.4f}"
