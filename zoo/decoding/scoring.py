"""Log-probabilities of given translations, by teacher forcing."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from zoo.data.batches.base import Seq2SeqBatch
from zoo.data.batches.buckets import given_batches
from zoo.data.ids.base import TokenPair
from zoo.data.specials import PAD
from zoo.data.tokenizers import Tokenizer
from zoo.decoding.alignment import aligning
from zoo.decoding.beam import BeamConfig, final_score
from zoo.decoding.translator import encoded
from zoo.models.base import Seq2SeqModel


@dataclass(frozen=True)
class Scored:
    """A given translation: the natural logarithm of each token's probability, EOS the last, and the `score` that beam
    search gives it, `final_score`."""

    log_probabilities: Float[np.ndarray, "T"]
    score: float

    @property
    def log_probability(self) -> float:
        """`log p(target | source)` of the whole translation."""
        return float(self.log_probabilities.sum())


class Scorer:
    """Scores pairs with one model. Pairs of similar length share a batch of `batch_tokens` padded tokens a side."""

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

        A source of more than `decoding.max_length` tokens is cut, as in translation, with a warning; `first` is the
        number of the first line. A target without tokens is just EOS.
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
            log_probabilities, scores = jax.device_get(_scored(self.model, self.params, batch, self.config))
            for row, i in enumerate(indices):
                results[i] = Scored(log_probabilities[row, : len(pairs[i][1]) + 1], float(scores[row]))
        return results


@partial(jax.jit, static_argnames=("model", "config"))
def _scored(
    model: Seq2SeqModel, params: Any, batch: Seq2SeqBatch, config: BeamConfig
) -> tuple[Float[Array, "B T"], Float[Array, "B"]]:
    """`log p(y_t | y_<t, x)` of every label, 0 at padding, and the score of each row."""
    output = model.apply({"params": params}, batch, weights=bool(config.coverage_penalty))
    logits, real = output.logits, jnp.cumsum(batch.labels[:, ::-1] != PAD, axis=1)[:, ::-1] > 0  # EOS is the last
    of_label = jnp.take_along_axis(logits, batch.labels[:, :, None], axis=-1)[..., 0]
    log_probabilities = jnp.where(real, of_label - jax.nn.logsumexp(logits, axis=-1), 0.0)
    coverage = None
    if config.coverage_penalty:
        coverage = jnp.sum(aligning(output.attention["cross"]), axis=1, where=real[:, :, None], keepdims=True)
    total, length = (each.sum(axis=1, keepdims=True) for each in (log_probabilities, real))
    return log_probabilities, final_score(total, length, coverage, batch.source, config)[:, 0]
