"""The contract of a model, and what all models share.

A model is a Flax Linen module plus a frozen config dataclass. Training needs `__call__`; decoding needs `prefill`,
`decode_step`, `grow` and `reorder`, and nothing else, so the LSTM of 2014 and GPT share one beam search.
"""

from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Bool, Float, Int

from zoo.data.batches.base import LanguageBatch, Seq2SeqBatch
from zoo.errors import UserError
from zoo.nn.fused_softmax import EXCLUDED
from zoo.nn.linear import add_bias, dot
from zoo.nn.quantization import Quantized

Cache = Any  # a tree of arrays that only its own model looks into


@struct.dataclass
class Readout:
    """The last linear map before it is applied: `states @ matrix + bias`, or `states @ matrix.T` with `contract=1`.

    So a loss can compute the logits in parts; `logits()` computes them all. `excluded` rows of the vocabulary are never
    predicted, since published models do not have them.
    """

    states: Float[Array, "B T E"]
    matrix: Float[Array, "_ _"] | Quantized
    bias: Float[Array, "V"] | None = None
    contract: int = struct.field(pytree_node=False, default=0)
    dtype: Any = struct.field(pytree_node=False, default=jnp.float32)
    excluded: tuple[int, ...] = struct.field(pytree_node=False, default=())

    @property
    def vocabulary(self) -> int:
        return self.matrix.shape[1 - self.contract]

    def logits(self, result: DTypeLike = jnp.float32) -> Float[Array, "B T V"]:
        """All logits, from inputs in `dtype`. They are in float32, since a search compares them, unless another
        `result` is named."""
        logits = dot(self.states, self.matrix, self.dtype, self.contract, result)
        if self.bias is not None:
            logits = add_bias(logits, self.bias)
        return jnp.where(self.predicted(), logits, EXCLUDED) if self.excluded else logits

    def predicted(self) -> Bool[Array, "V"]:
        """Which rows of the vocabulary are not excluded."""
        return jnp.ones(self.vocabulary, bool).at[jnp.array(self.excluded, int)].set(False)


def check_excluded(rows: tuple[int, ...], vocabulary: int) -> None:
    """Raise UserError for a row of `model.excluded_rows` that the vocabulary does not have."""
    for row in rows:
        if not 0 <= row < vocabulary:
            raise UserError(f"model.excluded_rows={row}: use rows of the vocabulary, from 0 to {vocabulary - 1}")


@struct.dataclass
class Output:
    """The result of a pass over whole sequences.

    `attention` names every kind of attention a model has (`encoder`, `decoder`, `cross`), each `[L, B, H, T, S]`; it is
    `None` unless asked for.
    """

    readout: Readout
    attention: dict[str, Float[Array, "L B H _ _"]] | None = None

    @property
    def logits(self) -> Float[Array, "B T V"]:
        return self.readout.logits()


@runtime_checkable
class Decodable(Protocol):
    """The methods that a search calls, through `apply`."""

    def prefill(self, source: Int[ArrayLike, "B S"], length: int, beams: int = 1) -> Cache:
        """Encode the source, or run the prompt, and make room for `length` tokens of `beams` hypotheses each."""
        ...

    def decode_step(
        self, cache: Cache, tokens: Int[ArrayLike, "B K"]
    ) -> tuple[Cache, Float[Array, "B K V"], Float[Array, "B K S"]]:
        """One more token for every hypothesis: the logits of the next, and the attention (sums to 1)."""
        ...

    def grow(self, cache: Cache, more: int) -> Cache:
        """The cache with room for `more` additional tokens. A search starts with little room, since a step costs as
        much as there is room."""
        ...

    def reorder(self, cache: Cache, parents: Int[ArrayLike, "B K"]) -> Cache:
        """The cache of the hypotheses that continue `parents`."""
        ...


@runtime_checkable
class Seq2SeqModel(Decodable, Protocol):
    """A model of `p(target | source)`."""

    def __call__(self, batch: Seq2SeqBatch, train: bool = False, weights: bool = False) -> Output:
        """Teacher forcing: what is predicted at every target position."""
        ...


@runtime_checkable
class LanguageModel(Decodable, Protocol):
    """A model of `p(text)`."""

    def __call__(self, batch: LanguageBatch, train: bool = False, weights: bool = False) -> Output:
        """What is predicted at every position."""
        ...
