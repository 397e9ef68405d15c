"""The multi-head layer of attention, and what it remembers while a model decodes."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Bool, Float, Int

from zoo.nn.attention_backends import attend, attend_with_weights, self_attend
from zoo.nn.dropout import Dropout
from zoo.nn.linear import GLOROT_UNIFORM, Dense, Initializer, together
from zoo.nn.masks import Mask
from zoo.nn.placement import parts, platform


@struct.dataclass
class KeyValue:
    """The keys and values that queries look at: an encoded source, or the past of a decoder."""

    key: Float[Array, "*L B S H D"]
    value: Float[Array, "*L B S H D"]

    @classmethod
    def empty(cls, shape: tuple[int, ...], dtype) -> "KeyValue":
        return cls(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))

    def write(self, new: "KeyValue", slot: Int[ArrayLike, ""]) -> "KeyValue":
        """With `new` in the slots from `slot` on."""
        return jax.tree.map(lambda old, x: jax.lax.dynamic_update_slice_in_dim(old, x, slot, axis=-3), self, new)


@struct.dataclass
class Ancestry:
    """Which slots of a cache every hypothesis of a beam has for its past, and which comes next.

    A step writes the keys of all hypotheses into as many slots; a beam is reordered by its marks, without moving a key.
    """

    marks: Bool[Array, "B K slots"]
    slot: Int[Array, ""]

    @classmethod
    def empty(cls, rows: int, beams: int, steps: int) -> "Ancestry":
        return cls(jnp.zeros((rows, beams, steps * beams), bool), jnp.int32(0))

    @classmethod
    def after(cls, prompt: Bool[Array, "B S"], beams: int, steps: int) -> "Ancestry":
        """Of hypotheses that all begin with their row's prompt, which lies in the first slots where it is true."""
        rows, length = prompt.shape
        marks = jnp.pad(prompt, ((0, 0), (0, steps * beams)))
        return cls(jnp.broadcast_to(marks[:, None], (rows, beams, marks.shape[1])), jnp.int32(length))

    def marked(self) -> Bool[Array, "B K slots"]:
        """With the slots that this step writes: the first for the first hypothesis, and so on."""
        rows, beams, _ = self.marks.shape
        own = jnp.broadcast_to(jnp.eye(beams, dtype=bool), (rows, beams, beams))
        return jax.lax.dynamic_update_slice_in_dim(self.marks, own, self.slot, axis=2)

    def grown(self) -> "Ancestry":
        """After this step."""
        return Ancestry(self.marked(), self.slot + self.marks.shape[1])

    def reordered(self, parents: Int[ArrayLike, "B K"]) -> "Ancestry":
        return self.replace(marks=jnp.take_along_axis(self.marks, parents[:, :, None], axis=1))


@dataclass(frozen=True)
class Heads:
    """How a multi-head layer is cut and computed: `size` is that of one head, `width / heads` unless it is given.

    `residual_init` is for the map that ends on the residual, where that differs from the others.
    """

    width: int
    heads: int
    bias: bool = False
    dropout: float = 0.0
    backend: str = "auto"
    dtype: DTypeLike = jnp.float32
    kernel_init: Initializer = GLOROT_UNIFORM
    residual_init: Initializer | None = None
    head_size: int | None = None

    @property
    def size(self) -> int:
        return self.head_size or self.width // self.heads


class MultiHeadAttention(nn.Module):
    """Vaswani et al. 2017, section 3.2.2 and Figure 2 (right).

    `__call__` is one pass over whole sequences. For decoding, `keys_values` projects what will be looked at, once, and
    `look` attends to such a pair; the cache is an argument and a result.
    """

    heads: Heads

    def setup(self):
        c = self.heads
        into = {"bias": c.bias, "dtype": c.dtype, "kernel_init": c.kernel_init, "axes": ("embed", "heads", "kv")}
        self.query = Dense((c.heads, c.size), **into)
        self.key = Dense((c.heads, c.size), **into)
        self.value = Dense((c.heads, c.size), **into)
        out = {"axes": ("heads", "kv", "embed"), "kernel_init": c.residual_init or c.kernel_init}
        self.output = Dense(c.width, **(into | out), inputs=2)
        self.dropout = Dropout(c.dropout)

    def __call__(
        self,
        x: Float[Array, "B T E"],
        memory: Float[Array, "B S E"],
        mask: Mask,
        train: bool = False,
        weights: bool = False,
    ) -> tuple[Float[Array, "B T E"], Float[Array, "B H T S"] | None]:
        """Queries from `x`, keys and values from `memory`; the attention weights on request, else `None`."""
        dropout = self.dropout.of_weights(self.heads.heads) if train else None
        if x is memory and dropout is not None and not weights and self._one_product():
            operands = together((self.query, self.key, self.value), x)
            return self.output(self_attend(operands, mask, self.heads.backend, dropout)), None
        query, pair = self.query(x), self.keys_values(memory)
        if not weights:
            mixed = attend(query, pair.key, pair.value, mask, self.heads.backend, dropout)
            return self.output(mixed), None
        mixed, seen = attend_with_weights(query, pair.key, pair.value, mask.dense(x.shape[1], memory.shape[1]), dropout)
        return self.output(mixed), seen

    def _one_product(self) -> bool:
        """Whether queries, keys and values are made together: where their kernel reads them so, and heads are whole."""
        return platform() == "gpu" and parts("heads") == 1 and not self.is_initializing()

    def keys_values(self, memory: Float[Array, "B S E"]) -> KeyValue:
        return KeyValue(self.key(memory), self.value(memory))

    def step(
        self, x: Float[Array, "B T E"], past: KeyValue, slot: Int[ArrayLike, ""], seen: Bool[Array, "#B 1 #T slots"]
    ) -> tuple[Float[Array, "B T E"], tuple[KeyValue, Float[Array, "B H T slots"]]]:
        """`__call__` for new positions only: their keys and values go into `past` from `slot` on.

        Gives the output, and with it the grown past and the weights over its slots.
        """
        past = past.write(self.keys_values(x), slot)
        mixed, weights = self.look(x, past, seen)
        return mixed, (past, weights)

    def look(
        self, x: Float[Array, "B T E"], pair: KeyValue, seen: Bool[Array, "#B 1 #T S"]
    ) -> tuple[Float[Array, "B T E"], Float[Array, "B H T S"]]:
        """Attend from `x` to a pair that is there already."""
        mixed, weights = attend_with_weights(self.query(x), pair.key, pair.value, seen)
        return self.output(mixed), weights
