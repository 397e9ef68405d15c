"""GPT as a classifier: Radford et al. 2018, section 3.2 and 3.3, and Figure 1 (right).

The body is the pretrained model, with rows for the start, delimiter and extract tokens after its vocabulary; a linear
layer reads its last state at the extract token.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from zoo.data.batches.base import LabelledBatch, LanguageBatch
from zoo.data.ids.transformations import Layout
from zoo.models import gpt
from zoo.models.base import Readout
from zoo.nn.dropout import Dropout
from zoo.nn.linear import Dense

PAPER = gpt.PAPER


@dataclass(frozen=True)
class GPTClassifierConfig(gpt.GPTConfig):
    """`outputs` is the number of labels, or 1 to compare answers or predict a number. `vocabulary` includes the three
    added tokens. `head_dropout` applies to the state that the linear layer reads (section 4.1)."""

    outputs: int = 2
    head_dropout: float = 0.1


def _of_size(size: str) -> GPTClassifierConfig:
    config = gpt.SIZES[size]
    return GPTClassifierConfig(**asdict(replace(config, vocabulary=config.vocabulary + Layout.ADDED)))


SIZES: dict[str, GPTClassifierConfig] = {size: _of_size(size) for size in ("nano", "gpt1")}


@struct.dataclass
class ClassifierOutput:
    """The `scores` of every label or answer, or a regression's one value, and the text prediction of all sequences."""

    scores: Float[Array, "B C"]
    readout: Readout


class GPTClassifier(nn.Module):
    """Radford et al. 2018, eq. 3, below its softmax: h W_y. The parameters `body` are those of `gpt.GPT`."""

    config: GPTClassifierConfig

    def setup(self):
        c = self.config
        self.body = gpt.GPT(c)
        self.head_dropout = Dropout(c.head_dropout)
        self.head = Dense(
            c.outputs, ("embed", None), dtype=jnp.dtype(c.dtype), kernel_init=nn.initializers.normal(gpt.STD)
        )

    @property
    def added_rows(self) -> dict[str, int]:
        """By the path of a table, how many of its last rows a language model does not have."""
        return {"body/embedding/table": Layout.ADDED}

    def __call__(self, batch: LabelledBatch, train: bool = False) -> ClassifierOutput:
        """After an extract token there is only padding, which causality hides."""
        rows, answers, orders, length = batch.inputs.shape
        inputs, labels = (jnp.asarray(x).reshape(-1, length) for x in (batch.inputs, batch.labels))
        readout = self.body(LanguageBatch(inputs, labels), train).readout
        states = readout.states.reshape(rows, answers, orders, length, -1)
        at_extract = jnp.take_along_axis(states, jnp.asarray(batch.ends)[..., None, None], axis=3)[..., 0, :]
        # Section 3.3, similarity: the states of both orders are added before the linear layer.
        scores = self.head(self.head_dropout(at_extract.sum(axis=2), train))
        return ClassifierOutput(scores.reshape(rows, -1).astype(jnp.float32), readout)


def like_pretrained(params: Any) -> Any:
    """From the parameters of a classifier (or their shapes), those of the body that it may begin with: without the rows
    of the added tokens."""
    table = params["body"]["embedding"]["table"]
    shape = jax.ShapeDtypeStruct((table.shape[0] - Layout.ADDED, table.shape[1]), table.dtype)
    return params["body"] | {"embedding": {"table": shape}}
