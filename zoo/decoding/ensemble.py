"""Several models as one, for beam search and sampling alike."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from zoo.models.base import Cache


class Ensemble(nn.Module):
    """A model whose probabilities, and attention, are the means of its members'.

    Members may be of any families, with the same vocabularies. It is `Decodable` as they are (Sutskever et al. 2014,
    section 3.6, decodes with an ensemble of five).
    """

    members: tuple[nn.Module, ...]

    @classmethod
    def of(cls, members: Sequence[nn.Module], params: Sequence[Any]) -> tuple["Ensemble", Any]:
        """The ensemble and its parameters."""
        return cls(tuple(members)), {f"members_{i}": tree for i, tree in enumerate(params)}

    def prefill(self, source: Int[ArrayLike, "B S"], length: int, beams: int = 1) -> tuple[Cache, ...]:
        return tuple(member.prefill(source, length, beams) for member in self.members)

    def decode_step(
        self, cache: tuple[Cache, ...], tokens: Int[ArrayLike, "B K"]
    ) -> tuple[tuple[Cache, ...], Float[Array, "B K V"], Float[Array, "B K S"]]:
        """The logits are the logarithms of the mean probabilities."""
        steps = [member.decode_step(own, tokens) for member, own in zip(self.members, cache, strict=True)]
        caches, logits, attention = zip(*steps, strict=True)
        log_probs = jnp.stack([jax.nn.log_softmax(each) for each in logits])
        mean = jax.nn.logsumexp(log_probs, axis=0) - jnp.log(len(logits))
        return caches, mean, jnp.stack(attention).mean(axis=0)

    def grow(self, cache: tuple[Cache, ...], more: int) -> tuple[Cache, ...]:
        return tuple(member.grow(own, more) for member, own in zip(self.members, cache, strict=True))

    def reorder(self, cache: tuple[Cache, ...], parents: Int[ArrayLike, "B K"]) -> tuple[Cache, ...]:
        return tuple(member.reorder(own, parents) for member, own in zip(self.members, cache, strict=True))
