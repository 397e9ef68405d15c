"""BLEU by the length of the sentence: translating lines of one to five phrases of the zoo's own task.

The phrases are dates, times, money and measures in two languages (`zoo.data.phrases`); a line joins some of them with
semicolons. A longer line is thus harder only because it is longer.
"""

import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import zoo
from benchmarks.claims.generations import NAMES, sized
from benchmarks.claims.points import Points
from benchmarks.claims.words import millions, short, table
from zoo.data.phrases.pairs import Phrases
from zoo.evaluation import by_length
from zoo.models import registry
from zoo.plotting.lengths import draw_by_length
from zoo.storage import write_whole

TITLE = "Long range: translation by length"
CLAIM = (
    "We conjecture that the use of a fixed-length vector is a bottleneck in improving the performance of this basic "
    "encoder-decoder architecture. (Bahdanau et al. 2015, abstract)"
)
SETTINGS: dict[str, Any] = {
    "source": "en",
    "target": "fr",
    "phrases": 5,
    "lines": {"train": 40_000, "valid": 200, "test": 400},
    "vocabulary": 500,
    "parameters": 1_000_000,
    "updates": 1000,
    "batch_tokens": 2048,
    "seed": 0,
    "max_length": 160,
    "steps": [32, 64, 96],
    "peaks": {"cho": 3e-3, "rnnsearch": 3e-3, "transformer": 2e-3},
}


def measure(points: Points) -> None:
    """BLEU of each model on the test lines, by bins of their length in words."""
    for name in NAMES:
        points.of(name, lambda n=name: _point(points.settings, n, points.work))


def _write_lines(settings: dict[str, Any], folder: Path) -> None:
    for split, count in settings["lines"].items():
        dice = random.Random(settings["seed"])
        phrases = iter(Phrases(settings["source"], settings["target"], split, settings["seed"]))
        lines = [[next(phrases) for _ in range(dice.randint(1, settings["phrases"]))] for _ in range(count)]
        for side, language in enumerate((settings["source"], settings["target"])):
            text = "".join("; ".join(pair[side] for pair in line) + "\n" for line in lines)
            write_whole(folder / f"{split}.{language}", text.encode())


def _point(settings: dict[str, Any], name: str, folder: Path) -> dict[str, Any]:
    _write_lines(settings, folder / "text")
    begun = time.perf_counter()
    own = {f"model.{key}": value for key, value in sized(name, settings["vocabulary"], settings["parameters"]).items()}
    changes = {
        "data.path": str(folder / "text"),
        "data.train": "train",
        "data.valid": "valid",
        "data.test": "test",
        **{f"data.{key}": settings[key] for key in ("vocabulary", "batch_tokens", "max_length", "steps")},
        "optimizer.peak": settings["peaks"][name],
        "train.steps": settings["updates"],
        "seed": settings["seed"],
        "train.select": "loss",
        "train.evaluate_every": settings["updates"],
        "train.checkpoint_every": 100,
        "decoding.max_length": settings["max_length"],
    }
    trained = zoo.train(f"phrases.py:{settings['source']}-{settings['target']},{name}", folder / name, **own, **changes)
    seconds = time.perf_counter() - begun
    scores = by_length([trained])
    return {
        "parameters": registry.parameter_count(trained.model.config),
        "seconds": seconds,
        "bins": scores["bins"],
        "bleu": scores["bleu"][str(trained.path)],
        "signature": scores["bleu_signature"],
    }


def tell(points: Points) -> Iterator[str]:
    """What was done, the table, and what came out."""
    s, values = points.settings, points.values
    one = next(iter(values.values()))
    yield f"Lines of 1 to {s['phrases']} phrases (dates, times, money, measures), {s['source']} to {s['target']}. Each"
    yield f"model has about {millions(s['parameters'])} parameters and makes {s['updates']:,} updates on the same text,"
    yield "one seed. BLEU of the test lines by their length in words, greedy:\n"
    header = ["words", "lines", *map(short, values)]
    rows = [
        [f"{b['first']}–{b['last']}", str(b["sentences"]), *(f"{run['bleu'][at]:.1f}" for run in values.values())]
        for at, b in enumerate(one["bins"])
    ]
    yield from table(header, rows)
    yield f"\n`{one['signature']}`\n"
    for name, run in values.items():
        yield (
            f"- {short(name)} ({millions(run['parameters'])}) keeps "
            f"{_kept(run['bleu']):.0f} % of the BLEU of its shortest lines on the longest."
        )
    yield "\nReal sentences, with models of unequal sizes and more time, are in [Results](results.md#the-ladder)."


def _kept(bleu: Sequence[float]) -> float:
    """The last in hundredths of the first."""
    return 100 * bleu[-1] / max(bleu[0], 1e-9)


def draw(points: Points, path: Path) -> None:
    """BLEU over the length of the line."""
    one = next(iter(points.values.values()))
    bins = [(b["first"], b["last"], b["sentences"]) for b in one["bins"]]
    lines = {NAMES[name]: run["bleu"] for name, run in points.values.items()}
    title = f"phrases, {points.settings['source']}→{points.settings['target']}"
    draw_by_length(bins, lines, title, f"BLEU {one['signature']}", path)
