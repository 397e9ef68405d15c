"""Multi-head attention, and its cache for decoding."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Bool, Float, Int, PyTree

from zoo.nn.attention_backends import attend, attend_stacked, attend_to_slots, attend_with_weights
from zoo.nn.dropout import Dropout
from zoo.nn.linear import GLOROT_UNIFORM, Dense, Initializer, result_of, together
from zoo.nn.masks import Mask
from zoo.nn.placement import parts, platform
from zoo.nn.quantization import Quantized

# Positions up to which our kernel is used without dropout too. On an H200, GPT-1's step at 512 positions took as long
# by it with dropout as by cuDNN's without, whose operands must be copied apart.
SHORT = 512


@struct.dataclass
class KeyValue:
    """The keys and values of a decoding step: an encoded source, or the past of a decoder. Each is laid out as its
    product reads it: the slots are the last axis of keys, and the axis before the last of values.
    """

    key: Float[Array, "*L B H D slots"]
    value: Float[Array, "*L B H slots D"]

    @classmethod
    def empty(cls, shape: tuple[int, ...], dtype: DTypeLike) -> "KeyValue":
        """`shape` is `[*L, B, H, D, slots]`. On a CPU they are always float32: XLA updates an array of bfloat16 there
        by converting all of it to float32 and back."""
        *rows, size, slots = shape
        return cls(*(jnp.zeros((*rows, *last), result_of(dtype)) for last in ((size, slots), (slots, size))))

    def write(self, new: "KeyValue", slot: Int[ArrayLike, ""]) -> "KeyValue":
        """The cache with `new` in the slots from `slot` on."""

        def written(old: Array, x: Array, axis: int) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(old, x.astype(old.dtype), slot, axis)

        return KeyValue(written(self.key, new.key, -1), written(self.value, new.value, -2))

    def with_room(self, slots: int) -> "KeyValue":
        """The same with `slots` in all, of which the new ones are empty."""
        more, before = (0, slots - self.key.shape[-1]), [(0, 0)] * (self.key.ndim - 2)
        return KeyValue(jnp.pad(self.key, [*before, (0, 0), more]), jnp.pad(self.value, [*before, more, (0, 0)]))


def with_room(past: PyTree, slots: int) -> PyTree:
    """`KeyValue.with_room` of `past`, one layer's or those of all."""
    return jax.tree.map(lambda one: one.with_room(slots), past, is_leaf=lambda x: isinstance(x, KeyValue))


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

    def stepped(self) -> "Ancestry":
        """After this step."""
        return Ancestry(self.marked(), self.slot + self.marks.shape[1])

    def grown(self, slots: int) -> "Ancestry":
        """Over `slots` in all, of which the new ones are nobody's past yet."""
        return self.replace(marks=jnp.pad(self.marks, ((0, 0), (0, 0), (0, slots - self.marks.shape[2]))))

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
        if not weights and self._stacked(dropout is not None, max(x.shape[1], memory.shape[1])):
            if x is memory:
                operands = (together((self.query, self.key, self.value), x),)
            else:
                operands = self.query(x), together((self.key, self.value), memory)
            return self.output(attend_stacked(operands, mask, self.heads.backend, dropout)), None
        query, key, value = self.query(x), self.key(memory), self.value(memory)
        if not weights:
            return self.output(attend(query, key, value, mask, self.heads.backend, dropout)), None
        mixed, seen = attend_with_weights(query, key, value, mask.dense(x.shape[1], memory.shape[1]), dropout)
        return self.output(mixed), seen

    def _stacked(self, dropout: bool, length: int) -> bool:
        """Whether what comes from one array is made by one product: where the kernel with dropout runs, which reads it
        so, and heads are whole. In `SHORT` texts that saves more than cuDNN's kernels are faster."""
        if self.is_initializing() or platform() != "gpu" or parts("heads") > 1:
            return False
        if isinstance(self.query.variables["params"]["kernel"], Quantized):
            return False
        return dropout or (self.heads.backend == "auto" and length <= SHORT)

    def keys_values(self, memory: Float[Array, "B S E"]) -> KeyValue:
        dtype = result_of(self.heads.dtype)
        key, value = jnp.moveaxis(self.key(memory), 1, -1), self.value(memory).swapaxes(1, 2)
        return KeyValue(key.astype(dtype), value.astype(dtype))

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
        """Attend from `x` to given keys and values."""
        mixed, weights = attend_to_slots(self.query(x), pair.key, pair.value, seen)
        return self.output(mixed), weights
