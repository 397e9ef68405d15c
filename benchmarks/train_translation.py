"""Training a Transformer on the embedded phrases, through the whole pipeline: text, ids, batches, update."""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from benchmarks.measuring import Result, matmul_ceiling, peak_memory_bytes, timed
from zoo.experiment import Experiment, resolve
from zoo.models import registry
from zoo.parallel.mesh import batch_shards, make_mesh
from zoo.parallel.rules import place
from zoo.training.arrays import ArrayTraining
from zoo.training.optimizers import optimizer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", default="small", help="a size of the Transformer (default: small)")
    parser.add_argument("--steps", type=int, default=30, help="timed steps (default: 30)")
    parser.add_argument("--batch-tokens", type=int, default=4096, help="padded tokens of a batch (default: 4096)")


def run(arguments: argparse.Namespace) -> Result:
    with tempfile.TemporaryDirectory() as directory:
        rows = [_row(arguments, dtype, Path(directory) / dtype) for dtype in ("bfloat16", "float32")]
    return Result("train-translation", rows, {f"{d}_matmul_flops": matmul_ceiling(d) for d in ("bfloat16", "float32")})


def _experiment(arguments: argparse.Namespace, dtype: str) -> Experiment:
    return resolve(
        {
            "model": {"name": "transformer", "size": arguments.size},
            "data": {
                "train": "phrases",
                "valid": "phrases",
                "tokenizer": "bpe",
                "vocabulary": 500,
                "max_length": 32,
                "steps": [12, 20],
                "batch_tokens": arguments.batch_tokens,
                "pool": 8192,
            },
            "optimizer": {"peak": 1e-3},
            "train": {"compute_dtype": dtype, "smoothing": 0.1},
        }
    )


def _row(arguments: argparse.Namespace, dtype: str, workdir: Path) -> dict[str, Any]:
    experiment = _experiment(arguments, dtype)
    task, mesh = experiment.make_task(workdir), make_mesh(experiment.mesh)
    task.prepare()
    model = registry.of(experiment.model_config(task, dtype))
    training = ArrayTraining(
        model, optimizer(experiment.optimizer, model.config.width, arguments.steps), task.loss, mesh
    )
    batches, compile_seconds = task.training_batches(batch_shards(mesh)), 0.0
    seen: set[tuple[int, ...]] = set()
    waited = tokens = elapsed = counted = 0
    while counted < arguments.steps:
        start = time.perf_counter()
        batch = place(next(batches), mesh)
        wait = time.perf_counter() - start
        metrics, seconds = timed(lambda batch=batch: training.update(batch))
        if batch.source.shape not in seen:  # a shape's first step compiles
            seen.add(batch.source.shape)
            compile_seconds += seconds
            continue
        waited, elapsed, counted = waited + wait, elapsed + wait + seconds, counted + 1
        tokens += int(metrics["sums"].tokens)
    return {
        "system": f"zoo transformer/{arguments.size} {dtype}",
        "tokens_per_second": tokens / elapsed,
        "parameters": training.parameters,
        "compile_seconds": compile_seconds,
        "shapes": len(seen),
        "peak_memory_bytes": peak_memory_bytes(),
        "data_wait": waited / elapsed,
        "devices": jax.device_count(),
    }
