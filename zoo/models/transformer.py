"""The Transformer: Vaswani et al. 2017, "Attention Is All You Need".

Figure 1, box by box: input and output embedding, positional encoding, the encoder stack, the masked decoder stack that
looks at it, the linear map and the softmax (which the loss and the decoder apply).
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from zoo.data.batches.base import Seq2SeqBatch
from zoo.errors import UserError, check_choice
from zoo.models.base import Output, Readout, check_excluded
from zoo.nn.attention import Ancestry, Heads, KeyValue, with_room
from zoo.nn.attention_backends import BACKENDS
from zoo.nn.dropout import Dropout
from zoo.nn.layers import (
    ACTIVATIONS,
    NORMS,
    DecoderLayer,
    EncoderLayer,
    LayerConfig,
    Memory,
    StepView,
)
from zoo.nn.linear import Embedding
from zoo.nn.masks import Mask
from zoo.nn.norms import LayerNorm
from zoo.nn.placement import placed
from zoo.nn.positions import LAYOUTS, LearnedPositions, sinusoids
from zoo.nn.stacks import Stack

PAPER = "Vaswani et al. 2017"
POSITIONS = (*LAYOUTS, "learned")
TYING = ("none", "output", "all")


@dataclass(frozen=True)
class TransformerConfig:
    """`layers`, `ffn` and `heads` are those of each stack; `decoder_layers`, `decoder_ffn` and `decoder_heads` those of
    a decoder that differs (0: it doesn't). `tying` shares the output matrix with the target embedding (`output`:
    two-way) or with both embeddings (`all`: three-way, section 3.4; needs one vocabulary). `positions` is a layout of
    the sinusoids or `learned`; `max_length` bounds only learned ones. `embedding_scale` multiplies embeddings by √E.
    `output_bias` adds a learned bias to the logits; `excluded_rows` of the target vocabulary are never predicted."""

    source_vocabulary: int = 37_000
    target_vocabulary: int = 37_000
    layers: int = 6
    width: int = 512
    ffn: int = 2048
    heads: int = 8
    dropout: float = 0.1
    attention_dropout: float = 0.0
    ffn_dropout: float = 0.0
    norm: str = "post"
    activation: str = "relu"
    positions: str = "interleaved"
    tying: str = "all"
    max_length: int = 1024
    attention_bias: bool = False
    decoder_layers: int = 0
    decoder_ffn: int = 0
    decoder_heads: int = 0
    embedding_scale: bool = True
    output_bias: bool = False
    excluded_rows: tuple[int, ...] = ()
    attention_backend: str = "auto"
    scan_layers: bool = True
    remat: bool = False
    dtype: str = "float32"

    def __post_init__(self):
        for name, known in (
            ("norm", NORMS),
            ("activation", tuple(ACTIVATIONS)),
            ("positions", POSITIONS),
            ("tying", TYING),
            ("attention_backend", BACKENDS),
        ):
            check_choice(f"model.{name}", getattr(self, name), known)
        for name, heads in (("heads", self.heads), ("decoder_heads", self.decoder.heads)):
            if self.width % heads:
                raise UserError(f"model.{name}={heads} does not divide model.width={self.width}: choose a divisor")
        if self.width % 2:
            raise UserError(f"model.width={self.width} is odd: sinusoids come in pairs, choose an even width")
        if self.tying == "all" and self.source_vocabulary != self.target_vocabulary:
            raise UserError(
                f"model.tying='all' needs one vocabulary, not {self.source_vocabulary} source and "
                f"{self.target_vocabulary} target rows: set data.joint=True, or model.tying='output'"
            )

    @property
    def decoder(self) -> "Side":
        """The sizes of the decoder's stack."""
        return Side(self.decoder_layers or self.layers, self.decoder_ffn or self.ffn, self.decoder_heads or self.heads)


class Side(NamedTuple):
    """The sizes in which a decoder may differ from its encoder."""

    layers: int
    ffn: int
    heads: int


SIZES: dict[str, TransformerConfig] = {
    "tiny": TransformerConfig(layers=4, width=128, ffn=256, heads=4, dropout=0.3, scan_layers=False),
    "small": TransformerConfig(layers=3, width=256, ffn=1024, heads=4, scan_layers=False),
    "base": TransformerConfig(),
    "big": TransformerConfig(width=1024, ffn=4096, heads=16, dropout=0.3),
    # tensor2tensor's transformer_base since 1.3: norms first, sinusoids in halves, dropout in every place.
    "t2t_base": TransformerConfig(norm="pre", positions="halves", attention_dropout=0.1, ffn_dropout=0.1),
}


@struct.dataclass
class TransformerCache:
    """`past` and `source` hold every layer, as its stack does. Slot `t * K + k` of `past` is what hypothesis `k` wrote
    at step `t`."""

    past: KeyValue | tuple[KeyValue, ...]
    source: KeyValue | tuple[KeyValue, ...]
    source_seen: Bool[Array, "B S"]
    ancestry: Ancestry
    step: Int[Array, ""]


class Transformer(nn.Module):
    """Vaswani et al. 2017, Figure 1."""

    config: TransformerConfig

    def setup(self):
        c = self.config
        check_excluded(c.excluded_rows, c.target_vocabulary)  # the data decides how many rows there are
        dtype = jnp.dtype(c.dtype)
        embedding_init = nn.initializers.normal(c.width**-0.5)
        embedding = partial(Embedding, width=c.width, dtype=dtype, table_init=embedding_init)
        self.target_embedding = embedding(c.target_vocabulary)
        self.source_embedding = self.target_embedding if c.tying == "all" else embedding(c.source_vocabulary)
        if c.positions == "learned":
            self.learned_positions = LearnedPositions(c.max_length, c.width)
        self.embedding_dropout = Dropout(c.dropout)

        def layer(heads: int, ffn: int) -> LayerConfig:
            attention = Heads(c.width, heads, c.attention_bias, c.attention_dropout, c.attention_backend, dtype)
            same = {name: getattr(c, name) for name in ("norm", "activation", "dropout", "ffn_dropout")}
            return LayerConfig(attention, ffn, **same)

        depth = {"scan": c.scan_layers, "remat": c.remat}
        encoder, decoder = layer(c.heads, c.ffn), layer(c.decoder.heads, c.decoder.ffn)
        self.encoder = Stack(partial(EncoderLayer, config=encoder), c.layers, **depth)
        self.decoder = Stack(partial(DecoderLayer, config=decoder), c.decoder.layers, **depth)
        if c.norm == "pre":
            self.encoder_norm = LayerNorm(dtype)
            self.decoder_norm = LayerNorm(dtype)
        if c.tying == "none":
            init = nn.with_logical_partitioning(nn.initializers.xavier_uniform(), ("embed", "vocab"))
            self.output = self.param("output", init, (c.width, c.target_vocabulary))
        if c.output_bias:
            init = nn.with_logical_partitioning(nn.initializers.zeros_init(), ("vocab",))
            self.bias = self.param("output_bias", init, (c.target_vocabulary,))

    def __call__(self, batch: Seq2SeqBatch, train: bool = False, weights: bool = False) -> Output:
        memory, encoder_attention = self.encode(batch.source, train, weights)
        states, (own, cross) = self.decode(batch.inputs, memory, train, weights)
        attention = {"encoder": encoder_attention, "decoder": own, "cross": cross} if weights else None
        return Output(self.readout(states), attention)

    def encode(self, source: Int[ArrayLike, "B S"], train: bool = False, weights: bool = False):
        """The left half of Figure 1: the memory, and each layer's attention if asked for."""
        mask = Mask.padded(jnp.greater(source, 0))
        x = self._embed(self.source_embedding, source, jnp.arange(source.shape[1]), train)
        x, attention = self.encoder(x, mask, train, weights)
        if self.config.norm == "pre":
            x = self.encoder_norm(x)
        return Memory(x, mask), attention

    def decode(self, inputs: Int[ArrayLike, "B T"], memory: Memory, train: bool = False, weights: bool = False):
        """The right half of Figure 1 below its linear map, for a whole target."""
        x = self._embed(self.target_embedding, inputs, jnp.arange(inputs.shape[1]), train)
        # Padding follows all tokens, where causality hides it: the decoder needs no other mask.
        x, attention = self.decoder(x, (Mask(causal=True), memory), train, weights)
        return (self.decoder_norm(x) if self.config.norm == "pre" else x), attention

    def readout(self, states: Float[Array, "B T E"]) -> Readout:
        """The linear map at the top of Figure 1."""
        c = self.config
        options = {"dtype": jnp.dtype(c.dtype), "excluded": c.excluded_rows}
        bias = self.bias if c.output_bias else None
        if c.tying == "none":
            return Readout(states, self.output, bias, **options)
        return Readout(states, self.target_embedding.table, bias, contract=1, **options)

    def _embed(self, embedding: Embedding, tokens: ArrayLike, positions: Array, train: bool) -> Float[Array, "B T E"]:
        """Sections 3.4 and 3.5: embeddings scaled by √E, plus positions, then dropout (5.4)."""
        c = self.config
        x = embedding(tokens) * (c.width**0.5 if c.embedding_scale else 1.0)
        if c.positions == "learned":
            self._check_length(tokens.shape[1])
            x = x + self.learned_positions(positions)
        else:
            x = x + sinusoids(positions, c.width, c.positions)
        return self.embedding_dropout(placed(x.astype(jnp.dtype(c.dtype)), "batch", "length", None), train)

    def _check_length(self, length: int) -> None:
        c = self.config
        if c.positions == "learned" and length > c.max_length:
            raise UserError(
                f"a sequence of {length} positions is longer than the {c.max_length} that are learned: raise "
                "model.max_length, or lower data.max_length and decoding.max_length"
            )

    def prefill(self, source: Int[ArrayLike, "B S"], length: int, beams: int = 1) -> TransformerCache:
        """Encode, project the memory once for every layer, and make room for `length` steps of `beams` hypotheses."""
        c, batch = self.config, source.shape[0]
        self._check_length(length)
        memory, _ = self.encode(source)
        shape = (batch, c.decoder.heads, c.width // c.decoder.heads, length * beams)
        past = self.decoder.empty(KeyValue.empty(shape, jnp.dtype(c.dtype)))
        ancestry = Ancestry.empty(batch, beams, length)
        seen = memory.mask.keys(source.shape[1])
        return TransformerCache(past, self.decoder.remember(memory.states), seen, ancestry, jnp.int32(0))

    def decode_step(
        self, cache: TransformerCache, tokens: Int[ArrayLike, "B K"]
    ) -> tuple[TransformerCache, Float[Array, "B K V"], Float[Array, "B K S"]]:
        """The beams are the queries' axis: all hypotheses of a sentence look at one memory and one past, each through
        its own mask. The attention is the mean over heads of the layer before the last, which aligns best (Garg et al.
        2019)."""
        ancestry = cache.ancestry
        view = StepView(ancestry.slot, ancestry.marked()[:, None], cache.source_seen[:, None, None])
        x = self._embed(self.target_embedding, tokens, cache.step[None], False)
        x, (past, cross) = self.decoder.step(x, (cache.past, cache.source), view)
        if self.config.norm == "pre":
            x = self.decoder_norm(x)
        cache = replace(cache, past=past, ancestry=ancestry.stepped(), step=cache.step + 1)
        return cache, self.readout(x).logits(), cross[max(self.config.decoder.layers - 2, 0)].mean(axis=1)

    def grow(self, cache: TransformerCache, more: int) -> TransformerCache:
        _, beams, slots = cache.ancestry.marks.shape
        slots += more * beams
        self._check_length(slots // beams)
        return replace(cache, past=with_room(cache.past, slots), ancestry=cache.ancestry.grown(slots))

    def reorder(self, cache: TransformerCache, parents: Int[ArrayLike, "B K"]) -> TransformerCache:
        return replace(cache, ancestry=cache.ancestry.reordered(parents))
