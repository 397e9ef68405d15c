"""A working directory opened for use: the model it holds, ready to translate."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax

from zoo.checkpoints import load_parameters
from zoo.decoding.translator import Translator
from zoo.experiment import Experiment, from_workdir
from zoo.models import registry
from zoo.tasks.translation import Translation


@dataclass
class Workdir:
    """`load("runs/phrases").translate(["Thursday, March 3, 2022"])`."""

    path: Path
    experiment: Experiment
    checkpoint: str = "best"

    @cached_property
    def task(self) -> Translation:
        return self.experiment.make_task(self.path)

    @cached_property
    def model(self) -> nn.Module:
        return registry.of(self.experiment.model_config(self.task))

    @cached_property
    def params(self) -> Any:
        """The parameters of `checkpoint`: best (or else the latest), latest, average, or the number of a step."""
        batch = self.task.example_batch()
        like = jax.eval_shape(lambda key: nn.unbox(self.model.init(key, batch))["params"], jax.random.key(0))
        where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), like)
        return load_parameters(self.path, self.checkpoint, like)[1]

    def translator(self, batch_tokens: int = 2048) -> Translator:
        return Translator(self.model, self.params, *self.task.tokenizers, self.experiment.decoding, batch_tokens)

    def translate(self, lines: list[str]) -> list[str]:
        """The best translation of every line."""
        return [best[0].text for best in self.translator()(lines)]


def load(path: str | Path, checkpoint: str = "best", changes: tuple[tuple[str, str], ...] = ()) -> Workdir:
    """Open a working directory; `changes` are keys of its config to use otherwise, as `("decoding.beam_size", "1")`."""
    return Workdir(Path(path), from_workdir(Path(path), changes), checkpoint)
