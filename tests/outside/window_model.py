"""A sixth model, from outside the zoo: the feed-forward language model of Bengio et al. 2003, as one file."""

from dataclasses import dataclass, replace

import flax.linen as nn
import jax.numpy as jnp
from flax import struct

from zoo.data.batches.base import LanguageBatch
from zoo.models import registry
from zoo.models.base import Output, Readout
from zoo.nn.linear import Dense, Embedding

PAPER = "Bengio et al. 2003"


@dataclass(frozen=True)
class WindowConfig:
    vocabulary: int = 100
    width: int = 16
    window: int = 3
    dtype: str = "float32"


@struct.dataclass
class WindowCache:
    """The `window - 1` tokens before the next one of each hypothesis, the latest first; -1 where there is none."""

    tokens: jnp.ndarray  # [B, K, N - 1]


class Window(nn.Module):
    """Eq. 1, without the direct connections: `softmax(b + U tanh(d + H x))`, `x` the embeddings of the last words."""

    config: WindowConfig

    def setup(self):
        c = self.config
        self.embedding = Embedding(c.vocabulary, c.width, jnp.dtype(c.dtype), nn.initializers.normal(0.1))
        self.hidden = Dense(c.width, inputs=2, axes=(None, "embed", "mlp"))

    def __call__(self, batch: LanguageBatch, train: bool = False, weights: bool = False) -> Output:
        tokens = jnp.asarray(batch.inputs)
        segments = jnp.ones_like(tokens) if batch.segments is None else jnp.asarray(batch.segments)
        seen = [jnp.where(self._earlier(segments, n) == segments, self._earlier(tokens, n), -1) for n in self._places]
        return Output(self._readout(jnp.stack(seen, axis=-1)), {} if weights else None)

    @property
    def _places(self) -> range:
        return range(self.config.window)

    def _earlier(self, row, places: int):
        """What stands `places` before each position; -1 before the first."""
        return jnp.pad(row, ((0, 0), (places, 0)), constant_values=-1)[:, : row.shape[1]]

    def _readout(self, seen) -> Readout:
        """From the last words `[B, T, N]`."""
        words = jnp.where(seen[..., None] >= 0, self.embedding(jnp.maximum(seen, 0)), 0)
        return Readout(jnp.tanh(self.hidden(words)), self.embedding.table, contract=1)

    def prefill(self, source, length: int, beams: int = 1) -> WindowCache:
        source = jnp.asarray(source)
        lengths = (source >= 0).sum(axis=1, keepdims=True)
        places = lengths - 1 - jnp.arange(self.config.window - 1)
        tokens = jnp.where(places >= 0, jnp.take_along_axis(source, jnp.maximum(places, 0), axis=1), -1)
        return WindowCache(jnp.repeat(tokens[:, None], beams, axis=1))

    def decode_step(self, cache: WindowCache, tokens):
        seen = jnp.concatenate([tokens[..., None], cache.tokens], axis=-1)
        nowhere = jnp.zeros((*tokens.shape, 1))
        return replace(cache, tokens=seen[..., :-1]), self._readout(seen).logits(), nowhere

    def grow(self, cache: WindowCache, more: int) -> WindowCache:
        return cache

    def reorder(self, cache: WindowCache, parents) -> WindowCache:
        return replace(cache, tokens=jnp.take_along_axis(cache.tokens, parents[..., None], axis=1))


SIZES = {"small": WindowConfig(), "wide": WindowConfig(width=32)}
registry.register("window", registry.Family(Window, WindowConfig, SIZES, PAPER, LanguageBatch))
