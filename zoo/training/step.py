"""One update: the training state, how it is initialized, and the jitted step."""

from collections.abc import Callable, Collection
from functools import partial
from operator import attrgetter
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh
from jaxtyping import Array, Int

from zoo.parallel.rules import batch_sharding, in_force, replicated, state_shardings

PyTree = Any
Loss = Callable[[PyTree, PyTree, jax.Array], Any]  # (params, batch, dropout key) -> sums, `objective` among them

# Where XLA may make a product a Triton kernel, it takes the bias and the sum of gradients out of the product first, and
# where cuBLAS is faster after all, as it mostly is, they stay passes of their own.
OPTIONS = {"gpu": {"xla_gpu_enable_triton_gemm": False}}


@struct.dataclass
class TrainState:
    """Everything that an update changes, and the key of its randomness. `ema` is `None` if no average is kept."""

    step: Int[Array, ""]
    params: PyTree
    optimizer: PyTree
    ema: PyTree | None
    key: Array


def born(
    init: Callable[[jax.Array], PyTree], optimizer: optax.GradientTransformation, mesh: Mesh, seed: int, ema: bool
):
    """The shapes with shardings of a fresh state, and the function that initializes it in place.

    `init` gives boxed parameters from a key. No device ever holds a whole copy of a sharded array.
    """

    def fresh(seed):
        key, init_key = jax.random.split(jax.random.key(seed))
        params = init(init_key)
        return TrainState(
            jnp.int32(0), params, optimizer.init(params), params if ema else None, jax.random.key_data(key)
        )

    abstract = jax.eval_shape(fresh, 0)
    shardings = state_shardings(mesh, abstract)
    shapes = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), nn.unbox(abstract), shardings
    )
    make = jax.jit(lambda seed: nn.unbox(fresh(seed)), out_shardings=shardings)
    return shapes, partial(make, np.uint32(seed))  # a seed may take all of its 32 bits


def make_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    shapes: TrainState,
    accumulate: int = 1,
    ema: float = 0.0,
    count: Callable[[Any], Array] = attrgetter("tokens"),
    trained: Collection[str] | None = None,
) -> Callable[[TrainState, PyTree], tuple[TrainState, dict[str, Any]]]:
    """The jitted update; gives the new state and `sums` and `gradient_norm` of the batch.

    Only the parameters at the paths in `trained` have a gradient; all, if it is None.

    The gradient is that of the summed objective divided by the `count` (of tokens, or of sentences) in the sums of the
    whole batch, so that cutting the batch into `accumulate` parts, or over devices, changes nothing but rounding.
    """

    def objective(moving, still, batch, key):
        with in_force(mesh):
            sums = loss(unflatten_dict(moving | still, sep="/"), batch, key)
        return sums.objective, sums

    def gradient_of(params, batch, key):
        flat = flatten_dict(params, sep="/")
        moving = {path: leaf for path, leaf in flat.items() if trained is None or path in trained}
        still = {path: leaf for path, leaf in flat.items() if path not in moving}
        (_, sums), gradient = jax.value_and_grad(objective, has_aux=True)(moving, still, batch, key)
        return unflatten_dict(gradient, sep="/"), sums

    def update(state: TrainState, batch: PyTree):
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        gradient, sums = _accumulated(gradient_of, accumulate, state.params, batch, key)
        with jax.named_scope("optimizer"):
            gradient = jax.tree.map(lambda g: g / jnp.maximum(count(sums), 1.0), gradient)
            changes, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
            params = optax.apply_updates(state.params, changes)
            average = optax.incremental_update(params, state.ema, 1 - ema) if state.ema is not None else None
            metrics = {"sums": sums, "gradient_norm": optax.global_norm(gradient)}
        return TrainState(state.step + 1, params, optimizer_state, average, state.key), metrics

    return jitted(update, mesh, shapes)


def jitted(
    update: Callable[[TrainState, PyTree], tuple[TrainState, PyTree]], mesh: Mesh, shapes: TrainState
) -> Callable:
    """`update` of a state, in place and sharded as `shapes` are, by batches that the mesh cuts. Metrics are whole on
    every device."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, shapes)
    return jax.jit(
        update,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
        compiler_options=OPTIONS.get(mesh.devices.flat[0].platform),
    )


def _accumulated(gradient_of: Callable, count: int, params: PyTree, batch: PyTree, key: Array) -> PyTree:
    """The sum of what `gradient_of(params, rows, key)` gives for `count` parts of the rows, one part at a time."""
    if count == 1:
        return gradient_of(params, batch, key)
    parts = jax.tree.map(partial(_interleaved, parts=count), batch)

    def add(total, part):
        index, rows = part
        return jax.tree.map(jnp.add, total, gradient_of(params, rows, jax.random.fold_in(key, index))), None

    first = jax.eval_shape(gradient_of, params, jax.tree.map(lambda x: x[0], parts), key)
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first)
    return jax.lax.scan(add, zero, (jnp.arange(count), parts))[0]


def _interleaved(rows: Array, parts: int) -> Array:
    """Every `parts`-th row in one part, so that each device keeps to its own rows."""
    return rows.reshape(rows.shape[0] // parts, parts, *rows.shape[1:]).swapaxes(0, 1)
