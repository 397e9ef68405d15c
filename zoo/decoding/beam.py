"""Beam search for any model of the contract, in one jitted loop with static shapes.

A row ends when it has as many finished hypotheses as beams (as in fairseq): with one beam this is greedy search. Rows
never look at each other, so a batch gives what its rows give alone; the loop stops when the last row has ended.
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

from zoo.data.tokenizers import BOS, EOS, PAD
from zoo.errors import UserError, check_choice
from zoo.models.base import Decodable
from zoo.parallel.devices import COMPUTE_DTYPES

NEVER = -1e9  # the log-probability of what must not happen; finite, so that sums of it stay ordered


@dataclass(frozen=True)
class BeamConfig:
    """`length_penalty` is α of GNMT (Wu et al. 2016, eq. 14). A translation has at least `min_length` tokens before its
    EOS and at most `max_extra` more than its source, and never more than `max_length` (EOS not counted).

    The model computes in `compute_dtype`, whatever it was trained in: in bfloat16 a step of the search and a pass over
    the whole translation differ by more than rounding, and a score could not be had again by teacher forcing.
    """

    beam_size: int = 4
    length_penalty: float = 0.6
    max_extra: int = 50
    max_length: int = 256
    min_length: int = 0
    compute_dtype: str = "float32"

    def __post_init__(self):
        check_choice("decoding.compute_dtype", self.compute_dtype, COMPUTE_DTYPES)
        if self.beam_size < 1:
            raise UserError(f"decoding.beam_size={self.beam_size}: a beam has at least one hypothesis")
        if self.max_length < 1 or self.max_extra < 0 or not 0 <= self.min_length <= self.max_length:
            raise UserError(
                f"decoding.min_length={self.min_length}, max_length={self.max_length}, max_extra={self.max_extra}: "
                "need 0 <= min_length <= max_length, max_length >= 1 and max_extra >= 0"
            )


@struct.dataclass
class Hypotheses:
    """Finished translations, best first. `tokens` end with EOS and are padded; `scores` are length-normalized
    log-probabilities. `attention` is, for each target token (EOS too), where it looked in the source."""

    tokens: Int[Array, "B K T"]
    scores: Float[Array, "B K"]
    attention: Float[Array, "B K T S"] | None


@struct.dataclass
class _Search:
    cache: Any
    step: Int[Array, ""]
    alive: Hypotheses  # here, `scores` are plain sums of log-probabilities
    finished: Hypotheses
    count: Int[Array, "B"]


def normalizer(length: Int[ArrayLike, "*B"], alpha: float) -> Float[ArrayLike, "*B"]:
    """Wu et al. 2016, eq. 14: `((5 + |Y|) / 6)^α`, EOS counted in |Y|."""
    return ((5.0 + length) / 6.0) ** alpha


@partial(jax.jit, static_argnames=("model", "config", "keep_attention", "length"))
def beam_search(
    model: Decodable,
    params: Any,
    source: Int[Array, "B S"],
    config: BeamConfig,
    length: int,
    limits: Int[Array, "B"],
    keep_attention: bool = False,
) -> Hypotheses:
    """The `config.beam_size` best translations of each row.

    `length` bounds every row (and the memory); `limits[b] <= length - 1` bounds row `b`'s tokens before its EOS.
    """
    rows, beams = source.shape[0], config.beam_size
    apply = partial(model.apply, {"params": params})

    def blank(score):
        attention = jnp.zeros((rows, beams, length, source.shape[1]), jnp.float32) if keep_attention else None
        return Hypotheses(jnp.full((rows, beams, length), PAD, jnp.int32), score, attention)

    def unfinished(search: _Search) -> Bool[Array, ""]:
        return (search.step < length) & jnp.any(search.count < beams)

    def advance(search: _Search) -> _Search:
        step, alive = search.step, search.alive
        last = jnp.where(step == 0, BOS, alive.tokens[:, :, step - 1])
        cache, logits, attention = apply(search.cache, last, method="decode_step")
        log_probs = _allowed(jax.nn.log_softmax(logits), step, limits, config.min_length)
        scores, parents, tokens = _best(alive.scores[:, :, None] + log_probs, 2 * beams)

        candidates = _gather(alive, parents)
        candidates = candidates.replace(tokens=candidates.tokens.at[:, :, step].set(tokens), scores=scores)
        if keep_attention:
            looked = jnp.take_along_axis(attention, parents[:, :, None], axis=1)
            candidates = candidates.replace(attention=candidates.attention.at[:, :, step].set(looked))

        ended = tokens == EOS
        # Only an EOS among the best K ends a hypothesis; a row that has ended takes no more.
        ends = ended & (jnp.arange(2 * beams) < beams) & (scores > NEVER / 2) & (search.count < beams)[:, None]
        done = candidates.replace(scores=jnp.where(ends, scores / normalizer(step + 1, config.length_penalty), NEVER))
        finished = _top(_joined(search.finished, done), beams)
        _, order = lax.top_k(jnp.where(ended, 2 * NEVER, scores), beams)
        alive, parents = _gather(candidates, order), jnp.take_along_axis(parents, order, axis=1)
        cache = apply(cache, parents, method="reorder")
        return _Search(cache, step + 1, alive, finished, search.count + ends.sum(axis=1))

    # All hypotheses but the first start as impossible: the first step must not take one continuation K times.
    first = jnp.broadcast_to(jnp.where(jnp.arange(beams) == 0, 0.0, NEVER), (rows, beams))
    cache = apply(source, length, beams, method="prefill")
    nothing = jnp.full((rows, beams), NEVER, jnp.float32)
    start = _Search(cache, jnp.int32(0), blank(first), blank(nothing), jnp.zeros(rows, jnp.int32))
    return lax.while_loop(unfinished, advance, start).finished


def _allowed(
    log_probs: Float[Array, "B K V"], step: Int[Array, ""], limits: Int[Array, "B"], min_length: int
) -> Float[Array, "B K V"]:
    """Without padding and BOS; EOS not before the minimum length, and nothing else at a row's limit."""
    ids = jnp.arange(log_probs.shape[-1])
    never = (ids == PAD) | (ids == BOS) | ((ids == EOS) & (step < min_length))
    at_limit = (step >= limits)[:, None, None] & (ids != EOS)
    return jnp.where(never | at_limit, NEVER, log_probs)


def _best(
    scores: Float[Array, "B K V"], count: int
) -> tuple[Float[Array, "B C"], Int[Array, "B C"], Int[Array, "B C"]]:
    """The best continuations of all hypotheses together: their scores, parents and tokens.

    In two stages: the best of every hypothesis first, so that the whole vocabulary is passed over once.
    """
    rows, _, vocabulary = scores.shape
    within = min(count, vocabulary)
    each, tokens = lax.top_k(scores, within)
    each, tokens = each.reshape(rows, -1), tokens.reshape(rows, -1)
    best, index = lax.top_k(each, count)
    return best, (index // within).astype(jnp.int32), jnp.take_along_axis(tokens, index, axis=1).astype(jnp.int32)


def _gather(hypotheses: Hypotheses, index: Int[Array, "B C"]) -> Hypotheses:
    def pick(leaf):
        return jnp.take_along_axis(leaf, index.reshape(index.shape + (1,) * (leaf.ndim - 2)), axis=1)

    return jax.tree.map(pick, hypotheses)


def _joined(one: Hypotheses, other: Hypotheses) -> Hypotheses:
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), one, other)


def _top(hypotheses: Hypotheses, count: int) -> Hypotheses:
    return _gather(hypotheses, lax.top_k(hypotheses.scores, count)[1])
