"""Training the models of 2014 beside PyTorch: one batch of full sentences, updated again and again.

The zoo and PyTorch take turns on the same machine, so other load affects both; the median of the rounds counts. Compare
only `ratio` (over the first row of the same model) between machines.
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.measuring import Result, installed, matmul_ceiling, timed
from zoo.data.batches.base import Seq2SeqBatch
from zoo.data.tokenizers import BOS, EOS
from zoo.models import registry
from zoo.parallel.rules import place
from zoo.training.arrays import ArrayTraining
from zoo.training.optimizers import OptimizerConfig, optimizer

MODELS = ("seq2seq", "rnnsearch")
DTYPES = ("float32", "bfloat16")
OPTIMIZER = OptimizerConfig(peak=1e-3, schedule="constant", warmup=0, beta2=0.999, epsilon=1e-8, clip=1.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sentences", type=int, default=64, help="rows of the batch (default: 64)")
    parser.add_argument("--length", type=int, default=24, help="tokens of a source and of a target (default: 24)")
    parser.add_argument("--width", type=int, default=256, help="of all layers and embeddings (default: 256)")
    parser.add_argument("--vocabulary", type=int, default=8000, help="words of either side (default: 8000)")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each, of which the median counts (default: 9)")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES, help="to compute in (default: both)")
    parser.add_argument("--updates", type=int, default=3, help="updates in a turn (default: 3)")


@dataclass
class Contestant:
    """Something that trains: `update` waits for its own end. The first one compiles, and is not a turn."""

    system: str
    update: Callable[[], Any]
    parameters: int
    compile_seconds: float = 0.0
    seconds: list[float] = field(default_factory=list)

    def warm_up(self) -> None:
        _, first = timed(self.update)
        self.compile_seconds = max(0.0, first - timed(self.update)[1])

    def turn(self, updates: int) -> None:
        self.seconds.append(timed(lambda: [self.update() for _ in range(updates)])[1] / updates)


def run(arguments: argparse.Namespace) -> Result:
    rows = [row for name in MODELS for row in _rows(arguments, name)]
    return Result("train-recurrent", rows, {f"{d}_matmul_flops": matmul_ceiling(d) for d in arguments.dtypes})


def _rows(arguments: argparse.Namespace, name: str) -> list[dict[str, Any]]:
    contestants = _contestants(arguments, name)
    for contestant in contestants:
        contestant.warm_up()
    for _ in range(arguments.rounds):
        for contestant in contestants:
            contestant.turn(arguments.updates)
    tokens = arguments.sentences * arguments.length
    return [
        {
            "system": c.system,
            "tokens_per_second": tokens / statistics.median(c.seconds),
            "beside": contestants[0].system,
            "compile_seconds": c.compile_seconds,
            "parameters": c.parameters,
        }
        for c in contestants
    ]


def _contestants(arguments: argparse.Namespace, name: str) -> list[Contestant]:
    batch = _full_batch(arguments)
    zoo = [_zoo(name, _config(arguments, name, dtype), batch) for dtype in arguments.dtypes]
    if not installed("torch", "PyTorch", "bench"):
        return zoo
    from benchmarks import torch_recurrent

    dtypes = [dtype for dtype in arguments.dtypes if dtype in torch_recurrent.dtypes()]
    torch = [_torch(name, _config(arguments, name, dtype), batch) for dtype in dtypes]
    assert all(abs(zoo[0].parameters / t.parameters - 1) < 0.02 for t in torch), f"{name}: not models of one size"
    return torch + zoo


def _full_batch(arguments: argparse.Namespace) -> Seq2SeqBatch:
    """Words at random; no padding."""
    shape = (arguments.sentences, arguments.length)
    source, target = np.random.default_rng(0).integers(4, arguments.vocabulary, (2, *shape), np.int32)
    source[:, -1] = target[:, -1] = EOS
    inputs = np.concatenate([np.full((len(target), 1), BOS, np.int32), target[:, :-1]], axis=1)
    return Seq2SeqBatch(source, inputs, target)


def _config(arguments: argparse.Namespace, name: str, dtype: str) -> Any:
    own = {"alignment": arguments.width, "maxout": arguments.width} if name == "rnnsearch" else {"layers": 2}
    vocabularies = {f"{side}_vocabulary": arguments.vocabulary for side in ("source", "target")}
    shared = {"width": arguments.width, "embedding": arguments.width, "dropout": 0.0, "dtype": dtype}
    return registry.config(name, "small", **vocabularies, **shared, **own)


def _zoo(name: str, config: Any, batch: Seq2SeqBatch) -> Contestant:
    training = ArrayTraining(registry.of(config), optimizer(OPTIMIZER, config.width, steps=1))
    placed = place(batch, training.mesh)
    return Contestant(f"zoo {name} {config.dtype}", lambda: training.update(placed), training.parameters)


def _torch(name: str, config: Any, batch: Seq2SeqBatch) -> Contestant:
    from benchmarks.torch_recurrent import updates

    update, parameters = updates(name, config, OPTIMIZER.peak, OPTIMIZER.clip, batch)
    return Contestant(f"torch {name} {config.dtype}", update, parameters)
