"""The likelihood of given text under a language model: of a continuation after its context, and of texts of any length
with a sliding window."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from zoo.data.batches.base import LanguageBatch
from zoo.data.batches.buckets import power_of_two
from zoo.data.ids.base import Ids
from zoo.data.specials import EOS, NOTHING
from zoo.data.tokenizers import Tokenizer
from zoo.errors import UserError
from zoo.models.base import LanguageModel

log = logging.getLogger("zoo")
LOGITS = 2**22  # logits in memory at a time
SHORTEST = 16  # the shortest padded length; longer ones are powers of two


@dataclass(frozen=True)
class Span:
    """Consecutive ids of a text. The last `scored` of them are predicted, each from all before it."""

    ids: Ids
    scored: int


@dataclass(frozen=True)
class Predicted:
    """The natural logarithm of the probability of each scored token, and whether it is the most likely one."""

    log_probabilities: Float[np.ndarray, "T"]
    most_likely: Bool[np.ndarray, "T"]

    @property
    def log_probability(self) -> float:
        """`log p(continuation | context)`: the sum over all scored tokens, in double precision."""
        return float(self.log_probabilities.sum(dtype=np.float64))


def windows(ids: Ids, length: int, stride: int) -> Iterator[Span]:
    """Spans of at most `length` inputs, each `stride` after the one before, that score every id but the first once.
    After the first span, every id is predicted from at least `length - stride` tokens.
    """
    last = len(ids) - 1
    yield Span(ids[: length + 1], min(length, last))
    for end in range(length, last, stride):  # of the window before
        start = end + stride - length
        yield Span(ids[start : start + length + 1], min(stride, last - end))


class Likelihood:
    """Scores texts with one model, which sees at most `context` tokens. `begin(blank)` gives the ids before a text;
    with `blank`, before a text whose first token is scored too. A batch has at most `batch_tokens` positions.
    """

    def __init__(
        self,
        model: LanguageModel,
        params: Any,
        tokenizer: Tokenizer,
        context: int,
        begin: Callable[[bool], list[int]],
        batch_tokens: int = 4096,
    ):
        self.model, self.params, self.tokenizer = model, params, tokenizer
        self.context, self.begin, self.batch_tokens = context, begin, batch_tokens

    def continuations(self, pairs: Sequence[tuple[str, str]], names: Sequence[str]) -> list[Predicted]:
        """The likelihood of the second text of each pair after the first, in their order.

        The two are tokenized as one text, and scored from the first token that differs from those of the first text
        alone. A context that is too long loses its beginning, with a warning. Raises `UserError`, with the pair's entry
        in `names`, for a second text that is empty or longer than the model's context.
        """
        alone = self.tokenizer.encode([context for context, _ in pairs])
        whole = self.tokenizer.encode([context + text for context, text in pairs])
        spans = [self._span(*each) for each in zip(whole, alone, names, strict=True)]
        cut = sum(len(span.ids) > self.context + 1 for span in spans)
        if cut:
            log.info("%d of %d texts lose their beginning: the model sees %d tokens", cut, len(spans), self.context)
        return self.spans([Span(span.ids[-self.context - 1 :], span.scored) for span in spans])

    def _span(self, whole: list[int], alone: list[int], name: str) -> Span:
        differ = (i for i, (one, other) in enumerate(zip(whole, alone, strict=False)) if one != other)
        shared = next(differ, min(len(whole), len(alone)))
        scored = len(whole) - shared
        if not scored:
            raise UserError(f"{name}: an empty text has no probability: write one")
        if scored > self.context:
            raise UserError(
                f"{name}: {scored} tokens to score, and the model sees {self.context}: shorten the text, or measure "
                "its perplexity as plain text"
            )
        return Span(np.array(self.begin(shared == 0) + whole, np.int32), scored)

    def documents(self, documents: Iterable[str], stride: int) -> list[Predicted]:
        """The likelihood of whole documents, each with its end, in parts: every token once, by `windows`.

        Raises `UserError` for a stride beyond the model's context.
        """
        if not 1 <= stride <= self.context:
            raise UserError(f"stride={stride}: use 1 to {self.context}, the tokens that the model sees")
        encoded = self.tokenizer.encode(list(documents))
        texts = (np.array([*self.begin(True), *ids, EOS], np.int32) for ids in encoded)
        return self.spans([span for ids in texts for span in windows(ids, self.context, stride)])

    def spans(self, spans: Sequence[Span]) -> list[Predicted]:
        """The likelihood of the scored tokens of each span, in their order; spans of similar length share batches."""
        results: list[Predicted | None] = [None] * len(spans)
        for indices, batch in self._batches(spans):
            log_probabilities, most_likely = jax.device_get(_predicted(self.model, self.params, batch))
            for row, i in enumerate(indices):
                end = len(spans[i].ids) - 1
                scored = slice(end - spans[i].scored, end)
                results[i] = Predicted(log_probabilities[row, scored], most_likely[row, scored])
        return results

    def _batches(self, spans: Sequence[Span]) -> Iterator[tuple[list[int], LanguageBatch]]:
        """Batches of few shapes: the indices of a batch's first rows, and the batch; its other rows predict nothing."""
        shapes = np.array([max(SHORTEST, power_of_two(len(span.ids) - 1)) for span in spans])
        for shape in np.unique(shapes).tolist():
            indices, length = np.flatnonzero(shapes == shape).tolist(), min(shape, self.context)
            rows = min(max(1, self.batch_tokens // length), power_of_two(len(indices)))
            for first in range(0, len(indices), rows):
                some = indices[first : first + rows]
                inputs, labels = np.zeros((rows, length), np.int32), np.full((rows, length), NOTHING, np.int32)
                for row, i in enumerate(some):
                    ids = spans[i].ids
                    inputs[row, : len(ids) - 1], labels[row, : len(ids) - 1] = ids[:-1], ids[1:]
                yield some, LanguageBatch(inputs, labels)


@partial(jax.jit, static_argnames="model")
def _predicted(
    model: LanguageModel, params: Any, batch: LanguageBatch
) -> tuple[Float[Array, "B T"], Bool[Array, "B T"]]:
    """`log p(x_t | x_<t)` of every label, and whether it is the most likely; meaningless where the label is
    `NOTHING`."""
    readout = model.apply({"params": params}, batch).readout

    def of_label(place: tuple[Float[Array, "E"], Array]) -> tuple[Array, Array]:
        state, label = place
        logits = readout.replace(states=state[None, None]).logits()[0, 0]
        return logits[label] - jax.nn.logsumexp(logits), jnp.argmax(logits) == label

    places = readout.states.reshape(-1, readout.states.shape[-1]), jnp.asarray(batch.labels).reshape(-1)
    together = max(1, LOGITS // readout.vocabulary)
    log_probabilities, most_likely = jax.lax.map(of_label, places, batch_size=min(together, len(places[1])))
    return log_probabilities.reshape(batch.labels.shape), most_likely.reshape(batch.labels.shape)
