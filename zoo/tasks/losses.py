"""Losses as sums over tokens, never means: exact under accumulation, packing and sharding."""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int


@struct.dataclass
class Sums:
    """What a batch adds up to: the `objective` that is minimized, the cross-entropy `loss` in nats, tokens predicted
    right, and the number of tokens, by which all others are divided at the end."""

    objective: Float[Array, ""]
    loss: Float[Array, ""]
    correct: Float[Array, ""]
    tokens: Float[Array, ""]

    def __add__(self, other: "Sums") -> "Sums":
        return jax.tree.map(jnp.add, self, other)

    def means(self) -> dict[str, float]:
        """Loss in nats a token, its perplexity, and accuracy."""
        tokens = max(float(self.tokens), 1.0)
        loss = float(self.loss) / tokens
        return {"loss": loss, "perplexity": float(jnp.exp(loss)), "accuracy": float(self.correct) / tokens}


def cross_entropy(
    logits: Float[Array, "B T V"], labels: Int[Array, "B T"], smoothing: float = 0.0, padding: int = 0
) -> Sums:
    """Cross-entropy over the labels that are not `padding`.

    With `smoothing` ε the objective's target is `1 - ε` at the label plus `ε / V` everywhere (Szegedy et al. 2016,
    section 7; Vaswani et al. 2017, section 5.4); the `loss` that is reported has none.
    """
    real = (labels != padding).astype(jnp.float32)
    log_normalizer = jax.nn.logsumexp(logits, axis=-1)
    of_label = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    loss = log_normalizer - of_label
    objective = (1 - smoothing) * loss + smoothing * (log_normalizer - logits.mean(axis=-1))
    correct = jnp.argmax(logits, axis=-1) == labels
    return Sums(*((x * real).sum() for x in (objective, loss, correct)), tokens=real.sum())
