"""Scaled dot-product attention: the plain form, and the one function that picks the fastest back-end of the device."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from zoo.nn.blockwise_attention import blockwise_attention
from zoo.nn.dropout import WeightDropout
from zoo.nn.fused_attention import fused_stacked_attention
from zoo.nn.masks import FORBIDDEN, Mask
from zoo.nn.placement import mesh_axes, parts, placed, platform
from zoo.nn.recomputing_attention import recomputing_attention

BACKENDS = ("auto", "einsum", "xla", "blockwise", "triton", "cudnn", "splash")
WITHOUT_DROPOUT = ("xla", "cudnn", "splash")


def attend_with_weights(
    query: Float[Array, "B T H D"],
    key: Float[Array, "B S H D"],
    value: Float[Array, "B S H D"],
    seen: Bool[Array, "#B 1 #T S"],
    dropout: WeightDropout | None = None,
) -> tuple[Float[Array, "B T H D"], Float[Array, "B H T S"]]:
    """Vaswani et al. 2017, eq. 1, as written; the weights (before dropout) come with it. Softmax in float32."""
    scale = query.shape[-1] ** -0.5
    logits = jnp.einsum("bthd,bshd->bhts", query * scale, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(jnp.where(seen, logits, FORBIDDEN), axis=-1)
    kept = dropout.apply(weights) if dropout is not None else weights
    mixed = jnp.einsum("bhts,bshd->bthd", kept.astype(value.dtype), value, preferred_element_type=jnp.float32)
    return mixed.astype(query.dtype), weights


def attend_to_slots(
    query: Float[Array, "B T H D"],
    key: Float[Array, "B H D slots"],
    value: Float[Array, "B H slots D"],
    seen: Bool[Array, "#B 1 #T slots"],
) -> tuple[Float[Array, "B T H D"], Float[Array, "B H T slots"]]:
    """`attend_with_weights` for a decoding step, whose keys and values are laid out as `KeyValue` holds them."""
    scale = query.shape[-1] ** -0.5
    logits = jnp.einsum("bthd,bhds->bhts", query.astype(key.dtype) * scale, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(jnp.where(seen, logits, FORBIDDEN), axis=-1)
    # In this order of axes einsum does not exchange the operands: a CPU multiplies from a transposed left one slowly.
    mixed = jnp.einsum("bhts,bhsd->bhtd", weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
    return mixed.swapaxes(1, 2).astype(query.dtype), weights


def attend(
    query: Float[Array, "B T H D"],
    key: Float[Array, "B S H D"],
    value: Float[Array, "B S H D"],
    mask: Mask,
    backend: str = "auto",
    dropout: WeightDropout | None = None,
) -> Float[Array, "B T H D"]:
    """Attention without its weights, by the fastest back-end of the device, or by the one of `BACKENDS` that is named.

    All give the same result up to rounding, and drop the same weights. Those that have no dropout (`WITHOUT_DROPOUT`)
    leave a call with `dropout` to one that has. Only `einsum` and `xla` make a table `[B, H, T, S]`.

    Where positions are cut over devices, each gets all positions of some heads, attends, and gives them back for its
    own positions of all heads: two exchanges of all with all (Jacobs et al. 2023, "DeepSpeed Ulysses", section 3.1).
    """
    return attend_stacked((query, key, value), mask, backend, dropout)


def attend_stacked(
    operands: tuple[Array, ...], mask: Mask, backend: str = "auto", dropout: WeightDropout | None = None
) -> Float[Array, "B T H D"]:
    """`attend` of queries, keys and values in this order, each `[B, T, H, D]` or several as one product makes them,
    `[B, T, n, H, D]`.

    The `triton` kernel reads them there, and writes their gradients into arrays of the same form.
    """
    chosen = _fastest(operands, mask, dropout) if backend == "auto" else backend
    if dropout is not None and chosen in WITHOUT_DROPOUT:
        chosen = "triton" if chosen == "cudnn" else "blockwise"
    if chosen == "einsum":
        # XLA cuts the plain form itself.
        whole = [placed(x, "batch", None, "attending", None) for x in _separate(operands)]
        mixed = recomputing_attention(*whole, mask, dropout)
        return placed(placed(mixed, "batch", None, "attending", None), "batch", "length", "heads", None)
    local = partial(_attend_here, backend=chosen)
    if any(mesh_axes("batch", "length", "heads")):
        if not _divides(operands):  # XLA cuts plain JAX as well as it goes
            return _attend_here(operands, mask, dropout, "blockwise")
        return _on_mesh(local, operands, mask, dropout)
    return local(operands, mask, dropout)


def _separate(operands: tuple[Array, ...]) -> tuple[Array, Array, Array]:
    found = []
    for x in operands:
        # The gradient of a split is one array, that of slices a sum of padded ones.
        found += [x] if x.ndim == 4 else [part[:, :, 0] for part in jax.lax.split(x, [1] * x.shape[2], axis=2)]
    return tuple(found)


def _divides(operands: tuple[Array, ...]) -> bool:
    rows, length, *_, heads, _ = operands[0].shape
    cuts = {"batch": rows, "length": length, "attending": heads}
    return all(size % parts(name) == 0 for name, size in cuts.items()) and operands[-1].shape[1] % parts("length") == 0


def _on_mesh(local: Callable[..., Array], operands: tuple[Array, ...], mask: Mask, dropout: WeightDropout | None):
    """`local` on every device's rows and heads; the fused kernels know nothing of a mesh."""
    batch, length, heads = mesh_axes("batch", "length", "heads")

    def attended(operands, mask, dropout):
        if length:
            operands = [jax.lax.all_to_all(x, length, x.ndim - 2, 1, tiled=True) for x in operands]
        if dropout is not None:  # the bits are those of the whole
            own_rows, own_heads = operands[0].shape[0], operands[0].shape[-2]
            row, head = (jax.lax.axis_index(axes) if axes else 0 for axes in (batch, (*heads, *length)))
            dropout = dropout.replace(row=dropout.row + row * own_rows, head=dropout.head + head * own_heads)
        mixed = local(tuple(operands), mask, dropout)
        return jax.lax.all_to_all(mixed, length, 1, 2, tiled=True) if length else mixed

    specs = tuple(PartitionSpec(batch, length, *([None] * (x.ndim - 4)), heads) for x in operands)
    rows = jax.tree.map(lambda _: PartitionSpec(batch), mask)
    everywhere = jax.tree.map(lambda _: PartitionSpec(), dropout)
    out = PartitionSpec(batch, length, heads)
    return jax.shard_map(attended, in_specs=(specs, rows, everywhere), out_specs=out, check_vma=False)(
        operands, mask, dropout
    )


def _attend_here(operands: tuple[Array, ...], mask: Mask, dropout: WeightDropout | None, backend: str) -> Array:
    """`attend` on one device, by a back-end that is not the plain form."""
    if backend == "triton":
        return fused_stacked_attention(operands, mask, dropout, interpret=platform() == "cpu")
    query, key, value = _separate(operands)
    if backend == "blockwise":
        return blockwise_attention(query, key, value, mask, dropout)
    if backend == "splash":
        return _splash(query, key, value, mask, interpret=platform() == "cpu")
    length, source = query.shape[1], key.shape[1]
    mask.check(length, source)
    if backend == "cudnn" and not _cudnn_takes(length, source, mask):
        return fused_stacked_attention(operands, mask)
    needs_table = _needs_table(length, source, mask)
    ends = {}
    if mask.lengths is not None:
        everyone = jnp.full(query.shape[:1], length, jnp.int32)
        ends = {"query_seq_lengths": everyone, "key_value_seq_lengths": mask.lengths}
    table = mask.dense(length, source) if needs_table else None
    causal = mask.causal and table is None
    return jax.nn.dot_product_attention(query, key, value, mask=table, is_causal=causal, implementation=backend, **ends)


def _needs_table(length: int, source: int, mask: Mask) -> bool:
    """Whether JAX must be given the mask as a table: its own causal mask lets the first query see the first key alone,
    also where keys of a past stand before it."""
    return mask.segments is not None or (mask.causal and length != source)


def _cudnn_takes(length: int, source: int, mask: Mask) -> bool:
    """JAX refuses odd lengths in the backward pass of cuDNN's attention, also where there is no bias."""
    return not _needs_table(length, source, mask) and length % 2 == 0 and source % 2 == 0


def _fastest(operands: tuple[Array, ...], mask: Mask, dropout: WeightDropout | None) -> str:
    """The fastest back-end of the device for this call.

    NVIDIA GPUs: our own kernel where there is dropout, where cuDNN does not take the mask or the lengths, and where one
    array holds several operands, which cuDNN would have to copy; else cuDNN, whose kernels are tuned for each card.
    TPUs: splash without dropout, blocks of plain JAX with it. CPUs: the plain form.
    """
    device, (length, source) = platform(), (operands[0].shape[1], operands[-1].shape[1])
    size, half = operands[0].shape[-1], operands[0].dtype in (jnp.bfloat16, jnp.float16)
    if device == "cpu":
        return "einsum"
    if device == "gpu" and size <= 128:
        cudnn = half and size % 8 == 0 and dropout is None and len(operands) == 3
        return "cudnn" if cudnn and _cudnn_takes(length, source, mask) else "triton"
    if device == "tpu" and dropout is None and length % 128 == 0 and source % 128 == 0 and size % 64 == 0:
        return "splash"
    return "blockwise" if dropout is not None else "xla"


def _splash(query: Array, key: Array, value: Array, mask: Mask, interpret: bool = False) -> Array:
    """The blocked kernel for TPU; it takes heads before positions and an unscaled query."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    batch, length, heads, _ = query.shape
    source = key.shape[1]
    table = (
        masks.CausalMask((length, source), offset=source - length) if mask.causal else masks.FullMask((length, source))
    )
    kernel = splash.make_splash_mha_single_device(masks.MultiHeadMask([table] * heads), interpret=interpret)
    segments = None
    if mask.lengths is not None:
        real = (jnp.arange(source) < mask.lengths[:, None]).astype(jnp.int32)
        segments = splash.SegmentIds(q=jnp.ones((batch, length), jnp.int32), kv=real)
    elif mask.segments is not None:
        segments = splash.SegmentIds(q=mask.segments, kv=mask.segments)
    heads_first = [x.swapaxes(1, 2) for x in (query * query.shape[-1] ** -0.5, key, value)]
    return jax.vmap(kernel)(*heads_first, segments).swapaxes(1, 2).astype(query.dtype)
