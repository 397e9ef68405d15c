"""Seq2Seq: Sutskever, Vinyals & Le 2014, "Sequence to Sequence Learning with Neural Networks".

One deep LSTM reads the source in reverse word order; another of the same depth starts from its last states and writes
the target. The decoder sees nothing else of the source.
"""

from dataclasses import dataclass, replace

import flax.linen as nn
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from zoo.data.batches.base import Seq2SeqBatch
from zoo.data.specials import EOS, PAD
from zoo.errors import UserError, check_choice
from zoo.models.base import Output, Readout
from zoo.nn.additive import uniform_weights
from zoo.nn.dropout import Dropout
from zoo.nn.linear import Embedding
from zoo.nn.recurrent import GLOROT, LSTM, Inits, Recurrent, State, of_parents, symmetric_uniform

PAPER = "Sutskever et al. 2014"
_UNIFORM = symmetric_uniform(0.08)
INITS = {"paper": Inits(_UNIFORM, _UNIFORM, _UNIFORM, _UNIFORM), "glorot": GLOROT}  # section 3.4; for small widths


@dataclass(frozen=True)
class Seq2SeqConfig:
    """`layers` counts each LSTM, `width` its cells. `reverse_source` is section 3.3. `init` is `paper` or `glorot`."""

    source_vocabulary: int = 160_000
    target_vocabulary: int = 80_000
    layers: int = 4
    width: int = 1000
    embedding: int = 1000
    reverse_source: bool = True
    init: str = "paper"
    dropout: float = 0.0
    dtype: str = "float32"

    def __post_init__(self):
        check_choice("model.init", self.init, INITS)
        if self.layers < 1:
            raise UserError(f"model.layers={self.layers}: use at least 1")


SIZES: dict[str, Seq2SeqConfig] = {
    "tiny": Seq2SeqConfig(8000, 8000, layers=1, width=128, embedding=128, init="glorot", dropout=0.2),
    "small": Seq2SeqConfig(8000, 8000, layers=2, width=256, embedding=256, init="glorot", dropout=0.3),
    "sutskever2014": Seq2SeqConfig(),
}


@struct.dataclass
class Seq2SeqCache:
    """The states of every layer for each hypothesis, `[B, K, N]`, and which positions of the source are tokens."""

    states: tuple[State, ...]
    source_is_token: Bool[Array, "B S"]


def reversed_words(source: Int[ArrayLike, "B S"]) -> Int[Array, "B S"]:
    """`a b c EOS PAD` as `c b a EOS PAD`: the words in reverse, then EOS, then padding.

    Section 3.3 reverses the words of the source; section 2 has the LSTM read EOS after them.
    """
    words = ((source != PAD) & (source != EOS)).sum(axis=1, keepdims=True)
    position = jnp.arange(source.shape[1])
    return jnp.take_along_axis(source, jnp.where(position < words, words - 1 - position, position), axis=1)


class Seq2Seq(nn.Module):
    """Sutskever et al. 2014, Figure 1.

    Two LSTMs with parameters of their own (section 2), BOS in the place of the figure's EOS as the decoder's first
    input, and a plain softmax over the top layer. There is no attention: `Output.attention` is an empty dict when asked
    for, and `decode_step` weighs all tokens of the source alike.
    """

    config: Seq2SeqConfig

    def setup(self):
        c = self.config
        dtype, inits = jnp.dtype(c.dtype), INITS[c.init]
        self.source_embedding = Embedding(c.source_vocabulary, c.embedding, dtype, inits.embedding)
        self.target_embedding = Embedding(c.target_vocabulary, c.embedding, dtype, inits.embedding)
        self.encoder = [Recurrent(LSTM, c.width, inits, dtype) for _ in range(c.layers)]
        self.decoder = [Recurrent(LSTM, c.width, inits, dtype) for _ in range(c.layers)]
        init = nn.with_logical_partitioning(inits.kernel, ("embed", "vocab"))
        self.output = self.param("output", init, (c.width, c.target_vocabulary))
        self.dropout = Dropout(c.dropout)

    def __call__(self, batch: Seq2SeqBatch, train: bool = False, weights: bool = False) -> Output:
        x = self.dropout(self.target_embedding(batch.inputs.T), train)
        for layer, state in zip(self.decoder, self.encode(batch.source, train), strict=True):
            x, _ = layer(layer.inputs(x), state)
        x = self.dropout(x, train)
        return Output(self.readout(x.swapaxes(0, 1)), {} if weights else None)

    def encode(self, source: Int[ArrayLike, "B S"], train: bool = False) -> tuple[State, ...]:
        """The last state of every layer: the fixed-dimensional vector `v` of eq. 1."""
        words = (reversed_words(source) if self.config.reverse_source else source).T
        real = jnp.not_equal(words, PAD)
        x = self.dropout(self.source_embedding(words), train)
        states = []
        for layer in self.encoder:
            x, state = layer(layer.inputs(x), real=real)
            states.append(state)
        return tuple(states)

    def readout(self, states: Float[Array, "B T N"]) -> Readout:
        return Readout(states, self.output, dtype=jnp.dtype(self.config.dtype))

    def prefill(self, source: Int[ArrayLike, "B S"], length: int, beams: int = 1) -> Seq2SeqCache:
        """`length` needs no room, since the size of a state is fixed."""
        states = tuple(tuple(jnp.repeat(v[:, None], beams, axis=1) for v in state) for state in self.encode(source))
        return Seq2SeqCache(states, jnp.not_equal(source, PAD))

    def decode_step(
        self, cache: Seq2SeqCache, tokens: Int[ArrayLike, "B K"]
    ) -> tuple[Seq2SeqCache, Float[Array, "B K V"], Float[Array, "B K S"]]:
        x, states = self.target_embedding(tokens), []
        for layer, state in zip(self.decoder, cache.states, strict=True):
            states.append(layer.step(state, layer.inputs(x)))
            x = states[-1][0].astype(jnp.dtype(self.config.dtype))
        logits = self.readout(x).logits()
        return replace(cache, states=tuple(states)), logits, uniform_weights(cache.source_is_token, tokens.shape[1])

    def grow(self, cache: Seq2SeqCache, more: int) -> Seq2SeqCache:
        return cache

    def reorder(self, cache: Seq2SeqCache, parents: Int[ArrayLike, "B K"]) -> Seq2SeqCache:
        return replace(cache, states=of_parents(cache.states, parents))
