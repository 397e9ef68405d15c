"""Several steps in one call of the device. A small model gains: its steps are shorter than the host's work for each."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from zoo.parallel.devices import peak_flops
from zoo.training.config import TrainConfig
from zoo.training.step import TrainState, jitted

PyTree = Any
MOST = 10  # steps in a call, if the config does not say
SHORT = 0.002  # seconds that a step of a small model takes at the peak rate of the devices, at most


def steps_per_call(config: TrainConfig, shapes: Sequence[PyTree], flops_per_token: float) -> int:
    """`train.steps_per_call`; if it is 0, up to 10 for a small model on an accelerator whose batches have one shape.

    What is chosen divides `train.log_every` and `train.checkpoint_every`, so that it fits between them.
    """
    if config.steps_per_call:
        return config.steps_per_call
    peak = peak_flops()
    if peak is None or len(shapes) != 1 or math.prod(shapes[0].inputs.shape) * flops_per_token > SHORT * peak:
        return 1
    interval = math.gcd(config.log_every, config.checkpoint_every)
    return max(size for size in range(1, MOST + 1) if interval % size == 0)


def calls(start: int, end: int, size: int, pauses: Callable[[int], bool]) -> Iterator[range]:
    """The steps after `start`, up to `end`, as those of each call: `size` steps or a single one.

    A call of several steps is one of 1 to `size`, `size + 1` to `2 * size` and so on, wherever the run starts, so that
    a run that resumes computes the same. If something happens before its last, that is if `pauses(step)` is true, its
    steps are single.
    """
    step = start
    while step < end:
        call = range(step + 1, step + 1 + size)
        whole = step % size == 0 and call[-1] <= end and not any(map(pauses, call[:-1]))
        call = call if whole else call[:1]
        yield call
        step = call[-1]


def in_one_call(step: Callable, shapes: TrainState, mesh: Mesh) -> Callable[[TrainState, tuple[PyTree, ...]], Any]:
    """The jitted `step` for several batches of one shape, one after the other: the new state, and metrics with the
    steps as their first axis."""

    def several(state: TrainState, batches: tuple[PyTree, ...]):
        return jax.lax.scan(step, state, jax.tree.map(lambda *rows: jnp.stack(rows), *batches))

    return jitted(several, mesh, shapes)
