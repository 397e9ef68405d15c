"""GPT: Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training", and its successors' sizes.

Figure 1 (left), from below: text and position embedding, twelve layers of masked self-attention and feed-forward, and
the text prediction, whose matrix is the text embedding again. GPT-2 (Radford et al. 2019, section 2.3) moves the norms
before the sublayers, adds one after the last layer, and lets the maps that end on the residual begin smaller. GPT-3
(Brown et al. 2020, table 2.1) is larger; its sparse layers are dense here, since the paper does not give their pattern.
"""

from dataclasses import dataclass, replace
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from zoo.data.batches.base import LanguageBatch
from zoo.errors import UserError, check_choice
from zoo.models.base import Output, Readout, check_excluded
from zoo.nn.attention import Ancestry, Heads, KeyValue, with_room
from zoo.nn.attention_backends import BACKENDS
from zoo.nn.dropout import Dropout
from zoo.nn.layers import ACTIVATIONS, NORMS, EncoderLayer, LayerConfig, StepView
from zoo.nn.linear import Embedding
from zoo.nn.masks import Mask
from zoo.nn.norms import LayerNorm
from zoo.nn.placement import placed
from zoo.nn.positions import LearnedPositions
from zoo.nn.stacks import Stack

PAPER = "Radford et al. 2018"
STD = 0.02  # section 4.1: weights begin as N(0, 0.02²), biases as 0
RESIDUAL_INITS = ("plain", "scaled")


@dataclass(frozen=True)
class GPTConfig:
    """`max_length` counts the learned positions. `head_size` is `width / heads` unless it is given. `residual_init` is
    `plain` (GPT-1) or `scaled` by 1/√N for the N = 2 · layers sublayers that end on the residual (GPT-2).
    `excluded_rows` of the vocabulary are never predicted."""

    vocabulary: int = 40_478
    layers: int = 12
    width: int = 768
    ffn: int = 3072
    heads: int = 12
    head_size: int = 0
    max_length: int = 512
    dropout: float = 0.1
    attention_dropout: float = 0.1
    norm: str = "post"
    activation: str = "gelu_tanh"
    residual_init: str = "plain"
    excluded_rows: tuple[int, ...] = ()
    attention_backend: str = "auto"
    scan_layers: bool = True
    remat: bool = False
    dtype: str = "float32"

    def __post_init__(self):
        for name, known in (
            ("norm", NORMS),
            ("activation", tuple(ACTIVATIONS)),
            ("residual_init", RESIDUAL_INITS),
            ("attention_backend", BACKENDS),
        ):
            check_choice(f"model.{name}", getattr(self, name), known)
        if not self.head_size and self.width % self.heads:
            raise UserError(
                f"model.heads={self.heads} does not divide model.width={self.width}: choose a divisor, or set "
                "model.head_size"
            )


def _gpt2(layers: int, width: int, heads: int, **changes) -> GPTConfig:
    shape = {"layers": layers, "width": width, "ffn": 4 * width, "heads": heads}
    second = {"vocabulary": 50_257, "max_length": 1024, "norm": "pre", "residual_init": "scaled"}
    return GPTConfig(**(shape | second | changes))


# Brown et al. 2020 name no dropout.
_gpt3 = partial(_gpt2, max_length=2048, dropout=0.0, attention_dropout=0.0)

SIZES: dict[str, GPTConfig] = {
    "nano": _gpt2(4, 128, 4, vocabulary=260, max_length=64, dropout=0.0, attention_dropout=0.0, scan_layers=False),
    "gpt1": GPTConfig(),
    # Radford et al. 2019, table 2; heads of 64 and GPT-1's dropout are those of the released configs.
    "gpt2_124m": _gpt2(12, 768, 12),
    "gpt2_355m": _gpt2(24, 1024, 16),
    "gpt2_774m": _gpt2(36, 1280, 20),
    "gpt2_1558m": _gpt2(48, 1600, 25),
    # Brown et al. 2020, table 2.1. Its 24 heads of 128 for 1.3B give neither the width 2048 nor 1.3 billion; 16 do.
    # The 40 heads of 128 for 13B are together narrower than its width.
    "gpt3_125m": _gpt3(12, 768, 12),
    "gpt3_350m": _gpt3(24, 1024, 16),
    "gpt3_760m": _gpt3(24, 1536, 16),
    "gpt3_1.3b": _gpt3(24, 2048, 16),
    "gpt3_2.7b": _gpt3(32, 2560, 32),
    "gpt3_6.7b": _gpt3(32, 4096, 32),
    "gpt3_13b": _gpt3(40, 5140, 40, head_size=128),
    "gpt3_175b": _gpt3(96, 12288, 96),
}
PAPERS = {
    **{size: "Radford et al. 2019" for size in SIZES if size.startswith("gpt2")},
    **{size: "Brown et al. 2020" for size in SIZES if size.startswith("gpt3")},
}


@struct.dataclass
class GPTCache:
    """`past` holds every layer, as its stack does: the prompt's `S` positions first, then `K` slots for each step.
    `position` is that of the next token, which prompts of different length do not share."""

    past: KeyValue | tuple[KeyValue, ...]
    ancestry: Ancestry
    position: Int[Array, "B"]


class GPT(nn.Module):
    """Radford et al. 2018, Figure 1 (left), with its text prediction."""

    config: GPTConfig

    def setup(self):
        c = self.config
        check_excluded(c.excluded_rows, c.vocabulary)
        dtype, init = jnp.dtype(c.dtype), nn.initializers.normal(STD)
        self.embedding = Embedding(c.vocabulary, c.width, dtype, init)
        self.positions = LearnedPositions(c.max_length, c.width, init)
        self.embedding_dropout = Dropout(c.dropout)
        last = nn.initializers.normal(STD * (2 * c.layers) ** -0.5) if c.residual_init == "scaled" else init
        self.heads = Heads(
            width=c.width,
            heads=c.heads,
            head_size=c.head_size or None,
            bias=True,
            dropout=c.attention_dropout,
            backend=c.attention_backend,
            dtype=dtype,
            kernel_init=init,
            residual_init=last,
        )
        layer = LayerConfig(self.heads, c.ffn, c.norm, c.activation, c.dropout, kernel_init=init)
        self.decoder = Stack(partial(EncoderLayer, config=layer), length=c.layers, scan=c.scan_layers, remat=c.remat)
        if c.norm == "pre":
            self.decoder_norm = LayerNorm(dtype)

    def __call__(self, batch: LanguageBatch, train: bool = False, weights: bool = False) -> Output:
        """Every position predicts its label from the tokens before it in its own segment, and itself."""
        positions = batch.positions if batch.positions is not None else jnp.arange(batch.inputs.shape[1])
        x = self._embed(batch.inputs, positions, train)
        segments = None if batch.segments is None else jnp.asarray(batch.segments)
        x, attention = self.decoder(x, Mask(segments=segments, causal=True), train, weights)
        return Output(self._readout(x), {"decoder": attention} if weights else None)

    def _embed(self, tokens: ArrayLike, positions: ArrayLike, train: bool) -> Float[Array, "B T E"]:
        """Eq. 2: h_0 = U W_e + W_p."""
        self._check_length(tokens.shape[1])
        x = self.embedding(tokens) + self.positions(jnp.asarray(positions))
        return self.embedding_dropout(placed(x.astype(jnp.dtype(self.config.dtype)), "batch", "length", None), train)

    def _readout(self, x: Float[Array, "B T E"]) -> Readout:
        """Eq. 2: P(u) = softmax(h_n W_eᵀ), below its softmax."""
        states = self.decoder_norm(x) if self.config.norm == "pre" else x
        c = self.config
        return Readout(states, self.embedding.table, contract=1, dtype=jnp.dtype(c.dtype), excluded=c.excluded_rows)

    def _check_length(self, length: int) -> None:
        if length > self.config.max_length:
            raise UserError(
                f"a text of {length} positions is longer than the {self.config.max_length} that are learned: raise "
                "model.max_length, or shorten the text"
            )

    def prefill(self, source: Int[ArrayLike, "B S"], length: int, beams: int = 1) -> GPTCache:
        """Run the prompts, and make room for `length` more tokens of `beams` continuations each.

        Prompts of different lengths are filled with `NOTHING`, which changes no result. The last token of a prompt is
        not part of `source`: it is the input of the first `decode_step`.
        """
        c, (rows, prompt_length) = self.config, source.shape
        self._check_length(prompt_length + length)
        is_token = jnp.asarray(source) >= 0
        shape = (rows, c.heads, self.heads.size, prompt_length)
        prompt = self.decoder.empty(KeyValue.empty(shape, jnp.dtype(c.dtype)))
        # Causality hides the filling after a prompt's tokens, and later steps do not mark it as visible.
        seen = Mask(causal=True).dense(prompt_length, prompt_length)
        x = self._embed(jnp.maximum(source, 0), jnp.arange(prompt_length), False)
        _, (prompt, _) = self.decoder.step(x, (prompt,), StepView(0, seen))
        ancestry = Ancestry.after(is_token, beams, length)
        past = with_room(prompt, ancestry.marks.shape[2])
        return GPTCache(past, ancestry, is_token.sum(axis=1, dtype=jnp.int32))

    def decode_step(
        self, cache: GPTCache, tokens: Int[ArrayLike, "B K"]
    ) -> tuple[GPTCache, Float[Array, "B K V"], Float[Array, "B K slots"]]:
        """One more token for every continuation: the logits of the next, and the attention.

        The attention is the last layer's, the mean over its heads; the first slots are the prompt's. A row's sums to 1
        over all of them.
        """
        ancestry = cache.ancestry
        x = self._embed(tokens, cache.position[:, None], False)
        x, (past, looked) = self.decoder.step(x, (cache.past,), StepView(ancestry.slot, ancestry.marked()[:, None]))
        cache = GPTCache(past, ancestry.stepped(), cache.position + 1)
        return cache, self._readout(x).logits(), looked[-1].mean(axis=1)

    def grow(self, cache: GPTCache, more: int) -> GPTCache:
        _, beams, slots = cache.ancestry.marks.shape
        slots += more * beams
        return replace(cache, past=with_room(cache.past, slots), ancestry=cache.ancestry.grown(slots))

    def reorder(self, cache: GPTCache, parents: Int[ArrayLike, "B K"]) -> GPTCache:
        return replace(cache, ancestry=cache.ancestry.reordered(parents))
