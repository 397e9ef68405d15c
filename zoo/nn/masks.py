"""Which keys a query of attention may see."""

import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Int

FORBIDDEN = -1e9  # the logit of a key that must not be seen; finite, so that a block with none stays finite


@struct.dataclass
class Mask:
    """Every query sees at least one key, so no softmax is empty, and every gradient is finite.

    A padded batch has `lengths`: row `b` has `lengths[b] >= 1` keys to see, and padding follows them (`padded` makes
    it; the first key of an empty row can be seen). A packed batch has `segments`: a query sees the keys of its own
    document; padding is a document too. `causal` hides the keys that come after a query; where there are more keys than
    queries, the last query belongs to the last key.

    The fused kernels take this form and never build the `[T, S]` table.
    """

    lengths: Int[Array, "B"] | None = None
    segments: Int[Array, "B T"] | None = None
    causal: bool = struct.field(pytree_node=False, default=False)

    @classmethod
    def padded(cls, real: Bool[ArrayLike, "B S"], causal: bool = False) -> "Mask":
        """For keys of which those that are not `real` stand at the end of their row."""
        return cls(lengths=jnp.maximum(jnp.sum(real, axis=1, dtype=jnp.int32), 1), causal=causal)

    def dense(self, length: int, source: int) -> Bool[Array, "_ 1 T S"]:
        """The table of pairs that may look, `[B or 1, 1, T, S]`."""
        self.check(length, source)
        seen = jnp.ones((1, 1, length, source), bool)
        if self.causal:
            seen = jnp.tril(seen, k=source - length)
        if self.lengths is not None:
            seen = seen & self.keys(source)[:, None, None]
        if self.segments is not None:
            seen = seen & (self.segments[:, None, :, None] == self.segments[:, None, None, :])
        return seen

    def keys(self, source: int) -> Bool[Array, "_ S"]:
        """Which keys are not padding, `[B or 1, S]`."""
        return jnp.arange(source) < (jnp.full((1, 1), source) if self.lengths is None else self.lengths[:, None])

    def check(self, length: int, source: int) -> None:
        """Raises `ValueError` for numbers of queries and keys with which some query would see nothing."""
        if self.causal and length > source:
            raise ValueError(f"a causal mask needs a key for every query: {length} queries, {source} keys")
        if self.segments is not None and length != source:
            raise ValueError(f"segments are for attention to oneself: {length} queries, {source} keys")
