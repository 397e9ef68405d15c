"""Models of the decoding contract: tables, so that a test can say what must come, and the zoo's own, never trained."""

from dataclasses import dataclass
from functools import lru_cache

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from zoo.data.batches.base import Seq2SeqBatch
from zoo.data.tokenizers import PAD, WordVocabulary
from zoo.models import registry

WORDS = WordVocabulary([f"w{i}" for i in range(10)])
SHAPES = {  # of all that translate
    "seq2seq": {"layers": 1, "width": 16, "embedding": 16},
    "cho": {"width": 16, "embedding": 16, "maxout": 8},
    "rnnsearch": {"width": 16, "embedding": 16, "alignment": 16, "maxout": 8},
    "transformer": {"layers": 2, "width": 16, "ffn": 16, "heads": 2},
}


@lru_cache
def untrained(name):
    """A model over `WORDS`, and parameters at three times their size, so that tokens differ in likelihood."""
    model = registry.build(name, "tiny", source_vocabulary=14, target_vocabulary=14, **SHAPES[name])
    nothing = Seq2SeqBatch(*(np.ones((1, 2), np.int32) for _ in range(3)))
    params = nn.unbox(jax.jit(model.init)(jax.random.key(0), nothing))["params"]
    return model, jax.tree.map(lambda x: 3 * x, params)


@dataclass(frozen=True)
class Bigrams:
    """`params[kind, last token]` are the logits of the next, the kind of a row being the sum of its source's ids modulo
    the number of kinds. At step `t` it looks at source position `t` for the most part, modulo the source's length."""

    def apply(self, variables, *arguments, method):
        return getattr(self, method)(variables["params"], *arguments)

    def prefill(self, table, source, length, beams):
        return {"kind": source.sum(axis=1) % len(table), "tokens": source != PAD, "step": jnp.int32(0)}

    def decode_step(self, table, cache, tokens):
        real = cache["tokens"]
        here = jnp.arange(real.shape[1]) == (cache["step"] % real.sum(axis=1))[:, None]
        looked = jax.nn.softmax(jnp.where(real, here * 3.0, -1e9))[:, None]
        logits = table[cache["kind"][:, None], tokens]
        return cache | {"step": cache["step"] + 1}, logits, jnp.broadcast_to(looked, (*tokens.shape, real.shape[1]))

    def grow(self, table, cache, more):
        return cache

    def reorder(self, table, cache, parents):
        return cache
