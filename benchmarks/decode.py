"""Beam search of a base-sized Transformer with random weights: 16 sentences of 32 tokens, 64 tokens each."""

import argparse
from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from benchmarks.measuring import Result, matmul_ceiling, median_seconds, peak_memory_bytes, timed
from zoo.data.batches.base import Seq2SeqBatch
from zoo.decoding.beam import BeamConfig, Request, beam_search
from zoo.models import build

VOCABULARY = 32_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", default="base", help="a size of the Transformer (default: base)")
    parser.add_argument("--sentences", type=int, default=16, help="rows of the batch (default: 16)")
    parser.add_argument("--source-length", type=int, default=32, help="tokens of a source (default: 32)")
    parser.add_argument("--length", type=int, default=64, help="tokens of a translation (default: 64)")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs, of which the median counts (default: 3)")


def run(arguments: argparse.Namespace) -> Result:
    rows = [_row(arguments, dtype, beam) for beam in (4, 1) for dtype in ("bfloat16", "float32")]
    return Result("decode", rows, {f"{d}_matmul_flops": matmul_ceiling(d) for d in ("bfloat16", "float32")})


def _row(arguments: argparse.Namespace, dtype: str, beam: int) -> dict[str, Any]:
    model = build(
        "transformer", arguments.size, source_vocabulary=VOCABULARY, target_vocabulary=VOCABULARY, dtype=dtype
    )
    source = np.random.default_rng(0).integers(4, VOCABULARY, (arguments.sentences, arguments.source_length), np.int32)
    batch = Seq2SeqBatch(source, source, source)
    params = jax.jit(lambda key: nn.unbox(model.init(key, batch))["params"])(jax.random.key(0))
    # The length is fixed, since random weights end nowhere in particular.
    config = replace(BeamConfig(), beam_size=beam, min_length=arguments.length, max_length=arguments.length)
    limits = np.full(arguments.sentences, arguments.length, np.int32)
    request = Request(source, limits, arguments.length + 1)

    def decode():
        return beam_search(model, params, request, config)

    _, first = timed(decode)
    seconds = median_seconds(decode, arguments.repeats)
    return {
        "system": f"zoo transformer/{arguments.size} {dtype} beam {beam}",
        "tokens_per_second": arguments.sentences * arguments.length / seconds,
        "compile_seconds": first - seconds,
        "peak_memory_bytes": peak_memory_bytes(),
    }
