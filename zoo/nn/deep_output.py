"""From a decoder's state to the next word: deep output (Pascanu et al. 2014) with maxout (Goodfellow et al. 2013)."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from zoo.nn.linear import Dense
from zoo.nn.recurrent import Inits


def maxout(x: Float[Array, "*B P"]) -> Float[Array, "*B M"]:
    """The larger of each two neighbours (Bahdanau et al. 2015, A.2.2)."""
    pairs = x.reshape(*x.shape[:-1], -1, 2)
    return jnp.maximum(pairs[..., 0], pairs[..., 1])


class DeepOutput(nn.Module):
    """`W_o maxout(U_o s + V_o E y + C_o c)`: Bahdanau et al. 2015, A.2.2, and Cho et al. 2014, appendix.

    `units` are maxout units of two pieces each. With a `rank`, `W_o` is a product of two matrices of that rank (Cho et
    al. 2014, section 4.1). The last map is handed out as `matrix` and `bias`, for the logits of `features`.
    """

    units: int
    vocabulary: int
    inits: Inits
    rank: int = 0
    dtype: DTypeLike = jnp.float32

    def setup(self):
        into = {"axes": ("embed", "mlp"), "dtype": self.dtype, "kernel_init": self.inits.kernel}
        self.state = Dense(2 * self.units, **into)
        self.word = Dense(2 * self.units, bias=False, **into)
        self.context = Dense(2 * self.units, bias=False, **into)
        if self.rank:
            self.reduce = Dense(self.rank, bias=False, **into)
        init = nn.with_logical_partitioning(self.inits.kernel, ("embed", "vocab"))
        self.matrix = self.param("matrix", init, (self.rank or self.units, self.vocabulary))
        init = nn.with_logical_partitioning(nn.initializers.zeros_init(), ("vocab",))
        self.bias = self.param("bias", init, (self.vocabulary,))

    def features(
        self, state: Float[Array, "*B N"], word: Float[Array, "*B E"], context: Float[Array, "*C O"]
    ) -> Float[Array, "*B M"]:
        """What the last matrix is multiplied with: the maxout layer, reduced to the rank where there is one."""
        parts = (self.state(state), self.word(word), self.context(context))
        hidden = maxout(sum(part.astype(jnp.float32) for part in parts)).astype(self.dtype)
        return self.reduce(hidden) if self.rank else hidden
