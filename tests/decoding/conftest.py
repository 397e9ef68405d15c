"""A Transformer that was never trained, with parameters wild enough that its hypotheses differ."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from zoo.data.batching import Seq2SeqBatch
from zoo.models.transformer import Transformer, TransformerConfig

VOCABULARY = 14


@pytest.fixture(scope="session")
def wild():
    """The model, and its parameters at three times their size."""
    config = TransformerConfig(VOCABULARY, VOCABULARY, layers=2, width=16, ffn=32, heads=2, dropout=0.0)
    model, nothing = Transformer(config), np.ones((1, 1), np.int32)
    variables = jax.jit(lambda: nn.unbox(model.init(jax.random.key(3), Seq2SeqBatch(nothing, nothing, nothing))))()
    return model, jax.tree.map(lambda x: 3 * x, variables["params"])
