"""Losses as sums over tokens, never means: exact under accumulation, packing and sharding."""

import math
from collections.abc import Iterable
from functools import partial

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from zoo.models.base import Readout
from zoo.nn.fused_softmax import EXCLUDED, Rows, fused_errors
from zoo.nn.linear import product, result_of, summed_outer
from zoo.nn.placement import on_own_rows, parts, placed, platform

# Logits of one device that are in memory at a time. A CPU is fastest if they fit its cache. But every part costs passes
# over the gradient of the matrix, so there it has at least so many tokens for each unit of the width.
CHUNK = {"cpu": 2**22, "gpu": 2**30}
TOKENS_OF_A_UNIT = {"cpu": 2}
ROOMY_CHUNK = 2**26
QUEUED = 8  # batches of an evaluation that the devices are given before the first is done


@struct.dataclass
class Sums:
    """Sums over a batch: the `objective` to minimize, the cross-entropy `loss` in nats, the number of correctly
    predicted tokens, and the numbers of tokens and of sentences (rows with at least one token). In the end the others
    are divided by one of these two. Only the `objective` has a gradient."""

    objective: Float[Array, ""]
    loss: Float[Array, ""]
    correct: Float[Array, ""]
    tokens: Float[Array, ""]
    sentences: Float[Array, ""]

    @classmethod
    def zero(cls) -> "Sums":
        return cls(*jnp.zeros(5))

    def __add__(self, other: "Sums") -> "Sums":
        return jax.tree.map(jnp.add, self, other)

    def means(self) -> dict[str, float]:
        """Loss in nats per token, its perplexity, and accuracy."""
        tokens = max(float(self.tokens), 1.0)
        loss = float(self.loss) / tokens
        return {"loss": loss, "perplexity": math.exp(min(loss, 700.0)), "accuracy": float(self.correct) / tokens}


def total(sums: Iterable[Sums]) -> Sums:
    """The sum of `sums`, few of which are computed at a time: each that waits keeps its batch on the device, and where
    one machine plays several devices, a long queue of programs that communicate can block itself."""
    found = None
    for number, one in enumerate(sums, 1):
        found = one if found is None else found + one
        if number % QUEUED == 0:
            jax.block_until_ready(found)
    return Sums.zero() if found is None else found


@jax.named_scope("loss")
def cross_entropy(
    readout: Readout,
    labels: Int[ArrayLike, "B T"],
    smoothing: float = 0.0,
    padding: int = 0,
    weights: Float[Array, "B"] | None = None,
) -> Sums:
    """Cross-entropy of a model's predictions over the labels that are not `padding`.

    With `smoothing` ε the objective's target is `1 - ε` at the label plus `ε / V` on all V rows that the model predicts
    (Szegedy et al. 2016, section 7; Vaswani et al. 2017, section 5.4); the reported `loss` has no smoothing. `weights`
    multiplies the rows of the objective only.

    The logits of a whole batch are never in memory. A loop goes over blocks of columns; when differentiated, it
    computes the gradient of each block in the forward pass, so nothing is computed twice.
    """
    labels = jnp.asarray(labels)
    real = labels != padding
    weights = jnp.ones(len(labels)) if weights is None else weights
    weights = jnp.broadcast_to(weights[:, None], labels.shape)
    columns = _columns(labels.shape, readout.vocabulary, readout.states.shape[-1])
    sums = _summed(readout, labels, real, weights, smoothing, columns)
    return sums.replace(sentences=real.any(axis=1).sum().astype(jnp.float32))


def _columns(shape: tuple[int, int], vocabulary: int, width: int) -> int:
    """How many columns of a batch are processed together: a divisor of their number, so that all blocks have one shape,
    and equally many from each device where the mesh shards them."""
    rows, length = shape
    devices, (_, cuts) = jax.sharding.get_abstract_mesh().size or jax.device_count(), _cuts(shape)
    tokens = max(CHUNK.get(platform(), ROOMY_CHUNK) // vocabulary, TOKENS_OF_A_UNIT.get(platform(), 0) * width)
    most = max(cuts, tokens * devices // rows)
    return max(n for n in range(cuts, length + 1, cuts) if length % n == 0 and n <= most)


def _cuts(shape: tuple[int, ...]) -> tuple[int, int]:
    """The number of shards of the rows of a batch, and of its columns."""
    rows, columns = (n if size % n == 0 else 1 for size, n in zip(shape, map(parts, ("batch", "length")), strict=False))
    return rows, columns


def _chunks(x: Array, columns: int) -> Array:
    """`[B, T, ...]` as `[T / columns, B, columns, ...]`. Every device has a part of each block: rows and sharded
    columns stay where they are."""
    _, cuts = _cuts(x.shape)
    x = x.reshape(x.shape[0], cuts, -1, columns // cuts, *x.shape[2:])
    return jnp.moveaxis(x, 2, 0).reshape(x.shape[2], x.shape[0], columns, *x.shape[4:])


def _whole(chunks: Array) -> Array:
    """Undoes `_chunks`."""
    number, rows, columns, *rest = chunks.shape
    _, cuts = _cuts((rows, number * columns))
    x = chunks.reshape(number, rows, cuts, columns // cuts, *rest)
    return jnp.moveaxis(x, 0, 2).reshape(rows, number * columns, *rest)


def _sums(
    rows: Rows,
    real: Bool[Array, "B T"],
    weights: Float[Array, "B T"],
    smoothing: float,
    predicted: Bool[Array, "V"],
) -> Sums:
    """The sums of a block. Sentences are not counted, since a block may hold only some of their tokens."""
    log_normalizer = jnp.log(rows.normalizer) + rows.highest
    loss = log_normalizer - rows.of_label
    objective = loss
    if smoothing:
        objective = (1 - smoothing) * loss + smoothing * (log_normalizer - rows.total / predicted.sum())
    # Of equal logits the first counts, as in greedy decoding.
    correct = (rows.of_label >= rows.highest) & (rows.of_label > rows.highest_before)
    sums = ((x * real).sum() for x in (objective * weights, loss, correct, 1.0))
    return Sums(*sums, sentences=jnp.zeros(()))


def _rows(logits: Float[Array, "B T V"], labels: Int[Array, "B T"], predicted: Bool[Array, "V"]) -> Rows:
    logits, places = logits.astype(jnp.float32), jnp.arange(logits.shape[-1])
    is_label, is_before = places == labels[..., None], places < labels[..., None]
    highest_before = jnp.where(is_before, logits, EXCLUDED).max(axis=-1)
    highest = jnp.maximum(highest_before, jnp.where(is_before, EXCLUDED, logits).max(axis=-1))
    normalizer = jnp.exp(logits - highest[..., None]).sum(axis=-1)
    of_label, total = (jnp.where(some, logits, 0).sum(axis=-1) for some in (is_label, predicted))
    return Rows(highest_before, highest, normalizer, of_label, total)


def _rows_and_errors(
    readout: Readout, labels: Int[Array, "B T"], weights: Float[Array, "B T"], smoothing: float
) -> tuple[Rows, Float[Array, "B T V"]]:
    """The statistics of a block, and the gradient of its objective with respect to the logits."""
    result, predicted = result_of(readout.dtype), readout.predicted()
    spread = smoothing / predicted.sum()
    if platform() == "gpu" and parts("vocab") == parts("length") == 1 and _cuts(labels.shape)[0] == parts("batch"):
        rows = _with_bias(readout).logits(result), labels, weights
        return on_own_rows(partial(fused_errors, smoothing=smoothing), rows, (spread,))
    logits = readout.logits(result)
    rows = _rows(logits, labels, predicted)
    target = jnp.where(jnp.arange(logits.shape[-1]) == labels[..., None], 1 - smoothing, 0.0)
    if smoothing:
        target = target + spread * predicted
    exponentials = jnp.exp(logits.astype(jnp.float32) - rows.highest[..., None])
    return rows, (exponentials / rows.normalizer[..., None] - target) * weights[..., None]


def _with_bias(readout: Readout) -> Readout:
    """The same readout, where a bias excludes rows: a product adds it as it writes its result."""
    if not readout.excluded:
        return readout
    bias = jnp.zeros(readout.vocabulary) if readout.bias is None else readout.bias
    return readout.replace(bias=jnp.where(readout.predicted(), bias, EXCLUDED), excluded=())


def _filled(readout: Readout) -> Readout:
    """The readout, padded with excluded rows of zeros to a multiple of 128, on devices that would otherwise copy the
    matrix and its gradient to pad them at every product."""
    more = -readout.vocabulary % 128
    if platform() != "gpu" or parts("vocab") > 1 or not more:
        return readout
    axis, rows = 1 - readout.contract, range(readout.vocabulary, readout.vocabulary + more)
    matrix = jnp.pad(readout.matrix, [(0, more if i == axis else 0) for i in range(2)])
    bias = None if readout.bias is None else jnp.pad(readout.bias, (0, more))
    return readout.replace(matrix=matrix, bias=bias, excluded=(*readout.excluded, *rows))


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _summed(readout: Readout, labels: Array, real: Array, weights: Array, smoothing: float, columns: int) -> Sums:
    def add(total, part):
        states, labels, real, weights = part
        rows = _rows(readout.replace(states=states).logits(), labels, readout.predicted())
        return total + _sums(rows, real, weights, smoothing, readout.predicted()), None

    chunks = [_chunks(x, columns) for x in (readout.states, labels, real, weights)]
    return jax.lax.scan(add, Sums.zero(), chunks)[0]


def _summed_forward(readout: Readout, labels: Array, real: Array, weights: Array, smoothing: float, columns: int):
    dtype, contract = readout.dtype, readout.contract
    names = ("embed", "vocab") if contract == 0 else ("vocab", "embed")
    # The matrix is gathered once for all columns, and its gradient is sent once, after them.
    gathered = tuple(name if name == "vocab" else None for name in names)
    matrix = placed(readout.matrix.astype(dtype), *gathered)
    low, cuts = _filled(readout.replace(matrix=matrix, states=readout.states.astype(dtype))), _cuts(labels.shape)
    # A CPU sums the gradient of a table as `[embed, vocab]` and turns it round once: it transposes slowly.
    turned = contract == 1 and platform() == "cpu"
    summed_as = gathered[::-1] if turned else gathered

    def add(carry, part):
        total, to_matrix, to_bias = carry
        states, labels, real, weights = part
        rows, errors = _rows_and_errors(low.replace(states=states), labels, real * weights, smoothing)
        sums = _sums(rows, real, weights, smoothing, low.predicted())
        to_bias = to_bias + errors.astype(jnp.float32).sum(axis=(0, 1)) if to_bias is not None else None
        errors = errors.astype(dtype)
        operands = (states, errors) if contract == 0 or turned else (errors, states)
        to_matrix = placed(to_matrix + _outer_of_shards(*operands, cuts), "batch", "length", *summed_as)
        to_states = product(errors, low.matrix, 1 - contract, result_of(dtype))
        return (total + sums, to_matrix, to_bias), to_states.astype(readout.states.dtype)

    start = (
        Sums.zero(),
        placed(jnp.zeros((*cuts, *low.matrix.shape[:: -1 if turned else 1])), "batch", "length", *summed_as),
        None if low.bias is None else jnp.zeros(low.bias.shape),
    )
    chunks = [_chunks(x, columns) for x in (low.states, labels, real, weights)]
    (total, to_matrix, to_bias), to_states = jax.lax.scan(add, start, chunks)
    to_matrix = to_matrix.sum(axis=(0, 1))
    to_matrix = (to_matrix.T if turned else to_matrix)[tuple(map(slice, matrix.shape))]
    to_matrix, to_bias = placed(to_matrix, *names), None if to_bias is None else to_bias[: readout.vocabulary]
    return total, readout.replace(states=_whole(to_states), matrix=to_matrix, bias=to_bias)


def _outer_of_shards(a: Float[Array, "B T I"], b: Float[Array, "B T O"], cuts: tuple[int, int]) -> Float[Array, "..."]:
    """The sum of `a bᵀ` over the tokens of each shard, without communication: `[rows, columns, I, O]`."""
    if cuts == (1, 1):
        return summed_outer(a, b)[None, None]
    rows, columns = cuts
    cut = (x.reshape(rows, x.shape[0] // rows, columns, x.shape[1] // columns, x.shape[2]) for x in (a, b))
    return jax.vmap(jax.vmap(summed_outer, in_axes=1))(*cut)


def _summed_backward(smoothing: float, columns: int, gradient: Readout, cotangent: Sums):
    return jax.tree.map(lambda g: g * cotangent.objective.astype(g.dtype), gradient), None, None, None


_summed.defvjp(_summed_forward, _summed_backward)
