"""The smallest run there is: a language model of one layer on 64 rows that mean nothing."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from zoo.data.batches.base import LanguageBatch, Share
from zoo.data.batches.packing import HeldTokens, Rows, training_rows
from zoo.data.specials import NOTHING
from zoo.models.gpt import GPT, GPTConfig
from zoo.parallel.mesh import MeshConfig, make_mesh
from zoo.storage import AnyPath
from zoo.tasks.losses import cross_entropy
from zoo.tasks.metrics import Evaluation
from zoo.training.config import TrainConfig
from zoo.training.loop import Training
from zoo.training.optimizers import OptimizerConfig

SMALL = {"vocabulary": 16, "layers": 1, "width": 8, "ffn": 8, "heads": 2, "max_length": 8, "scan_layers": False}


def norm(params) -> float:
    return float(np.sqrt(sum(np.square(np.asarray(leaf)).sum() for leaf in jax.tree.leaves(params))))


class Noise:
    """A task whose `poisoned`-th batch, if any, has no finite loss, and whose validation loss is the size of the
    parameters."""

    SUMMARY = "valid"

    def __init__(self, workdir: AnyPath, poisoned: int = 0):
        self.workdir, self.poison = workdir, None
        if poisoned:
            batches = self.training_batches(1, Share())
            self.poison = [next(batches) for _ in range(poisoned)][-1].inputs

    def vocabularies(self):
        return {}

    def training_shapes(self, shards):
        return []

    def training_batches(self, shards, share):
        ids = np.random.default_rng(0).integers(4, 16, (64, 7)).astype(np.int32)
        return training_rows(Rows(HeldTokens(ids), 8, "stream"), 8, shards, 0, share)

    def training_fingerprint(self):
        return "noise"

    def example_batch(self):
        return LanguageBatch.example()

    def loss(self, model, params, batch, key=None):
        output = model.apply({"params": params}, batch, train=True, rngs={"dropout": key})
        sums = cross_entropy(output.readout, batch.labels, padding=NOTHING)
        if self.poison is None:
            return sums
        poisoned = (batch.inputs == self.poison).all()
        return sums.replace(objective=jnp.where(poisoned, jnp.nan, sums.objective))

    def evaluate(self, model, params, split, location="", most=0):
        return Evaluation({"loss": norm(params)}, [])


def training(
    task: Noise, steps: int, mesh: Mesh | None = None, seed: int = 0, ema: float = 0.0, **settings
) -> Training:
    """A run of `task` on `mesh`, by default one over which parameters and optimizer are cut, of all devices."""
    defaults = {"log_every": 1, "evaluate_every": 100, "checkpoint_every": 2, "select": "loss"}
    config = TrainConfig(steps, **(defaults | settings))
    mesh = mesh or make_mesh(MeshConfig(preset="fsdp"))
    return Training(task, GPT(GPTConfig(**SMALL)), config, OptimizerConfig(peak=0.01, warmup=1, ema=ema), mesh, seed)
