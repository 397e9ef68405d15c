"""Recalling a token k positions back: the model reads a row of k random symbols and then repeats it.

Each symbol of the target stands k + 1 positions after the one that decides it (BOS is between them), and nothing else
helps to predict it. All models read the source in its own order.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.claims import pictures
from benchmarks.claims.generations import NAMES, config
from benchmarks.claims.points import Points
from benchmarks.claims.words import millions, short, table
from zoo.data.batches.base import Seq2SeqBatch
from zoo.data.specials import BOS, EOS, PAD, SPECIALS
from zoo.models import registry
from zoo.tasks.losses import Sums, cross_entropy
from zoo.training.arrays import ArrayTraining
from zoo.training.optimizers import OptimizerConfig, optimizer

RECALLED = 0.9  # a distance counts as recalled from this accuracy on
TITLE = "Long range: recall"
CLAIM = (
    "One key factor affecting the ability to learn such [long-range] dependencies is the length of the paths forward "
    "and backward signals have to traverse in the network. (Vaswani et al. 2017, section 4)"
)
SETTINGS: dict[str, Any] = {
    "symbols": 32,
    "parameters": 500_000,
    "tokens": 1024,
    "updates": 900,
    "seed": 0,
    "dtype": "bfloat16",
    "distances": [4, 8, 16, 32, 64, 128, 256],
    "buckets": [16, 64, 256],
    "symbols_scored": 2048,
    "peaks": {"cho": 3e-3, "rnnsearch": 3e-3, "transformer": 1e-3},
}


def measure(points: Points) -> None:
    """The accuracy of each model at each distance."""
    for name in NAMES:
        points.of(name, lambda n=name: _point(points.settings, n))


def _point(settings: dict[str, Any], name: str) -> dict[str, Any]:
    vocabulary, updates = len(SPECIALS) + settings["symbols"], settings["updates"]
    model = registry.of(config(name, vocabulary, settings["parameters"], dtype=settings["dtype"]))
    rule = OptimizerConfig(
        peak=settings["peaks"][name], schedule="cosine", warmup=updates // 10, clip=1.0, beta2=0.99, epsilon=1e-8
    )
    training = ArrayTraining(model, optimizer(rule, model.config.width, updates), seed=settings["seed"])
    rng = np.random.default_rng(settings["seed"])
    begun, seen = time.perf_counter(), 0
    for update in range(updates):
        batch = _training_batch(settings, rng, update)
        seen += int((batch.labels != PAD).sum())
        training.update(batch)
    jax.block_until_ready(training.state)
    seconds = time.perf_counter() - begun

    @jax.jit
    def score(params, batch) -> Sums:  # of the symbols alone
        labels = jnp.where(batch.labels == EOS, PAD, batch.labels)
        return cross_entropy(model.apply({"params": params}, batch).readout, labels)

    fresh = np.random.default_rng(settings["seed"] + 1)
    accuracy = {}
    for distance in settings["distances"]:
        bucket = min(b for b in settings["buckets"] if b >= distance)
        sums, rows = Sums.zero(), settings["tokens"] // bucket
        for _ in range(max(1, settings["symbols_scored"] // (rows * distance))):
            sums += score(training.state.params, _batch(fresh, settings, np.full(rows, distance), bucket))
        accuracy[distance] = sums.means()["accuracy"]
    return {"parameters": training.parameters, "seconds": seconds, "tokens": seen, "accuracy": accuracy}


def _training_batch(settings: dict[str, Any], rng: np.random.Generator, update: int) -> Seq2SeqBatch:
    """Distances of one bucket after the other, so that all buckets come equally often."""
    buckets = settings["buckets"]
    longest = buckets[update % len(buckets)]
    shortest = max([1, *(b + 1 for b in buckets if b < longest)])
    rows = settings["tokens"] // longest
    return _batch(rng, settings, rng.integers(shortest, longest + 1, rows), longest)


def _batch(rng: np.random.Generator, settings: dict[str, Any], lengths: np.ndarray, longest: int) -> Seq2SeqBatch:
    """A row of so many random symbols for each of `lengths`, ended by EOS and padded to one more than `longest`."""
    symbols = rng.integers(len(SPECIALS), len(SPECIALS) + settings["symbols"], (len(lengths), longest + 1))
    position = np.arange(longest + 1)
    text = np.where(position < lengths[:, None], symbols, np.where(position == lengths[:, None], EOS, PAD))
    text = text.astype(np.int32)
    inputs = np.concatenate([np.full((len(text), 1), BOS, np.int32), text[:, :-1]], axis=1)
    return Seq2SeqBatch(text, inputs, text)


def tell(points: Points) -> Iterator[str]:
    """What was done, the table, and what came out."""
    s, values = points.settings, points.values
    yield f"Each model reads a row of k random symbols ({s['symbols']} kinds) and repeats it. Each symbol of the target"
    yield "stands k + 1 positions after the one that decides it, and nothing else helps. Each model has about"
    yield f"{millions(s['parameters'])} parameters and makes {s['updates']:,} updates on the same rows of 1 to"
    yield f"{max(s['distances'])} symbols. One seed; peak learning rates"
    yield ", ".join(f"{rate:g} ({short(name)})" for name, rate in s["peaks"].items()) + ". Accuracy on new rows, in %"
    yield f"(guessing: {100 / s['symbols']:.1f}):\n"
    distances = list(map(str, s["distances"]))
    rows = [[short(name), *(f"{100 * run['accuracy'][k]:.1f}" for k in distances)] for name, run in values.items()]
    yield from table(["k", *distances], rows)
    yield ""
    for name, run in values.items():
        reached = [k for k in distances if run["accuracy"][k] >= RECALLED]
        far = f"up to k = {reached[-1]}" if reached else "at none of these distances"
        yield f"- {short(name)} is right in {100 * RECALLED:.0f} % or more {far}."


def draw(points: Points, path: Path) -> None:
    """Accuracy over the distance."""
    lines = {
        NAMES[name]: (list(map(int, run["accuracy"])), [100 * a for a in run["accuracy"].values()])
        for name, run in points.values.items()
    }
    pictures.draw_recall(path, lines, 1 / points.settings["symbols"])
