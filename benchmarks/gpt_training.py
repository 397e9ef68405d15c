"""The zoo's training of a GPT on one batch of random tokens, as a contestant of `benchmarks.in_turns`."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Int

from zoo.data.batches.base import LanguageBatch
from zoo.data.specials import SPECIALS
from zoo.models import build
from zoo.parallel.heap import keep_heap
from zoo.training.arrays import ArrayTraining
from zoo.training.optimizers import OptimizerConfig, optimizer

OPTIMIZER = OptimizerConfig(peak=1e-4, schedule="constant", warmup=0, clip=1.0, decay=0.1, beta1=0.9, beta2=0.95)
# What nanoGPT trains: GPT-2's shape with dropout 0.1 everywhere.
SHAPE = {"norm": "pre", "residual_init": "scaled", "dropout": 0.1, "attention_dropout": 0.1}


def tokens(options: dict[str, Any]) -> Int[np.ndarray, "B T"]:
    """Random texts, each with one token more than `length`: inputs and labels are shifted by one."""
    shape = (options["rows"], options["length"] + 1)
    return np.random.default_rng(0).integers(len(SPECIALS), options["vocabulary"], shape, np.int32)


def training(options: dict[str, Any]) -> ArrayTraining:
    """Of the GPT of these options' `layers`, `width`, `heads`, `length` and `vocabulary`, in `dtype`."""
    sizes = {name: options[name] for name in ("layers", "width", "heads", "vocabulary", "dtype")}
    model = build("gpt", "gpt1", **sizes, **SHAPE, ffn=4 * options["width"], max_length=options["length"])
    return ArrayTraining(model, optimizer(OPTIMIZER, model.config.width, steps=1))


def prepare(options: dict[str, Any]) -> Callable[[], float]:
    """A turn makes `updates` updates, the first turn one, and gives the loss of the last, in nats per token."""
    keep_heap()
    trained, ids = training(options), tokens(options)
    batch = LanguageBatch(ids[:, :-1], ids[:, 1:])
    updates = 1

    def turn() -> float:
        nonlocal updates
        for _ in range(updates):
            sums = trained.update(batch)["sums"]
        updates = options["updates"]
        return float(sums.loss / sums.tokens)

    return turn
