"""Drawing the next token from what a model predicts, for every model of the zoo."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from zoo.errors import UserError

NEVER = -1e9  # the logit, or log-probability, of what must not happen; finite, so that sums of it stay ordered
# Temperatures beyond these draw as these do, from the most likely token alone or from all alike.
COLDEST, HOTTEST = 0.001, 1000.0
HARSHEST = 1e6  # penalty for repetition; its inverse is the strongest reward


@dataclass(frozen=True)
class SamplingConfig:
    """Which tokens may be drawn, and how evenly.

    Logits are divided by `temperature` (0: always the most likely). Then only those may be drawn that are among the
    `top_k` most likely (0: all; Fan et al. 2018), among the fewest that hold `top_p` of the probability (Holtzman et
    al. 2020), and at least `min_p` times as likely as the most likely one (Nguyen et al. 2024). Before all this,
    `repetition_penalty` makes what was said before less likely (1: not; Keskar et al. 2019, section 4.1).
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
    """With the logits of what was `said` divided by `penalty` where they are positive, multiplied where not."""
    return jnp.where(said, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)


def restricted(
    logits: Float[Array, "*B V"], config: SamplingConfig, may: Bool[Array, "*#B #V"] | None = None
) -> Float[Array, "*B V"]:
    """The logits that are drawn from: at the temperature, and minus infinity for what `config` or `may` rules out.

    Of equally likely tokens those with the lower ids count as more likely, so exactly `top_k` remain.
    """
    # What may not come is left out after the division: a high temperature would make any finite logit likely. From the
    # largest down, a low one cannot leave the range of the numbers.
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
    """A token for each row by its own key of `keys [*B]`, so that a row draws the same in any batch; only one of those
    that `may` come."""
    if config.temperature == 0:
        return jnp.argmax(_possible(logits, may), axis=-1).astype(jnp.int32)
    drawn = jnp.vectorize(jax.random.categorical, signature="(),(v)->()")(keys, restricted(logits, config, may))
    return drawn.astype(jnp.int32)


def _possible(logits: Float[Array, "*B V"], may: Bool[Array, "*#B #V"] | None) -> Float[Array, "*B V"]:
    return logits if may is None else jnp.where(may, logits, -jnp.inf)


def row_keys(seed: int, rows: Int[ArrayLike, "*B"]) -> Array:
    """A key for each row by its number in the whole input."""
    fold = jnp.vectorize(jax.random.fold_in, signature="(),()->()")
    return fold(jax.random.key(seed), jnp.asarray(rows))
