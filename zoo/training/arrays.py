"""Training on arrays: a model, an optimizer and a loss are enough; no task, text or working directory."""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from zoo.data.batches.base import LanguageBatch, Seq2SeqBatch
from zoo.data.specials import NOTHING, PAD
from zoo.models import registry
from zoo.parallel.mesh import MeshConfig, make_mesh
from zoo.parallel.rules import batch_sharding, parameter_count, place
from zoo.tasks.losses import Sums, cross_entropy
from zoo.training.calls import in_one_call
from zoo.training.step import TrainState, born, make_step

PyTree = Any
Loss = Callable[[Any, PyTree, PyTree, jax.Array], Any]  # (model, params, batch, dropout key) -> sums


def next_token_loss(
    model: Any, params: PyTree, batch: LanguageBatch | Seq2SeqBatch, key: jax.Array, smoothing: float = 0.0
) -> Sums:
    """Cross-entropy over the labels of a batch, with dropout: the loss of language modeling and of translation."""
    output = model.apply({"params": params}, batch, train=True, rngs={"dropout": key})
    return cross_entropy(output.readout, batch.labels, smoothing, NOTHING if isinstance(batch, LanguageBatch) else PAD)


class ArrayTraining:
    """Trains a model of the zoo on batches of arrays.

        training = ArrayTraining(zoo.build("gpt", "nano", vocabulary=65), optax.adam(1e-3))
        for batch in batches:
            metrics = training.update(batch)

    `training.state` has the parameters and the optimizer's moments; set it to `training.fresh()` to begin anew.
    `loss(model, params, batch, key)` gives sums, as `zoo.tasks.losses.Sums` or with the same `objective` and `tokens`.
    `mesh` defaults to all devices, with the batch sharded over them; `lower` also works for devices that are not there.
    """

    def __init__(
        self,
        model: Any,
        optimizer: optax.GradientTransformation,
        loss: Loss = next_token_loss,
        mesh: Mesh | None = None,
        seed: int = 0,
    ):
        self.model, self.mesh = model, make_mesh(MeshConfig()) if mesh is None else mesh
        example = registry.example_batch(model.config)
        self.shapes, self.fresh = born(
            lambda key: model.init(key, example)["params"], optimizer, self.mesh, seed, ema=False
        )
        self.step = make_step(partial(loss, model), optimizer, self.mesh, self.shapes)
        self._several = in_one_call(self.step, self.shapes, self.mesh)

    @cached_property
    def state(self) -> TrainState:
        """Parameters and optimizer, made when they are first needed."""
        return self.fresh()

    @property
    def parameters(self) -> int:
        return parameter_count(self.shapes.params)

    def update(self, batch: PyTree) -> dict[str, Any]:
        """One step on a batch from the host, or one that is on the devices already: `sums` and `gradient_norm`."""
        self.state, metrics = self.step(self.state, self._placed(batch))
        return metrics

    def updates(self, batches: Sequence[PyTree]) -> dict[str, Any]:
        """One step on each of several batches of one shape, all in one call of the device, which saves time where steps
        are short: `sums` and `gradient_norm`, each with the steps as its first axis."""
        self.state, metrics = self._several(self.state, tuple(map(self._placed, batches)))
        return metrics

    def _placed(self, batch: PyTree) -> PyTree:
        there = all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(batch))
        return batch if there else place(batch, self.mesh)

    def lower(self, batch: PyTree) -> jax.stages.Lowered:
        """The step on batches of these shapes, ready to be compiled."""
        where = batch_sharding(self.mesh)
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), batch)
        return self.step.lower(self.shapes, shapes)
