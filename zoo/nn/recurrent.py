"""The recurrent layers of 2014: LSTM and gated units over one scan, fast forward and backward. Time is the first axis.

All products with what is known beforehand (the inputs) stand before the scan, as one product for the whole sequence;
all gradients of kernels are computed after the backward scan, again as one product each (`recur`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Bool, Float, Int

from zoo.nn.linear import Dense, Initializer, dot, summed_outer
from zoo.nn.quantization import Quantized

PyTree = Any
Kernels = Mapping[str, Array | Quantized]
Times = Callable[[str, Array], Array]  # (name of a kernel, vectors) -> their product
Step = Callable[[Times, PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]  # (times, given, carry, x) -> (carry, y)
State = tuple[Float[Array, "*B N"], ...]  # what a cell carries; the first is the hidden state that others see


def times(kernels: Kernels, dtype, name: str, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
    """`x @ kernels[name]`, float32. A kernel `[B, I, O]` holds a matrix for each row: then `x` is `[B, K, I]`."""
    kernel = kernels[name]
    if kernel.ndim == 2:
        return dot(x, kernel, dtype)
    return jnp.einsum("bki,bio->bko", x.astype(dtype), kernel.astype(dtype), preferred_element_type=jnp.float32)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def recur(
    step: Step, dtype: Any, reverse: bool, kernels: Kernels, given: PyTree, carry: PyTree, xs: PyTree
) -> tuple[PyTree, PyTree]:
    """`lax.scan` of `step` over the first axis of `xs`: the last carry and all `y`.

    `step` multiplies by kernels only through the `times` that it is handed. A plain scan would add up the gradient of
    every kernel step by step, in float32; here the gradients of the products are kept, and one product over all steps
    gives that of the kernel.
    """
    return lax.scan(lambda carry, x: step(partial(times, kernels, dtype), given, carry, x), carry, xs, reverse=reverse)


def _recur_forward(step, dtype, reverse, kernels, given, carry, xs):
    low = {name: kernel.astype(dtype) for name, kernel in kernels.items()}
    probes = _probes(step, dtype, low, given, carry, xs)

    def run(given, carry, xs, probes):
        def probed(carry, x):
            x, probe = x
            seen = {}

            def times_probed(name, vector):
                seen[name] = vector.astype(dtype)
                return times(low, dtype, name, vector) + probe[name]

            carry, y = step(times_probed, given, carry, x)
            return carry, (y, seen)

        carry, (ys, seen) = lax.scan(probed, carry, (xs, probes), reverse=reverse)
        return (carry, ys), seen

    outputs, pullback, seen = jax.vjp(run, given, carry, xs, probes, has_aux=True)
    return outputs, (pullback, seen, {name: kernel[:0] for name, kernel in kernels.items()})


def _probes(step, dtype, kernels, given, carry, xs) -> dict[str, Array]:
    """A zero for every product of every step: the gradient of the zero is that of the product."""
    shapes = {}

    def recorded(name, vector):
        product = times(kernels, dtype, name, vector)
        shapes[name] = product.shape
        return product

    jax.eval_shape(partial(step, recorded), given, carry, jax.tree.map(lambda leaf: leaf[0], xs))
    length = jax.tree.leaves(xs)[0].shape[0]
    return {name: jnp.zeros((length, *shape), jnp.float32) for name, shape in shapes.items()}


def _recur_backward(step, dtype, reverse, residuals, gradient):
    pullback, seen, like = residuals
    given, carry, xs, products = pullback(gradient)
    kernels = {name: _kernel_gradient(seen[name], products[name].astype(dtype), like[name]) for name in like}
    return kernels, given, carry, xs


def _kernel_gradient(seen: Float[Array, "T *B I"], gradient: Float[Array, "T *B O"], like: Array) -> Array:
    if like.ndim == 3:
        products = jnp.einsum("tbki,tbko->bio", seen, gradient, preferred_element_type=jnp.float32)
    else:
        products = summed_outer(seen, gradient)
    return products.astype(like.dtype)


recur.defvjp(_recur_forward, _recur_backward)


@dataclass(frozen=True)
class Cell:
    """How one step goes. `kernels` names the recurrent kernels and how many gates each computes, in the order of the
    gates in the inputs; `vectors` is how many vectors the state has. `step` takes the inputs' part of all gates,
    `[..., gates · N]`, biases included."""

    step: Callable[[Times, State, Array], State]
    kernels: tuple[tuple[str, int], ...]
    vectors: int = 1

    @property
    def gates(self) -> int:
        return sum(gates for _, gates in self.kernels)


def _lstm_step(times: Times, state: State, x: Float[Array, "*B G"]) -> State:
    hidden, cell = state
    gates = jnp.split(x + times("gates", hidden), 4, axis=-1)
    admit, keep, show = (jax.nn.sigmoid(gates[i]) for i in (0, 1, 3))  # Graves 2013, eqs. 7, 8 and 10
    cell = keep * cell + admit * jnp.tanh(gates[2])  # eq. 9
    return show * jnp.tanh(cell), cell  # eq. 11


def _gru_step(blend: Callable, times: Times, state: State, x: Float[Array, "*B G"]) -> State:
    (hidden,) = state
    gates, candidate = x[..., : -hidden.shape[-1]], x[..., -hidden.shape[-1] :]
    update, reset = jnp.split(jax.nn.sigmoid(gates + times("gates", hidden)), 2, axis=-1)
    # The reset comes before the product: Cho et al. 2014, eq. 8; Bahdanau et al. 2015, A.1.1.
    candidate = jnp.tanh(candidate + times("candidate", reset * hidden))
    return (blend(update, hidden, candidate),)


def _update_admits(update: Array, old: Array, new: Array) -> Array:
    return (1 - update) * old + update * new


def _update_keeps(update: Array, old: Array, new: Array) -> Array:
    return update * old + (1 - update) * new


_GRU_KERNELS = (("gates", 2), ("candidate", 1))

LSTM = Cell(_lstm_step, (("gates", 4),), vectors=2)
"""Graves 2013, eqs. 7 to 11, without its peepholes. Gates: input, forget, cell, output. State: hidden, cell."""
GRU_CHO = Cell(partial(_gru_step, _update_keeps), _GRU_KERNELS)
"""Cho et al. 2014, eqs. 5 to 8: `z h + (1 - z) h̃`. Gates: update, reset, candidate."""
GRU_BAHDANAU = Cell(partial(_gru_step, _update_admits), _GRU_KERNELS)
"""Bahdanau et al. 2015, A.1.1: `(1 - z) h + z h̃`. Gates: update, reset, candidate."""


@dataclass(frozen=True)
class Inits:
    """What fresh parameters are drawn from. `recurrent` draws each gate's square matrix by itself."""

    kernel: Initializer
    recurrent: Initializer
    embedding: Initializer
    bias: Initializer = nn.initializers.zeros


def symmetric_uniform(bound: float) -> Initializer:
    """U(−bound, bound)."""

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


GLOROT = Inits(
    kernel=nn.initializers.xavier_uniform(),
    recurrent=nn.initializers.orthogonal(),
    embedding=nn.initializers.normal(0.1),
)
"""For small widths, where the papers' small numbers learn slowly."""


def gate_by_gate(initializer: Initializer) -> Initializer:
    """For a kernel `[N, gates, N]`: each gate's matrix drawn by itself."""

    def init(key, shape, dtype=jnp.float32):
        keys = jax.random.split(key, shape[1])
        return jnp.stack([initializer(k, (shape[0], shape[2]), dtype) for k in keys], axis=1)

    return init


class Recurrent(nn.Module):
    """A layer of `width` units of one cell.

    `inputs` computes what the inputs give to every gate, for all steps at once; `__call__` runs over a sequence of
    that, `step` makes one step. The split lets a decoder add its context to the gates.
    """

    cell: Cell
    width: int
    inits: Inits
    dtype: DTypeLike = jnp.float32

    def setup(self):
        gates = self.cell.gates
        axes = ("embed", None, "mlp")
        self.input = Dense((gates, self.width), axes=axes, bias=False, dtype=self.dtype, kernel_init=self.inits.kernel)
        self.bias = self.param("bias", nn.with_logical_partitioning(self.inits.bias, axes[1:]), (gates, self.width))
        init = nn.with_logical_partitioning(gate_by_gate(self.inits.recurrent), axes)
        self.recurrent = {
            name: self.param(name, init, (self.width, count, self.width)) for name, count in self.cell.kernels
        }

    def inputs(self, x: Float[Array, "*B E"]) -> Float[Array, "*B G"]:
        gates = self.input(x) + self.bias
        return gates.reshape(*x.shape[:-1], -1).astype(self.dtype)

    def kernels(self) -> Kernels:
        """The recurrent kernels as matrices, for `recur`."""
        return {name: kernel.reshape(self.width, -1) for name, kernel in self.recurrent.items()}

    def zeros(self, *batch: int) -> State:
        return (jnp.zeros((*batch, self.width), jnp.float32),) * self.cell.vectors

    def __call__(
        self,
        inputs: Float[Array, "T *B G"],
        state: State | None = None,
        real: Bool[Array, "T *B"] | None = None,
        reverse: bool = False,
    ) -> tuple[Float[Array, "T *B N"], State]:
        """The hidden states of all steps, in the compute dtype, and the last state, from `state` or zeros.

        Steps that are not `real` leave the state as it was, in either direction: with `reverse`, which runs from the
        end to the front, it is still at its start when the first real step comes.
        """
        state = self.zeros(*inputs.shape[1:-1]) if state is None else state
        step = partial(_layer_step, self.cell, self.dtype)
        real = None if real is None else real[..., None]
        state, states = recur(step, self.dtype, reverse, self.kernels(), None, state, (inputs, real))
        return states, state

    def step(self, state: State, inputs: Float[Array, "*B G"]) -> State:
        return self.cell.step(partial(times, self.kernels(), self.dtype), state, inputs)


def _layer_step(cell: Cell, dtype, times: Times, given: None, state: State, x) -> tuple[State, Array]:
    inputs, real = x
    new = cell.step(times, state, inputs)
    if real is not None:
        new = jax.tree.map(lambda new, old: jnp.where(real, new, old), new, state)
    return new, new[0].astype(dtype)


class Bidirectional(nn.Module):
    """Two layers that read the same words in both directions (Bahdanau et al. 2015, section 3.2)."""

    cell: Cell
    width: int
    inits: Inits
    dtype: DTypeLike = jnp.float32

    def setup(self):
        self.forward = Recurrent(self.cell, self.width, self.inits, self.dtype)
        self.backward = Recurrent(self.cell, self.width, self.inits, self.dtype)

    def __call__(self, x: Float[Array, "S *B E"], real: Bool[Array, "S *B"]) -> tuple[Float[Array, "S *B C"], State]:
        """The annotations `[→h; ←h]`, and the state of the backward layer at the first word."""
        ahead, _ = self.forward(self.forward.inputs(x), real=real)
        back, first = self.backward(self.backward.inputs(x), real=real, reverse=True)
        return jnp.concatenate([ahead, back], axis=-1), first


def of_parents(states: PyTree, parents: Int[ArrayLike, "B K"]) -> PyTree:
    """The states `[B, K, ...]` of the hypotheses that continue `parents`."""

    def pick(leaf):
        return jnp.take_along_axis(leaf, parents.reshape(parents.shape + (1,) * (leaf.ndim - 2)), axis=1)

    return jax.tree.map(pick, states)
