"""Draw the next token from a model's prediction."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from zoo.errors import UserError

NEVER = -1e9  # the logit, or log-probability, of the impossible; finite, so that sums of it stay ordered
# Temperatures beyond these would draw as these do: always the most likely token, or all with equal probability.
COLDEST, HOTTEST = 0.001, 1000.0
HARSHEST = 1e6  # penalty for repetition; its inverse is the strongest reward


@dataclass(frozen=True)
class SamplingConfig:
    """The distribution to draw from.

    First, `repetition_penalty` makes tokens less likely that were used before (1: off; Keskar et al. 2019, section
    4.1). Then logits are divided by `temperature` (0: always the most likely). A token can be drawn only if it is among
    the `top_k` most likely (0: all; Fan et al. 2018), among the fewest that together have probability `top_p` (Holtzman
    et al. 2020), and at least `min_p` times as likely as the most likely one (Nguyen et al. 2024).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self):
        if self.temperature and not COLDEST <= self.temperature <= HOTTEST:
            raise UserError(
                f"temperature={self.temperature:g}: use 0 for the most likely, 1 for the model's own probabilities, or "
                f"another number from {COLDEST:g} to {HOTTEST:g}"
            )
        if self.top_k < 0:
            raise UserError(f"top_k={self.top_k} is below 0: use 0 for all tokens")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p={self.top_p:g}: a share of the probability lies in (0, 1]")
        if not 0 <= self.min_p <= 1:
            raise UserError(f"min_p={self.min_p:g}: a share of the highest probability lies in [0, 1]")
        if not 1 / HARSHEST <= self.repetition_penalty <= HARSHEST:
            raise UserError(
                f"repetition_penalty={self.repetition_penalty:g}: use a number from {1 / HARSHEST:g} to {HARSHEST:g}, "
                "1 for none"
            )


def penalized(logits: Float[Array, "*B V"], said: Bool[Array, "*B V"], penalty: float) -> Float[Array, "*B V"]:
    """The logits, with those of tokens that were `said` divided by `penalty` if positive, else multiplied by it."""
    return jnp.where(said, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)


def restricted(
    logits: Float[Array, "*B V"], config: SamplingConfig, may: Bool[Array, "*#B #V"] | None = None
) -> Float[Array, "*B V"]:
    """The logits to draw from: divided by the temperature, and minus infinity where `config` or `may` excludes a token.
    Of equally likely tokens, lower ids count as more likely, so exactly `top_k` remain.
    """
    # Tokens are excluded after the division: a high temperature would make any finite logit likely. The largest logit
    # is subtracted first, so that a low temperature cannot overflow.
    logits = _possible(logits, may)
    logits = (logits - logits.max(axis=-1, keepdims=True)) / (config.temperature or 1.0)
    if config.top_k == 0 and config.top_p == 1 and config.min_p == 0:
        return logits
    order = jnp.argsort(-logits, axis=-1, stable=True)
    probabilities = jax.nn.softmax(jnp.take_along_axis(logits, order, axis=-1), axis=-1)
    more_likely = jnp.cumsum(probabilities, axis=-1) - probabilities
    kept = (more_likely < config.top_p) & (probabilities >= config.min_p * probabilities[..., :1])
    if config.top_k:
        kept = kept & (jnp.arange(logits.shape[-1]) < config.top_k)
    kept = kept.at[..., 0].set(True)
    kept = jnp.take_along_axis(kept, jnp.argsort(order, axis=-1), axis=-1)
    return jnp.where(kept, logits, -jnp.inf)


def draw(
    keys: Array, logits: Float[Array, "*B V"], config: SamplingConfig, may: Bool[Array, "*#B #V"] | None = None
) -> Int[Array, "*B"]:
    """A token for each row among those that `may` come, drawn with the row's own key of `keys [*B]`, so that it is the
    same in any batch."""
    if config.temperature == 0:
        return jnp.argmax(_possible(logits, may), axis=-1).astype(jnp.int32)
    drawn = jnp.vectorize(jax.random.categorical, signature="(),(v)->()")(keys, restricted(logits, config, may))
    return drawn.astype(jnp.int32)


def _possible(logits: Float[Array, "*B V"], may: Bool[Array, "*#B #V"] | None) -> Float[Array, "*B V"]:
    return logits if may is None else jnp.where(may, logits, -jnp.inf)


def row_keys(seed: int, rows: Int[ArrayLike, "*B"]) -> Array:
    """A key for each row, from its number in the whole input."""
    fold = jnp.vectorize(jax.random.fold_in, signature="(),()->()")
    return fold(jax.random.key(seed), jnp.asarray(rows))
