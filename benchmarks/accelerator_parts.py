"""The zoo's parts of `benchmarks accelerator`: `python -m benchmarks.accelerator_parts PART SIZES` prints an object."""

import json
import sys
import time
from dataclasses import replace
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measuring import peak_memory_bytes, timed
from zoo.data.batches.base import LanguageBatch, Seq2SeqBatch
from zoo.decoding.beam import BeamConfig, Request, beam_search
from zoo.models import build
from zoo.parallel.rules import place
from zoo.planning.program import Program
from zoo.training.arrays import ArrayTraining, next_token_loss
from zoo.training.optimizers import OptimizerConfig, optimizer

OPTIMIZER = OptimizerConfig(peak=1e-4, warmup=1, clip=1.0)
CHARACTERS = {"layers": 6, "width": 384, "heads": 6, "ffn": 1536, "max_length": 256}
SECONDS = 3.0  # of timed steps


def card(sizes: dict[str, Any]) -> dict[str, Any]:
    """What a square bfloat16 product and a copy reach, and which device they reach it on."""
    device = jax.devices()[0]
    n = sizes["on_cpu" if device.platform == "cpu" else "size"]
    x = jax.random.normal(jax.random.key(0), (n, n), jnp.bfloat16)  # a card multiplies equal numbers faster
    product = _seconds(jax.jit(lambda x: x @ x), x)
    values = jnp.ones((n * n,), jnp.float32)
    copy = _seconds(jax.jit(lambda x: x + 1), values)
    return {
        "device": f"{jax.device_count()} x {device.device_kind}, JAX {jax.__version__}",
        "is_cpu": device.platform == "cpu",
        "product_flops_per_second": 2 * n**3 / product,
        "copy_bytes_per_second": 2 * values.nbytes / copy,
    }


def _seconds(function: Any, x: Any, times: int = 20) -> float:
    """Of one call among many that wait for none before them."""
    jax.block_until_ready(function(x))
    return timed(lambda: [function(x) for _ in range(times)])[1] / times


def train(sizes: dict[str, Any]) -> dict[str, Any]:
    """Steps on one batch that stays on the device, `steps_per_call` in each of its calls."""
    began = time.perf_counter()
    causal = sizes["model"] != "transformer_big"
    training = _training(sizes, causal)
    batch = place(_batch(sizes, causal, 64 if sizes["model"] == "characters" else 1000), training.mesh)
    program = training.lower(batch).compile()
    training.step = program
    jax.block_until_ready(training.update(batch))
    first = time.perf_counter() - began
    each = sizes.get("steps_per_call", 1)
    call = partial(training.updates, (batch,) * each) if each > 1 else partial(training.update, batch)
    jax.block_until_ready(call())
    calls = max(3, min(200, int(SECONDS / timed(call)[1])))
    seconds = timed(lambda: [call() for _ in range(calls)])[1] / (calls * each)
    counted = Program(program.as_text(), {"data": 1})
    tokens = sizes["rows"] * sizes["length"]
    found = {"tokens_per_second": tokens / seconds, "step_seconds": seconds, "first_step_seconds": first}
    if {"product_flops_per_second", "copy_bytes_per_second"} <= set(sizes):
        products, copies = (sizes[f"{key}_per_second"] for key in ("product_flops", "copy_bytes"))
        found["predicted_step_seconds"] = counted.flops / products + counted.bytes / copies
        found["share_of_product_rate"] = counted.flops / seconds / products
    return found | {"moved_bytes": counted.bytes, "peak_memory_bytes": peak_memory_bytes()}


def _training(sizes: dict[str, Any], causal: bool) -> ArrayTraining:
    rates = {"dropout": sizes["dropout"]} | ({"attention_dropout": sizes["dropout"]} if causal else {})
    changes = {"dtype": "bfloat16", **rates, **sizes.get("changes", {})}
    if sizes["model"] == "transformer_big":
        model = build("transformer", "big", source_vocabulary=37000, target_vocabulary=37000, **changes)
    elif sizes["model"] == "characters":
        model = build("gpt", "nano", vocabulary=65, **(CHARACTERS | changes))
    else:
        model = build("gpt", "gpt1", vocabulary=40478, **changes)
    smoothing = 0.0 if causal else 0.1

    def loss(*arguments: Any) -> Any:
        return next_token_loss(*arguments, smoothing=smoothing)

    return ArrayTraining(model, optimizer(OPTIMIZER, model.config.width, 1000), loss)


def _batch(sizes: dict[str, Any], causal: bool, vocabulary: int) -> LanguageBatch | Seq2SeqBatch:
    ids = np.random.default_rng(0).integers(4, vocabulary, (sizes["rows"], sizes["length"]), np.int32)
    return LanguageBatch(ids, np.roll(ids, -1, axis=1)) if causal else Seq2SeqBatch(ids, ids, ids)


def decode(sizes: dict[str, Any]) -> dict[str, Any]:
    """Beam 4 of a Transformer base with random weights, which ends nowhere in particular: the length is fixed."""
    rows, length = sizes["rows"], sizes["length"]
    vocabularies = {"source_vocabulary": 32000, "target_vocabulary": 32000}
    model = build("transformer", "base", dtype="bfloat16", **vocabularies, **sizes.get("changes", {}))
    source = np.random.default_rng(0).integers(4, 32000, (rows, 32), np.int32)
    batch = Seq2SeqBatch(source, source, source)
    params = jax.jit(lambda key: nn.unbox(model.init(key, batch))["params"])(jax.random.key(0))
    config = replace(BeamConfig(), beam_size=4, min_length=length, max_length=length)
    request = Request(source, np.full(rows, length, np.int32), length + 1)
    first = timed(lambda: beam_search(model, params, request, config))[1]
    seconds = min(timed(lambda: beam_search(model, params, request, config))[1] for _ in range(3))
    memory = {"peak_memory_bytes": peak_memory_bytes()}
    return {"tokens_per_second": rows * length / seconds, "first_call_seconds": first} | memory


PARTS = {"card": card, "train": train, "decode": decode}

if __name__ == "__main__":
    print(json.dumps(PARTS[sys.argv[1]](json.loads(sys.argv[2]))))
