"""Beam search for any model of the contract, in jitted loops with static shapes.

A row stops once it has `beam_size` finished hypotheses (as in fairseq), or none that can continue; with one beam this
is greedy search. A row without source tokens only fills the batch, and has stopped from the start. Rows are
independent, so a batch gives what its rows give alone. The search ends when all rows have stopped.

The search runs in stages, each a loop with twice the room of the one before. Attention costs as much as there is room,
and most translations end before the room for the longest is needed.
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

from zoo.data.specials import BOS, EOS, PAD, UNK
from zoo.decoding.sampling import NEVER
from zoo.errors import UserError, check_choice
from zoo.models.base import Decodable
from zoo.nn.quantization import QUANTIZATIONS
from zoo.parallel.devices import COMPUTE_DTYPES

NORMALIZATIONS = {"gnmt": lambda length: (5.0 + length) / 6.0, "power": lambda length: 1.0 * length}
SHORTEST_STAGE = 24  # steps of the first stage, at most
BLOCK = 128  # tokens of the vocabulary in one block of the two-stage top-k
UNSEEN = 1e-6  # the least attention that a source token counts as having had, so that its logarithm is finite


@dataclass(frozen=True)
class BeamConfig:
    """`length_penalty` and `coverage_penalty` are α and β of GNMT (Wu et al. 2016, eq. 14); the latter needs a model
    with attention. `normalization` is GNMT's `((5 + |Y|) / 6)^α` (`gnmt`) or `|Y|^α` (`power`: fairseq, Hugging Face).
    A translation has at least `min_length` tokens, at most `max_extra` more than its source, and at most `max_length`,
    without EOS. `forbid_unknown` forbids <unk>.

    The model computes in `compute_dtype`, whatever it was trained in. In bfloat16, single steps and a pass over the
    whole translation differ by more than rounding, so teacher forcing would not reproduce a score. With
    `quantize="int8"` matrices are rounded to 8 bits when a trained model is loaded.
    """

    beam_size: int = 4
    length_penalty: float = 0.6
    coverage_penalty: float = 0.0
    normalization: str = "gnmt"
    max_extra: int = 50
    max_length: int = 256
    min_length: int = 0
    forbid_unknown: bool = False
    compute_dtype: str = "float32"
    quantize: str = "none"

    def __post_init__(self):
        check_choice("decoding.compute_dtype", self.compute_dtype, COMPUTE_DTYPES)
        check_choice("decoding.quantize", self.quantize, QUANTIZATIONS)
        check_choice("decoding.normalization", self.normalization, NORMALIZATIONS)
        if self.beam_size < 1:
            raise UserError(f"decoding.beam_size={self.beam_size}: must be at least 1")
        if self.coverage_penalty < 0:
            raise UserError(f"decoding.coverage_penalty={self.coverage_penalty:g} is below 0: use 0 for none")
        if self.max_length < 1 or self.max_extra < 0 or not 0 <= self.min_length <= self.max_length:
            raise UserError(
                f"decoding.min_length={self.min_length}, max_length={self.max_length}, max_extra={self.max_extra}: "
                "need 0 <= min_length <= max_length, max_length >= 1 and max_extra >= 0"
            )


@struct.dataclass
class Request:
    """What to translate: sources that end with EOS, padded.

    `length` bounds every row (and the memory); `limits[b] <= length - 1` bounds row `b`'s tokens before its EOS. Every
    translation of row `b` begins with `prefix[b]`, padded, whatever else is forbidden; it must be within the limit.
    """

    source: Int[Array, "B S"]
    limits: Int[Array, "B"]
    length: int = struct.field(pytree_node=False)
    prefix: Int[Array, "B T"] | None = None


@struct.dataclass
class Hypotheses:
    """Finished translations, best first. `tokens` end with EOS and are padded; `scores` are length-normalized
    log-probabilities, with the coverage penalty. `attention` holds the weights of each target token (also EOS) on the
    source; `coverage` is their sum over the target tokens."""

    tokens: Int[Array, "B K T"]
    scores: Float[Array, "B K"]
    attention: Float[Array, "B K T S"] | None = None
    coverage: Float[Array, "B K S"] | None = None

    @classmethod
    def blank(cls, scores: Float[Array, "B K"], request: Request, config: BeamConfig, keep_attention: bool):
        """Empty hypotheses, with room for their tokens and what else is kept."""
        rows, sources = scores.shape, request.source.shape[1]
        attention = jnp.zeros((*rows, request.length, sources)) if keep_attention else None
        coverage = jnp.zeros((*rows, sources)) if config.coverage_penalty else None
        return cls(jnp.full((*rows, request.length), PAD, jnp.int32), scores, attention, coverage)

    def extended(
        self,
        step: Int[Array, ""],
        tokens: Int[Array, "B K"],
        scores: Float[Array, "B K"],
        looked: Float[Array, "B K S"],
    ) -> "Hypotheses":
        """The hypotheses with `tokens` at `step`, and their attention."""
        attention = None if self.attention is None else self.attention.at[:, :, step].set(looked)
        coverage = None if self.coverage is None else self.coverage + looked
        return Hypotheses(self.tokens.at[:, :, step].set(tokens), scores, attention, coverage)

    def finished(self, length: Int[Array, "*N"], source: Int[Array, "B S"], config: BeamConfig) -> "Hypotheses":
        """The hypotheses with `final_score` instead of the sums of log-probabilities; `length` includes EOS."""
        return self.replace(scores=final_score(self.scores, length, self.coverage, source, config))

    def best(self, count: int) -> "Hypotheses":
        return gathered(self, lax.top_k(self.scores, count)[1])


@struct.dataclass
class _Search:
    cache: Any
    step: Int[Array, ""]
    alive: Hypotheses  # here, `scores` are plain sums of log-probabilities
    finished: Hypotheses
    count: Int[Array, "B"]

    @property
    def going(self) -> Bool[Array, "B"]:
        """Whether a row needs more hypotheses and has some that can continue."""
        return (self.count < self.alive.scores.shape[1]) & jnp.any(self.alive.scores > NEVER / 2, axis=1)


def final_score(
    log_probability: Float[ArrayLike, "B K"],
    length: Int[ArrayLike, "*N"],
    coverage: Float[ArrayLike, "B K S"] | None,
    source: Int[ArrayLike, "B S"],
    config: BeamConfig,
) -> Float[Array, "B K"]:
    """The score by which translations are compared (Wu et al. 2016, eq. 14), the same in search, drawing and scoring.
    `length` includes EOS and broadcasts to the rows; `coverage` is the attention to each source token, summed over the
    target, and is used only with a coverage penalty.
    """
    scores = log_probability / normalizer(length, config)
    if config.coverage_penalty:
        scores = scores + config.coverage_penalty * covered(coverage, source)
    return scores


def normalizer(length: Int[ArrayLike, "*B"], config: BeamConfig) -> Float[ArrayLike, "*B"]:
    """The divisor of a sum of log-probabilities; the length includes EOS."""
    return NORMALIZATIONS[config.normalization](length) ** config.length_penalty


def covered(coverage: Float[Array, "B K S"], source: Int[Array, "B S"]) -> Float[Array, "B K"]:
    """Wu et al. 2016, eq. 14: `Σ_i log min(Σ_j p_ij, 1)` over the tokens of the source, EOS and padding left out."""
    is_text = ((source != PAD) & (source != EOS))[:, None]
    return jnp.sum(jnp.log(jnp.clip(coverage, UNSEEN, 1.0)), axis=-1, where=is_text)


def allowed(request: Request, step: Int[Array, ""], vocabulary: int, config: BeamConfig) -> Bool[Array, "B 1 V"]:
    """The tokens that are allowed at `step`: never padding or BOS, and EOS only from the minimum length on. At a row's
    limit only EOS is allowed, and where the prefix has a token, only that."""
    ids = jnp.arange(vocabulary)
    never = (ids == PAD) | (ids == BOS) | ((ids == EOS) & (step < config.min_length))
    if config.forbid_unknown:
        never |= ids == UNK
    may = jnp.where((step >= request.limits)[:, None, None], ids == EOS, ~never)
    if request.prefix is None:
        return may
    forced = request.prefix[:, step][:, None, None]
    return jnp.where(forced == PAD, may, ids == forced)


def beam_search(
    model: Decodable, params: Any, request: Request, config: BeamConfig, keep_attention: bool = False
) -> Hypotheses:
    """The `config.beam_size` best translations of each row."""
    search, before = None, 0
    for room in stages(request.length):
        search = _searched(model, params, request, config, keep_attention, search, before, room)
        if room == request.length or not search.going.any():
            break
        before = room
    return search.finished


def stages(length: int) -> list[int]:
    """The number of steps of each stage: each is half of the next, and the last is `length`."""
    found = [length]
    while found[0] > SHORTEST_STAGE:
        found.insert(0, -(-found[0] // 2))
    return found


@partial(jax.jit, static_argnames=("model", "config", "keep_attention", "before", "room"))
def _searched(
    model: Decodable,
    params: Any,
    request: Request,
    config: BeamConfig,
    keep_attention: bool,
    search: _Search | None,
    before: int,
    room: int,
) -> _Search:
    """The search after at most `room` steps: from the start, or from `search`, which has taken `before` steps."""
    beams, source = config.beam_size, request.source
    apply = partial(model.apply, {"params": params})

    def unfinished(search: _Search) -> Bool[Array, ""]:
        return (search.step < room) & jnp.any(search.going)

    def advance(search: _Search) -> _Search:
        step, alive = search.step, search.alive
        last = jnp.where(step == 0, BOS, alive.tokens[:, :, step - 1])
        cache, logits, attention = apply(search.cache, last, method="decode_step")
        may = allowed(request, step, logits.shape[-1], config)
        scores, parents, tokens = _continued(alive.scores, logits, may, 2 * beams)
        looked = jnp.take_along_axis(attention, parents[:, :, None], axis=1)
        candidates = gathered(alive, parents).extended(step, tokens, scores, looked)

        ended = tokens == EOS
        # Only an EOS among the best K ends a hypothesis; a row that has stopped takes no more.
        ends = ended & (jnp.arange(2 * beams) < beams) & (scores > NEVER / 2) & search.going[:, None]
        done = candidates.finished(step + 1, source, config)
        done = done.replace(scores=jnp.where(ends, done.scores, NEVER))
        finished = _joined(search.finished, done).best(beams)
        _, order = lax.top_k(jnp.where(ended, -jnp.inf, scores), beams)
        alive, parents = gathered(candidates, order), jnp.take_along_axis(parents, order, axis=1)
        cache = apply(cache, parents, method="reorder")
        return _Search(cache, step + 1, alive, finished, search.count + ends.sum(axis=1))

    if search is None:
        begun = _begun(request, config, keep_attention, apply(source, room, beams, method="prefill"))
    else:
        begun = search.replace(cache=apply(search.cache, room - before, method="grow"))
    return lax.while_loop(unfinished, advance, begun)


def _begun(request: Request, config: BeamConfig, keep_attention: bool, cache: Any) -> _Search:
    """The search before its first step."""
    rows, beams = request.source.shape[0], config.beam_size
    # All hypotheses but the first start with the score of the impossible, or the first step would take one continuation
    # K times.
    possible = (jnp.arange(beams) == 0) & jnp.any(request.source != PAD, axis=1, keepdims=True)
    first = jnp.where(possible, 0.0, NEVER)
    nothing = jnp.full((rows, beams), NEVER, jnp.float32)
    alive, finished = (Hypotheses.blank(scores, request, config, keep_attention) for scores in (first, nothing))
    return _Search(cache, jnp.int32(0), alive, finished, jnp.zeros(rows, jnp.int32))


def _continued(
    scores: Float[Array, "B K"], logits: Float[Array, "B K V"], may: Bool[Array, "B 1 V"], count: int
) -> tuple[Float[Array, "B C"], Int[Array, "B C"], Int[Array, "B C"]]:
    """The best continuations over all hypotheses: their scores, parents and tokens."""
    rows, within = len(scores), min(count, logits.shape[-1])
    each, tokens = best_tokens(logits, may, within)
    log_probs = jnp.where(each > NEVER / 2, each - jax.nn.logsumexp(logits, axis=-1, keepdims=True), NEVER)
    best, index = lax.top_k((scores[:, :, None] + log_probs).reshape(rows, -1), count)
    return best, (index // within).astype(jnp.int32), jnp.take_along_axis(tokens.reshape(rows, -1), index, axis=1)


def best_tokens(
    logits: Float[Array, "B K V"], may: Bool[Array, "B 1 V"], count: int
) -> tuple[Float[Array, "B K C"], Int[Array, "B K C"]]:
    """The `count` highest logits of every hypothesis among the tokens that `may` come, and those tokens; of equal
    logits the first. If fewer may come, the rest have the logit `NEVER`.

    `lax.top_k` is slow over a long axis. So it is applied to the maxima of blocks first, and then only to the `count`
    blocks with the highest: for a token in any other block, `count` tokens are better.
    """
    vocabulary = logits.shape[-1]
    blocks = -(-vocabulary // BLOCK)
    masked = jnp.where(may, logits, NEVER)
    if blocks <= count:
        best, tokens = lax.top_k(masked, count)
        return best, tokens
    filled = jnp.pad(masked, ((0, 0), (0, 0), (0, blocks * BLOCK - vocabulary)), constant_values=-jnp.inf)
    _, chosen = lax.top_k(filled.reshape(*logits.shape[:2], blocks, BLOCK).max(axis=-1), count)
    # In the order of the vocabulary, so that the first of equal logits stays the first.
    tokens = (jnp.sort(chosen)[..., None] * BLOCK + jnp.arange(BLOCK)).reshape(*logits.shape[:2], -1)
    real = jnp.minimum(tokens, vocabulary - 1)
    allowed_here = jnp.take_along_axis(may, real.reshape(len(may), 1, -1), axis=2).reshape(tokens.shape)
    values = jnp.where(allowed_here, jnp.take_along_axis(logits, real, axis=2), NEVER)
    best, index = lax.top_k(jnp.where(tokens < vocabulary, values, -jnp.inf), count)
    return best, jnp.take_along_axis(tokens, index, axis=2)


def gathered(hypotheses: Hypotheses, index: Int[Array, "B C"]) -> Hypotheses:
    """The entries of each row at `index`."""

    def pick(leaf):
        return jnp.take_along_axis(leaf, index.reshape(index.shape + (1,) * (leaf.ndim - 2)), axis=1)

    return jax.tree.map(pick, hypotheses)


def _joined(one: Hypotheses, other: Hypotheses) -> Hypotheses:
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), one, other)
