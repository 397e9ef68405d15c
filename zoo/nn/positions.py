"""What tells a position apart: sinusoids and learned vectors."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from zoo.nn.linear import Initializer
from zoo.nn.placement import placed, platform

LAYOUTS = ("interleaved", "concatenated", "halves")


def sinusoids(positions: Int[Array, "*T"], width: int, layout: str = "interleaved") -> Float[Array, "*T E"]:
    """Vaswani et al. 2017, section 3.5: `PE(pos, 2i) = sin(pos / 10000^(2i/E))`, `PE(pos, 2i+1) = cos(...)`.

    `interleaved` is the paper's order of sines and cosines. `concatenated` puts all sines first, then all cosines, at
    the same frequencies, as Marian does. `halves` does so with the frequencies spread over `E/2 - 1` steps, as
    tensor2tensor and fairseq do. A checkpoint fits only one of them.
    """
    pairs = width // 2
    steps = max(pairs - 1, 1) if layout == "halves" else pairs
    frequencies = jnp.exp(-jnp.log(10_000.0) * jnp.arange(pairs) / steps)
    angles = positions[..., None].astype(jnp.float32) * frequencies
    waves = jnp.sin(angles), jnp.cos(angles)
    if platform() == "cpu":  # XLA would compute them again for every row that they are added to
        waves = jax.lax.optimization_barrier(waves)
    if layout == "interleaved":
        return jnp.stack(waves, axis=-1).reshape(*positions.shape, width)
    return jnp.concatenate(waves, axis=-1)


class LearnedPositions(nn.Module):
    """One vector for each of `length` positions (Radford et al. 2018, section 4.1)."""

    length: int
    width: int
    table_init: Initializer = nn.initializers.normal(0.02)

    @nn.compact
    def __call__(self, positions: Int[Array, "*T"]) -> Float[Array, "*T E"]:
        init = nn.with_logical_partitioning(self.table_init, ("positions", "embed"))
        table = placed(self.param("table", init, (self.length, self.width)), None, None)
        return jnp.take(table, positions, axis=0)
