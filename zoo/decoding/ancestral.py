"""Ancestral sampling of translations from any model of the contract, in one jitted loop with static shapes.

Requests, allowed tokens and scores are those of beam search. Rows are independent, and each draw has its own key, so a
batch gives what its rows give alone.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from zoo.data.specials import BOS, EOS, PAD
from zoo.decoding.beam import BeamConfig, Hypotheses, Request, allowed
from zoo.decoding.sampling import SamplingConfig, draw, penalized, row_keys
from zoo.models.base import Decodable


@dataclass(frozen=True)
class Draws:
    """Draw `count` translations for each line; the seed, the line's number and the draw's number decide each of
    them."""

    sampling: SamplingConfig
    count: int = 1
    seed: int = 0

    def keys(self, lines: Int[ArrayLike, "B"]) -> Array:
        """`[B, count]` keys for the lines with these numbers in the whole input."""
        rows = row_keys(self.seed, lines)
        return _folded(rows[:, None], jnp.arange(self.count))


_folded = jnp.vectorize(jax.random.fold_in, signature="(),()->()")


@struct.dataclass
class _Drawing:
    cache: Any
    step: Int[Array, ""]
    drawn: Hypotheses  # here, `scores` are plain sums of log-probabilities
    ended: Bool[Array, "B K"]


@partial(jax.jit, static_argnames=("model", "config", "sampling", "keep_attention"))
def sample(
    model: Decodable,
    params: Any,
    request: Request,
    keys: Array,
    config: BeamConfig,
    sampling: SamplingConfig,
    keep_attention: bool = False,
) -> Hypotheses:
    """A translation of row `b` for each of `keys [B, K]`, best first, with repetitions. Scores are those of beam
    search, under the model itself, not under the truncated distribution of `sampling`. Everything in `config` but
    `beam_size` applies.
    """
    rows, count = keys.shape
    apply = partial(model.apply, {"params": params})

    def unfinished(state: _Drawing) -> Bool[Array, ""]:
        return (state.step < request.length) & ~jnp.all(state.ended)

    def advance(state: _Drawing) -> _Drawing:
        step, drawn, ended = state.step, state.drawn, state.ended
        last = jnp.where(step == 0, BOS, drawn.tokens[:, :, step - 1])
        cache, logits, looked = apply(state.cache, last, method="decode_step")
        may = allowed(request, step, logits.shape[-1], config)
        scaled = _repeated_less(logits, drawn.tokens, sampling.repetition_penalty)
        tokens = draw(_folded(keys, step), scaled, sampling, may)
        gained = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[:, :, None], axis=-1)[:, :, 0]
        scores = drawn.scores + jnp.where(ended, 0.0, gained)
        looked = jnp.where(ended[:, :, None], 0.0, looked)
        drawn = drawn.extended(step, jnp.where(ended, PAD, tokens), scores, looked)
        return _Drawing(cache, step + 1, drawn, ended | (tokens == EOS))

    cache = apply(request.source, request.length, count, method="prefill")
    nothing = Hypotheses.blank(jnp.zeros((rows, count)), request, config, keep_attention)
    empty = jnp.all(request.source == PAD, axis=1, keepdims=True)  # rows that only fill the batch up
    start = _Drawing(cache, jnp.int32(0), nothing, jnp.broadcast_to(empty, (rows, count)))
    drawn = lax.while_loop(unfinished, advance, start).drawn
    return drawn.finished((drawn.tokens != PAD).sum(axis=-1), request.source, config).best(count)


def _repeated_less(logits: Float[Array, "B K V"], tokens: Int[Array, "B K T"], penalty: float) -> Float[Array, "B K V"]:
    """The logits with the repetition penalty for `tokens`."""
    if penalty == 1:
        return logits
    row, draws = jnp.ogrid[: tokens.shape[0], : tokens.shape[1]]
    said = jnp.zeros(logits.shape, bool).at[row[:, :, None], draws[:, :, None], tokens].set(True)
    return penalized(logits, said, penalty)
