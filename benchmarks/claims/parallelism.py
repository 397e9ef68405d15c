"""Parallelism: a recurrent model computes one position after the other, attention computes all at once.

Each model reads and predicts the same number of tokens, cut into rows of different lengths. Nothing is padded.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.claims import pictures
from benchmarks.claims.generations import NAMES, config
from benchmarks.claims.points import Points
from benchmarks.claims.words import millions, short, table
from benchmarks.claims.work import Work, work_of
from benchmarks.measuring import matmul_ceiling, timed
from zoo.data.batches.base import Seq2SeqBatch
from zoo.data.specials import BOS, EOS
from zoo.models import registry
from zoo.parallel.rules import place
from zoo.training.arrays import ArrayTraining, next_token_loss
from zoo.training.optimizers import OptimizerConfig, optimizer

TITLE = "Parallelism"
CLAIM = (
    "A self-attention layer connects all positions with a constant number of sequentially executed operations, "
    "whereas a recurrent layer requires O(n) sequential operations. (Vaswani et al. 2017, section 4)"
)
SETTINGS: dict[str, Any] = {
    "tokens": 4096,
    "lengths": [16, 64, 256, 1024],
    "vocabulary": 1000,
    "parameters": 1_500_000,
    "dtype": "bfloat16",
    "rounds": 5,
}
OPTIMIZER = OptimizerConfig(peak=1e-3, schedule="constant", warmup=0)


def measure(points: Points) -> None:
    """Seconds and work of a pass forward and of an update, for each model and length; and the machine's ceiling."""
    settings = points.settings
    points.of("ceiling", lambda: matmul_ceiling(settings["dtype"]))
    for name in NAMES:
        for length in settings["lengths"]:
            points.of(f"{name}-{length}", lambda n=name, at=length: _point(settings, n, at))


def _point(settings: dict[str, Any], name: str, length: int) -> dict[str, Any]:
    sizes = (settings["vocabulary"], settings["parameters"])
    model = registry.of(config(name, *sizes, dtype=settings["dtype"]))
    training = ArrayTraining(model, optimizer(OPTIMIZER, model.config.width, steps=1))
    batch = place(_batch(settings, length), training.mesh)

    def objective(params, batch):
        return next_token_loss(model, params, batch, jax.random.key(0)).objective

    forward = jax.jit(objective)
    passes = {
        "forward": (lambda: forward(training.state.params, batch), work_of(objective, training.shapes.params, batch)),
        "update": (lambda: training.update(batch), work_of(jax.grad(objective), training.shapes.params, batch)),
    }
    return {"parameters": training.parameters} | {
        kind: _timed(run, work, settings) for kind, (run, work) in passes.items()
    }


def _timed(run: Any, work: Work, settings: dict[str, Any]) -> dict[str, float]:
    timed(run)  # compiles
    seconds = min(timed(run)[1] for _ in range(settings["rounds"]))  # other load only adds
    return {
        "seconds": seconds,
        "tokens_per_second": settings["tokens"] / seconds,
        "flops": work.flops,
        "steps": work.steps,
    }


def _batch(settings: dict[str, Any], length: int) -> Seq2SeqBatch:
    """Rows of random words."""
    shape = (2, settings["tokens"] // length, length)
    source, target = np.random.default_rng(0).integers(4, settings["vocabulary"], shape, np.int32)
    source[:, -1] = target[:, -1] = EOS
    inputs = np.concatenate([np.full((len(target), 1), BOS, np.int32), target[:, :-1]], axis=1)
    return Seq2SeqBatch(source, inputs, target)


def tell(points: Points) -> Iterator[str]:
    """What was done, the table, and what came out."""
    s, values = points.settings, points.values
    runs = {key: run for key, run in values.items() if key != "ceiling"}
    sizes = ", ".join(f"{short(n)} {millions(r['parameters'])}" for n, r in _first_of_each(runs).items())
    yield f"Each model ({sizes}) trains on {s['tokens']:,} tokens of source and of target, cut into rows of different"
    yield f"lengths; products are in {s['dtype']}. Each time is the best of {s['rounds']}. The peak is that of a large"
    yield f"square matrix product on the same machine, {values['ceiling'] / 1e9:,.0f} GFLOP/s. *Steps* counts the"
    yield "products on the longest chain of the program in which each needs the one before it. They run one after the"
    yield "other on any number of processors. Attention's operations grow with the square of the length, so its"
    yield "tokens/s fall too.\n"
    header = [
        "model",
        "length",
        "forward, tokens/s",
        "update, tokens/s",
        "share of the peak",
        "steps forward",
        "steps in all",
    ]
    yield from table(header, _parallel_rows(runs, values["ceiling"]))
    yield ""
    for name in NAMES:
        of_model = {length: run for (n, length), run in _by_length(runs).items() if n == name}
        if len(of_model) > 1:
            first, last = min(of_model), max(of_model)
            factor = of_model[last]["update"]["tokens_per_second"] / of_model[first]["update"]["tokens_per_second"]
            more = of_model[last]["update"]["steps"] / of_model[first]["update"]["steps"]
            steps = "the steps stay the same" if more == 1 else f"the steps grow {more:.0f} times"
            yield (
                f"- {short(name)}: from rows of {first} to rows of {last} tokens, {steps} and the tokens/s of updates "
                f"fall to {100 * factor:.0f} %."
            )


def _parallel_rows(runs: dict[str, Any], ceiling: float) -> Iterator[list[str]]:
    for (name, length), run in _by_length(runs).items():
        forward, update = run["forward"], run["update"]
        share = update["flops"] / update["seconds"] / ceiling
        yield [
            *(short(name), str(length), f"{forward['tokens_per_second']:,.0f}"),
            *(f"{update['tokens_per_second']:,.0f}", f"{100 * share:.1f} %"),
            *(f"{forward['steps']:,}", f"{update['steps']:,}"),
        ]


def draw(points: Points, path: Path) -> None:
    """Speed, share of the peak and steps over the length."""
    ceiling = points.values["ceiling"]
    runs = _by_length({key: run for key, run in points.values.items() if key != "ceiling"})

    def lines(value: Callable[[dict[str, float]], float]) -> pictures.Lines:
        return {
            NAMES[name]: tuple(
                zip(*((at, value(r["update"])) for (n, at), r in runs.items() if n == name), strict=True)
            )
            for name in dict.fromkeys(n for n, _ in runs)
        }

    pictures.draw_parallelism(
        path,
        lines(lambda run: run["tokens_per_second"]),
        lines(lambda run: 100 * run["flops"] / run["seconds"] / ceiling),
        lines(lambda run: run["steps"]),
    )


def _by_length(runs: dict[str, Any]) -> dict[tuple[str, int], dict[str, Any]]:
    keys = [(key.partition("-")[0], int(key.partition("-")[2])) for key in runs]
    return dict(zip(keys, runs.values(), strict=True))


def _first_of_each(runs: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: run for (name, _), run in reversed(_by_length(runs).items())}
