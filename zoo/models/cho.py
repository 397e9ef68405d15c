"""RNN Encoder-Decoder: Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder for Statistical
Machine Translation", and RNNencdec, the same network at the size that Bahdanau et al. 2015 compare with.
"""

from dataclasses import dataclass, replace

import flax.linen as nn
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from zoo.data.batches.base import Seq2SeqBatch
from zoo.data.specials import PAD
from zoo.errors import check_choice
from zoo.models.base import Output, Readout
from zoo.nn.additive import uniform_weights
from zoo.nn.deep_output import DeepOutput
from zoo.nn.dropout import Dropout
from zoo.nn.linear import Dense, Embedding
from zoo.nn.recurrent import GLOROT, GRU_CHO, Inits, Recurrent, State, of_parents

PAPER = "Cho et al. 2014"
_GAUSSIAN = nn.initializers.normal(0.01)
INITS = {"paper": Inits(_GAUSSIAN, nn.initializers.orthogonal(), _GAUSSIAN), "glorot": GLOROT}  # section 4.1


@dataclass(frozen=True)
class ChoConfig:
    """`maxout` counts the units of the read-out, of two pieces each. `rank` is that of the output matrix (0: full).
    `init` is `paper` or `glorot`."""

    source_vocabulary: int = 15_000
    target_vocabulary: int = 15_000
    width: int = 1000
    embedding: int = 100
    maxout: int = 500
    rank: int = 100
    init: str = "paper"
    dropout: float = 0.0
    dtype: str = "float32"

    def __post_init__(self):
        check_choice("model.init", self.init, INITS)


SIZES: dict[str, ChoConfig] = {
    "tiny": ChoConfig(8000, 8000, width=128, embedding=128, maxout=128, rank=0, init="glorot", dropout=0.2),
    "small": ChoConfig(8000, 8000, width=256, embedding=256, maxout=256, rank=0, init="glorot", dropout=0.3),
    "cho2014": ChoConfig(),
    # Bahdanau et al. 2015, A.2.3.
    "rnnencdec": ChoConfig(30_000, 30_000, embedding=620, rank=0),
}


@struct.dataclass
class Summary:
    """The source as one vector `c`, and its contribution to every gate of the decoder; `[B, 1, ...]`, for all beams."""

    context: Float[Array, "B 1 N"]
    gates: Float[Array, "B 1 G"]


@struct.dataclass
class ChoCache:
    """The state of each hypothesis; for each sentence, its summary and the positions that are tokens."""

    state: State
    summary: Summary
    source_is_token: Bool[Array, "B S"]


class Cho(nn.Module):
    """Cho et al. 2014, Figure 1 and appendix.

    The candidate of the decoder is `tanh(W' e(y) + U'(r ∘ h') + C c)`: the unit of the paper's eq. 8 with the context
    added, as in Bahdanau et al. 2015, A.1.1, of which this is the case of a fixed context. There is no attention:
    `Output.attention` is an empty dict when asked for, and `decode_step` weighs all tokens of the source alike.
    """

    config: ChoConfig

    def setup(self):
        c = self.config
        dtype, inits = jnp.dtype(c.dtype), INITS[c.init]
        square = {"axes": ("embed", "mlp"), "dtype": dtype, "kernel_init": inits.kernel}
        self.source_embedding = Embedding(c.source_vocabulary, c.embedding, dtype, inits.embedding)
        self.target_embedding = Embedding(c.target_vocabulary, c.embedding, dtype, inits.embedding)
        self.encoder = Recurrent(GRU_CHO, c.width, inits, dtype)
        self.summary = Dense(c.width, **square)
        self.initial = Dense(c.width, **square)
        self.decoder = Recurrent(GRU_CHO, c.width, inits, dtype)
        self.context_gates = Dense((3, c.width), bias=False, **(square | {"axes": ("embed", None, "mlp")}))
        self.deep_output = DeepOutput(c.maxout, c.target_vocabulary, inits, c.rank, dtype)
        self.dropout = Dropout(c.dropout)

    def __call__(self, batch: Seq2SeqBatch, train: bool = False, weights: bool = False) -> Output:
        summary, state = self.encode(batch.source, train)
        words = self.dropout(self.target_embedding(batch.inputs.T[:, :, None]), train)
        states, _ = self.decoder(self.decoder.inputs(words) + summary.gates, state)
        features = self.deep_output.features(states, words, summary.context)
        features = self.dropout(features[:, :, 0].swapaxes(0, 1), train)
        return Output(self.readout(features), {} if weights else None)

    def encode(self, source: Int[ArrayLike, "B S"], train: bool = False) -> tuple[Summary, State]:
        """`c = tanh(V h_N)`, and the decoder's first state `tanh(V' c)`."""
        words = self.dropout(self.source_embedding(source.T), train)
        _, (last,) = self.encoder(self.encoder.inputs(words), real=jnp.not_equal(source.T, PAD))
        context = jnp.tanh(self.summary(last))[:, None]
        gates = self.context_gates(context)
        summary = Summary(context, gates.reshape(*gates.shape[:2], -1))
        return summary, (jnp.tanh(self.initial(context)).astype(jnp.float32),)

    def readout(self, features: Float[Array, "B T M"]) -> Readout:
        return Readout(features, self.deep_output.matrix, self.deep_output.bias, dtype=jnp.dtype(self.config.dtype))

    def prefill(self, source: Int[ArrayLike, "B S"], length: int, beams: int = 1) -> ChoCache:
        """`length` needs no room, since the size of a state is fixed."""
        summary, (state,) = self.encode(source)
        return ChoCache((jnp.repeat(state, beams, axis=1),), summary, jnp.not_equal(source, PAD))

    def decode_step(
        self, cache: ChoCache, tokens: Int[ArrayLike, "B K"]
    ) -> tuple[ChoCache, Float[Array, "B K V"], Float[Array, "B K S"]]:
        words = self.target_embedding(tokens)
        state = self.decoder.step(cache.state, self.decoder.inputs(words) + cache.summary.gates)
        features = self.deep_output.features(state[0], words, cache.summary.context)
        weights = uniform_weights(cache.source_is_token, tokens.shape[1])
        return replace(cache, state=state), self.readout(features).logits(), weights

    def grow(self, cache: ChoCache, more: int) -> ChoCache:
        return cache

    def reorder(self, cache: ChoCache, parents: Int[ArrayLike, "B K"]) -> ChoCache:
        return replace(cache, state=of_parents(cache.state, parents))
