"""RNNsearch: Bahdanau, Cho & Bengio 2015 (arXiv 2014), "Neural Machine Translation by Jointly Learning to Align and
Translate", as its appendix A states it.
"""

from dataclasses import dataclass, replace
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from zoo.data.batches.base import Seq2SeqBatch
from zoo.data.specials import PAD
from zoo.errors import check_choice
from zoo.models.base import Output, Readout
from zoo.nn.additive import AdditiveAlignment, Aligned, additive_weights
from zoo.nn.deep_output import DeepOutput
from zoo.nn.dropout import Dropout
from zoo.nn.linear import Dense, Embedding, Initializer
from zoo.nn.masks import Mask
from zoo.nn.recurrent import (
    GLOROT,
    GRU_BAHDANAU,
    Bidirectional,
    Inits,
    Recurrent,
    State,
    Times,
    of_parents,
    recur,
    times,
)

PAPER = "Bahdanau et al. 2014"


@dataclass(frozen=True)
class SearchInits:
    """B.1: the alignment model has numbers of its own."""

    general: Inits
    alignment: Initializer
    energy: Initializer


_GAUSSIAN = nn.initializers.normal(0.01)
INITS = {
    "paper": SearchInits(
        Inits(_GAUSSIAN, nn.initializers.orthogonal(), _GAUSSIAN),
        nn.initializers.normal(0.001),
        nn.initializers.zeros_init(),
    ),
    "glorot": SearchInits(GLOROT, nn.initializers.xavier_uniform(), nn.initializers.normal(0.1)),
}


@dataclass(frozen=True)
class RNNsearchConfig:
    """A.2.3: `width` is n (each direction of the encoder, and the decoder), `embedding` m, `alignment` n', `maxout` l.
    `init` is `paper` or `glorot`."""

    source_vocabulary: int = 30_000
    target_vocabulary: int = 30_000
    width: int = 1000
    embedding: int = 620
    alignment: int = 1000
    maxout: int = 500
    init: str = "paper"
    dropout: float = 0.0
    dtype: str = "float32"

    def __post_init__(self):
        check_choice("model.init", self.init, INITS)


SIZES: dict[str, RNNsearchConfig] = {
    "tiny": RNNsearchConfig(
        8000, 8000, width=128, embedding=128, alignment=128, maxout=128, init="glorot", dropout=0.2
    ),
    "small": RNNsearchConfig(
        8000, 8000, width=256, embedding=256, alignment=256, maxout=256, init="glorot", dropout=0.3
    ),
    "bahdanau2014": RNNsearchConfig(),
}


@struct.dataclass
class Annotated:
    """The source of each sentence: the annotations `h`, and their half of the alignment model."""

    annotations: Float[Array, "B S C"]
    aligned: Aligned


@struct.dataclass
class RNNsearchCache:
    """The state of each hypothesis, `[B, K, N]`, and the source."""

    state: State
    source: Annotated


def _search(times: Times, aligned: Aligned, state: State, x: Float[Array, "B K G"]):
    """One step of the decoder: align, read the context, update the state. Returns the new state, the inputs of the
    read-out, which are the old state `s_{i-1}` and the context `c_i` (A.2.2), and the weights."""
    weights = additive_weights(times("alignment", state[0]), aligned)  # eq. 6
    context = times("annotations", weights)  # eq. 5
    new = GRU_BAHDANAU.step(times, state, x + times("context", context))
    return new, (state[0], context, weights)


class RNNsearch(nn.Module):
    """Bahdanau et al. 2015, Figure 1 and appendix A.2.

    The appendix leaves its biases out. Here there is one for each gate, for the first state, for the maxout layer and
    for the output; the alignment model has none.
    """

    config: RNNsearchConfig

    def setup(self):
        c = self.config
        dtype, inits = jnp.dtype(c.dtype), INITS[c.init]
        general = inits.general
        self.source_embedding = Embedding(c.source_vocabulary, c.embedding, dtype, general.embedding)
        self.target_embedding = Embedding(c.target_vocabulary, c.embedding, dtype, general.embedding)
        self.encoder = Bidirectional(GRU_BAHDANAU, c.width, general, dtype)
        self.initial = Dense(c.width, axes=("embed", "mlp"), dtype=dtype, kernel_init=general.kernel)
        self.alignment = AdditiveAlignment(c.alignment, c.width, inits.alignment, inits.energy, dtype)
        self.decoder = Recurrent(GRU_BAHDANAU, c.width, general, dtype)
        init = nn.with_logical_partitioning(general.kernel, ("embed", None, "mlp"))
        self.context = self.param("context", init, (2 * c.width, 3, c.width))
        self.deep_output = DeepOutput(c.maxout, c.target_vocabulary, general, dtype=dtype)
        self.dropout = Dropout(c.dropout)

    def __call__(self, batch: Seq2SeqBatch, train: bool = False, weights: bool = False) -> Output:
        source, state = self.encode(batch.source, train)
        words = self.dropout(self.target_embedding(batch.inputs.T[:, :, None]), train)
        _, (states, contexts, looked) = recur(
            _search,
            jnp.dtype(self.config.dtype),
            False,
            self._kernels(source),
            source.aligned,
            state,
            self.decoder.inputs(words),
        )
        features = self.deep_output.features(states, words, contexts)
        features = self.dropout(features[:, :, 0].swapaxes(0, 1), train)
        attention = {"cross": looked.transpose(1, 2, 0, 3)[None]} if weights else None
        return Output(self.readout(features), attention)

    def encode(self, source: Int[ArrayLike, "B S"], train: bool = False) -> tuple[Annotated, State]:
        """Annotations, `U_a h` of each, and `s_0 = tanh(W_s ←h_1)`, `[B, 1, N]`."""
        words = self.dropout(self.source_embedding(source.T), train)
        annotations, (first,) = self.encoder(words, jnp.not_equal(source.T, PAD))
        annotations = annotations.swapaxes(0, 1)
        state = jnp.tanh(self.initial(first)).astype(jnp.float32)[:, None]
        seen = Mask.padded(jnp.not_equal(source, PAD)).keys(source.shape[1])
        return Annotated(annotations, self.alignment(annotations, seen)), (state,)

    def _kernels(self, source: Annotated):
        context = self.context.reshape(2 * self.config.width, -1)
        own = {"alignment": self.alignment.query, "context": context, "annotations": source.annotations}
        return self.decoder.kernels() | own

    def readout(self, features: Float[Array, "B T M"]) -> Readout:
        return Readout(features, self.deep_output.matrix, self.deep_output.bias, dtype=jnp.dtype(self.config.dtype))

    def prefill(self, source: Int[ArrayLike, "B S"], length: int, beams: int = 1) -> RNNsearchCache:
        """`length` needs no room, since the size of a state is fixed."""
        annotated, (state,) = self.encode(source)
        return RNNsearchCache((jnp.repeat(state, beams, axis=1),), annotated)

    def decode_step(
        self, cache: RNNsearchCache, tokens: Int[ArrayLike, "B K"]
    ) -> tuple[RNNsearchCache, Float[Array, "B K V"], Float[Array, "B K S"]]:
        words = self.target_embedding(tokens)
        multiply = partial(times, self._kernels(cache.source), jnp.dtype(self.config.dtype))
        inputs = self.decoder.inputs(words)
        state, (before, context, weights) = _search(multiply, cache.source.aligned, cache.state, inputs)
        features = self.deep_output.features(before, words, context)
        return replace(cache, state=state), self.readout(features).logits(), weights

    def grow(self, cache: RNNsearchCache, more: int) -> RNNsearchCache:
        return cache

    def reorder(self, cache: RNNsearchCache, parents: Int[ArrayLike, "B K"]) -> RNNsearchCache:
        return replace(cache, state=of_parents(cache.state, parents))
