"""Compile all shapes of a run in parallel before its first step, instead of one after the other when each first
occurs."""

import logging
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import jax
from jax.sharding import Mesh

from zoo.parallel.rules import batch_sharding

log = logging.getLogger("zoo")
PyTree = Any
MOST = 16  # programs at a time, since each takes memory of the host


def compiled_ahead(
    step: Callable, state: PyTree, batches: Iterable[PyTree], mesh: Mesh
) -> Callable[[PyTree, PyTree], tuple[PyTree, Any]]:
    """The jitted `step` with a compiled program for each of the shapes in `batches`; any other shape is compiled when
    it occurs. `state` gives shapes and shardings."""
    where = batch_sharding(mesh)
    shapes = [
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), batch) for batch in batches
    ]
    programs: dict[Any, Callable] = {}
    began = time.perf_counter()
    with ThreadPoolExecutor(min(MOST, len(shapes), os.cpu_count() or 1)) as threads:
        waiting = {threads.submit(lambda batch: step.lower(state, batch).compile(), batch): batch for batch in shapes}
        for done in as_completed(waiting):
            programs[shape_of(waiting[done])] = done.result()
            elapsed = time.perf_counter() - began
            log.info("compiled %d of %d shapes of batches in %.0f s", len(programs), len(shapes), elapsed)

    def run(state: PyTree, batch: PyTree) -> tuple[PyTree, Any]:
        return programs.get(shape_of(batch), step)(state, batch)

    return run


def shape_of(batch: PyTree) -> tuple[tuple[int, ...], ...]:
    """The shapes of its arrays."""
    return tuple(leaf.shape for leaf in jax.tree.leaves(batch))
