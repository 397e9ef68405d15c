"""The zoo's beam search of a Transformer with random weights, as a contestant of `benchmarks.in_turns`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Int

from zoo.data.batches.base import Seq2SeqBatch
from zoo.data.specials import EOS
from zoo.decoding.arranged import arranged
from zoo.decoding.beam import BeamConfig, Request, beam_search
from zoo.models import build
from zoo.nn.quantization import quantized
from zoo.parallel.heap import keep_heap


def transformer(options: dict[str, Any], dtype: str = "float32") -> tuple[nn.Module, Any]:
    """The model of these options' `size` and `vocabulary`, and its parameters, always the same."""
    vocabulary = options["vocabulary"]
    model = build(
        "transformer", options["size"], source_vocabulary=vocabulary, target_vocabulary=vocabulary, dtype=dtype
    )
    ids = np.ones((1, 2), np.int32)
    init = jax.jit(lambda key: nn.unbox(model.init(key, Seq2SeqBatch(ids, ids, ids)))["params"])
    return model, init(jax.random.key(0))


def sources(options: dict[str, Any]) -> Int[np.ndarray, "B S"]:
    """Random sentences of `source_length` tokens, EOS the last."""
    shape = (options["sentences"], options["source_length"])
    source = np.random.default_rng(0).integers(4, options["vocabulary"], shape, np.int32)
    source[:, -1] = EOS
    return source


def prepare(options: dict[str, Any]) -> Callable[[], list[list[int]]]:
    """Translates to `length` tokens: random weights end nowhere in particular. A turn gives each sentence's best."""
    keep_heap()
    model, params = transformer(options, options["dtype"])
    if options["quantize"] == "int8":
        params = quantized(params)
    params = arranged(model, params)
    length, source = options["length"], sources(options)
    config = replace(BeamConfig(), beam_size=options["beam"], min_length=length, max_length=length)
    request = Request(source, np.full(len(source), length, np.int32), length + 1)

    def turn() -> list[list[int]]:
        return np.asarray(beam_search(model, params, request, config).tokens)[:, 0, :length].tolist()

    return turn
