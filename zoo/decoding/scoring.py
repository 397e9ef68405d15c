"""How likely a model holds given translations to be: their log-probabilities by teacher forcing."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from zoo.data.batching import Seq2SeqBatch, TokenPair, given_batches
from zoo.data.tokenizers import Tokenizer
from zoo.decoding.beam import BeamConfig, normalizer
from zoo.decoding.translator import encoded
from zoo.models.base import Seq2SeqModel


@dataclass(frozen=True)
class Scored:
    """A given translation: the natural logarithm of each token's probability, EOS the last, and the `score` that beam
    search would give it, their sum divided by `normalizer`."""

    log_probabilities: Float[np.ndarray, "T"]
    score: float

    @property
    def log_probability(self) -> float:
        """Of the whole translation: `log p(target | source)`."""
        return float(self.log_probabilities.sum())


class Scorer:
    """Scores with one model. Pairs of like length go together, `batch_tokens` padded tokens a side each."""

    def __init__(
        self,
        model: Seq2SeqModel,
        params: Any,
        source: Tokenizer,
        target: Tokenizer,
        config: BeamConfig,
        batch_tokens: int = 2048,
    ):
        self.model, self.params, self.source, self.target = model, params, source, target
        self.config, self.batch_tokens = config, batch_tokens

    def __call__(self, pairs: Sequence[tuple[str, str]], first: int = 1) -> list[Scored]:
        """The score of every pair (source, target) of texts, in their order.

        A source of more than `decoding.max_length` tokens is cut there, as for its translation, with a warning; `first`
        is the number of the first line. A target without tokens is EOS alone.
        """
        sources = encoded(self.source, [source for source, _ in pairs], self.config.max_length, first)
        targets = self.target.encode([target for _, target in pairs])
        return self.of_ids(
            [(np.array(s, np.int32), np.array(t, np.int32)) for s, t in zip(sources, targets, strict=True)]
        )

    def of_ids(self, pairs: Sequence[TokenPair]) -> list[Scored]:
        """The score of every pair of ids without EOS, in their order; nothing is cut."""
        results: list[Scored | None] = [None] * len(pairs)
        for indices, batch in given_batches(pairs, self.batch_tokens):
            log_probabilities = jax.device_get(_log_probabilities(self.model, self.params, batch))
            for row, i in enumerate(indices):
                results[i] = self._scored(log_probabilities[row, : len(pairs[i][1]) + 1])
        return results

    def _scored(self, log_probabilities: Float[np.ndarray, "T"]) -> Scored:
        length = normalizer(len(log_probabilities), self.config.length_penalty)
        return Scored(log_probabilities, float(log_probabilities.sum() / length))


@partial(jax.jit, static_argnames="model")
def _log_probabilities(model: Seq2SeqModel, params: Any, batch: Seq2SeqBatch) -> Float[Array, "B T"]:
    """`log p(y_t | y_<t, x)` of every label; what stands at padding means nothing."""
    logits = model.apply({"params": params}, batch).logits
    of_label = jnp.take_along_axis(logits, batch.labels[:, :, None], axis=-1)[..., 0]
    return of_label - jax.nn.logsumexp(logits, axis=-1)
