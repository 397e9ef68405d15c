"""Scaled dot-product attention, its back-ends, and the multi-head layer."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Bool, Float, Int

from zoo.nn.dropout import Dropout
from zoo.nn.linear import GLOROT_UNIFORM, Dense, Initializer
from zoo.nn.placement import mesh_axes, placed, platform

BACKENDS = ("auto", "einsum", "xla", "cudnn", "splash")
Thin = Callable[[Array], Array]  # dropout as applied to weights
FORBIDDEN = -1e9  # added to the logits of keys that must not be seen; finite, so that a row with none stays finite


@struct.dataclass
class Mask:
    """Who may look at whom: a key is seen by the queries of its own segment and, if `causal`, not by earlier ones.

    A padded batch has segment 1 for tokens and 0 for padding; a packed one numbers its documents from 1. `None` means
    that all are of one segment. Kept in this form since the fused kernels never build the `[T, S]` table.
    """

    query: Int[Array, "B T"] | None = None
    key: Int[Array, "B S"] | None = None
    causal: bool = struct.field(pytree_node=False, default=False)

    def dense(self, length: int, source: int) -> Bool[Array, "_ 1 T S"]:
        """The table of pairs that may look, `[B or 1, 1, T, S]`."""
        seen = jnp.ones((1, 1, length, source), bool)
        if self.causal:
            seen = jnp.tril(seen, k=source - length)
        if self.query is not None:
            seen = seen & (self.query[:, None, :, None] == self.key[:, None, None, :])
        return seen


def attend_with_weights(
    query: Float[Array, "B T H D"],
    key: Float[Array, "B S H D"],
    value: Float[Array, "B S H D"],
    seen: Bool[Array, "#B 1 #T S"],
    dropout: Thin | None = None,
) -> tuple[Float[Array, "B T H D"], Float[Array, "B H T S"]]:
    """Vaswani et al. 2017, eq. 1, as written; the weights (before dropout) come with it. Softmax in float32."""
    scale = query.shape[-1] ** -0.5
    logits = jnp.einsum("bthd,bshd->bhts", query * scale, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(jnp.where(seen, logits, FORBIDDEN), axis=-1)
    kept = dropout(weights) if dropout is not None else weights
    mixed = jnp.einsum("bhts,bshd->bthd", kept.astype(value.dtype), value, preferred_element_type=jnp.float32)
    return mixed.astype(query.dtype), weights


def attend(
    query: Float[Array, "B T H D"],
    key: Float[Array, "B S H D"],
    value: Float[Array, "B S H D"],
    mask: Mask,
    backend: str = "auto",
    dropout: Thin | None = None,
) -> Float[Array, "B T H D"]:
    """Attention without its weights, by the fastest back-end of the device: cuDNN on NVIDIA, splash on TPU, else XLA.

    The fused kernels have no dropout: with `dropout` the plain form is used, as it is for any other reason to look
    inside. `backend` names one of `BACKENDS`; all give the same result up to rounding.

    Where positions are cut over devices, each gets all positions of some heads, attends, and gives them back for its
    own positions of all heads: two exchanges of all with all (Jacobs et al. 2023, "DeepSpeed Ulysses", section 3.1).
    """
    chosen = _fastest(query, key) if backend == "auto" else backend
    if dropout is not None or chosen == "einsum":
        # XLA cuts the plain form itself, and the dropout is that of one device.
        whole = [placed(x, "batch", None, "attending", None) for x in (query, key, value)]
        mixed, _ = attend_with_weights(*whole, mask.dense(query.shape[1], key.shape[1]), dropout)
        return placed(placed(mixed, "batch", None, "attending", None), "batch", "length", "heads", None)
    if any(mesh_axes("batch", "length", "heads")):
        return _on_mesh(partial(_attend_here, backend=chosen), query, key, value, mask)
    return _attend_here(query, key, value, mask, chosen)


def _on_mesh(local: Callable[..., Array], query: Array, key: Array, value: Array, mask: Mask) -> Array:
    """`local` on every device's rows and heads; the fused kernels know nothing of a mesh."""
    batch, length, heads = mesh_axes("batch", "length", "heads")

    def attended(query, key, value, mask):
        if length:
            gather = partial(jax.lax.all_to_all, axis_name=length, split_axis=2, concat_axis=1, tiled=True)
            query, key, value = gather(query), gather(key), gather(value)
        mixed = local(query, key, value, mask)
        return jax.lax.all_to_all(mixed, length, 1, 2, tiled=True) if length else mixed

    operand, rows = PartitionSpec(batch, length, heads), PartitionSpec(batch)
    given = (operand, operand, operand, jax.tree.map(lambda _: rows, mask))
    return jax.shard_map(attended, in_specs=given, out_specs=operand, check_vma=False)(query, key, value, mask)


def _attend_here(query: Array, key: Array, value: Array, mask: Mask, backend: str) -> Array:
    """`attend` on one device, by a fused kernel."""
    length, source = query.shape[1], key.shape[1]
    if backend == "splash":
        return _splash(query, key, value, mask)
    padded = mask.query is not None
    return jax.nn.dot_product_attention(
        query,
        key,
        value,
        mask=mask.dense(length, source) if padded else None,
        is_causal=mask.causal and not padded,
        implementation=backend,
    )


def _fastest(query: Array, key: Array) -> str:
    device = platform()
    half = query.dtype in (jnp.bfloat16, jnp.float16)
    if device == "gpu" and half and query.shape[-1] % 8 == 0 and query.shape[-1] <= 128:
        return "cudnn"
    if device == "tpu" and query.shape[1] % 128 == 0 and key.shape[1] % 128 == 0 and query.shape[-1] % 64 == 0:
        return "splash"
    return "einsum" if device == "cpu" else "xla"


def _splash(query: Array, key: Array, value: Array, mask: Mask, interpret: bool = False) -> Array:
    """The blocked kernel for TPU; it takes heads before positions and an unscaled query."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    length, source, heads = query.shape[1], key.shape[1], query.shape[2]
    table = masks.CausalMask((length, source)) if mask.causal else masks.FullMask((length, source))
    kernel = splash.make_splash_mha_single_device(masks.MultiHeadMask([table] * heads), interpret=interpret)
    segments = None if mask.query is None else splash.SegmentIds(q=mask.query, kv=mask.key)
    heads_first = [x.swapaxes(1, 2) for x in (query * query.shape[-1] ** -0.5, key, value)]
    return jax.vmap(kernel)(*heads_first, segments).swapaxes(1, 2).astype(query.dtype)


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
        query, pair = self.query(x), self.keys_values(memory)
        dropout = partial(self.dropout, train=True) if train and self.heads.dropout > 0 else None
        if not weights:
            mixed = attend(query, pair.key, pair.value, mask, self.heads.backend, dropout)
            return self.output(mixed), None
        mixed, seen = attend_with_weights(query, pair.key, pair.value, mask.dense(x.shape[1], memory.shape[1]), dropout)
        return self.output(mixed), seen

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
