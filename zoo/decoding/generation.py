"""Text that goes on from a prompt: the next token drawn, given back to the model, and so on, in one jitted loop."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax
from jaxtyping import Array, Bool, Int

from zoo.data.batching import NOTHING
from zoo.data.tokenizers import BOS, EOS, PAD, UNK, Tokenizer
from zoo.decoding.sampling import NEVER, SamplingConfig, draw, penalized, row_keys
from zoo.errors import UserError, check_choice
from zoo.models.base import LanguageModel
from zoo.parallel.devices import COMPUTE_DTYPES

NEVER_SAID = (PAD, BOS, UNK)


@dataclass(frozen=True)
class GenerationConfig(SamplingConfig):
    """How tokens are drawn, and how many at most; the model computes in `compute_dtype`."""

    max_new_tokens: int = 100
    compute_dtype: str = "float32"

    def __post_init__(self):
        super().__post_init__()
        check_choice("decoding.compute_dtype", self.compute_dtype, COMPUTE_DTYPES)
        if self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens={self.max_new_tokens}: use at least 1")


@struct.dataclass
class _Loop:
    cache: Any
    step: Int[Array, ""]
    last: Int[Array, "B"]
    tokens: Int[Array, "B T"]
    said: Bool[Array, "B V"]


@partial(jax.jit, static_argnames=("model", "sampling", "length"))
def continued(
    model: LanguageModel,
    params: Any,
    prompts: Int[Array, "B S"],
    last: Int[Array, "B"],
    said: Bool[Array, "B V"],
    keys: Array,
    done: Int[Array, ""],
    sampling: SamplingConfig,
    length: int,
) -> Int[Array, "B T"]:
    """At most `length` tokens behind each prompt; after its EOS a row is `PAD`. The loop ends when all rows have.

    A prompt is `prompts[b]`, filled up with `NOTHING`, and then its `last` token. `said` are the tokens that the
    repetition penalty counts so far. Token `done + t` of a row is drawn with its key folded with that number, so that a
    text does not depend on how many tokens are made together.
    """
    apply = partial(model.apply, {"params": params})

    def ended(loop: _Loop) -> Bool[Array, "B"]:
        return (loop.tokens == EOS).any(axis=1)

    def unfinished(loop: _Loop) -> Bool[Array, ""]:
        return (loop.step < length) & ~ended(loop).all()

    def advance(loop: _Loop) -> _Loop:
        cache, logits, _ = apply(loop.cache, loop.last[:, None], method="decode_step")
        logits = penalized(logits[:, 0], loop.said, sampling.repetition_penalty)
        logits = logits.at[:, jnp.array(NEVER_SAID)].set(NEVER)
        token = draw(jax.vmap(jax.random.fold_in, (0, None))(keys, done + loop.step), logits, sampling)
        token = jnp.where(ended(loop), PAD, token)
        said = loop.said.at[jnp.arange(len(token)), token].set(True)
        return _Loop(cache, loop.step + 1, token, loop.tokens.at[:, loop.step].set(token), said)

    cache = apply(prompts, length, method="prefill")
    nothing = jnp.full((len(prompts), length), PAD, jnp.int32)
    return lax.while_loop(unfinished, advance, _Loop(cache, jnp.int32(0), last, nothing, said)).tokens


class Generator:
    """Continues texts with one model. `start` are the ids that stand before every prompt, `blank` those that do where
    the prompt is empty."""

    def __init__(
        self,
        model: LanguageModel,
        params: Any,
        tokenizer: Tokenizer,
        config: GenerationConfig,
        start: Sequence[int] = (BOS,),
        blank: Sequence[int] = (BOS,),
    ):
        self.model, self.params, self.tokenizer, self.config = model, params, tokenizer, config
        self.start, self.blank = list(start), list(blank)

    def __call__(self, prompts: Sequence[str], seed: int = 0) -> list[str]:
        """What follows each prompt; a row draws the same in any batch, by its place in it and the seed."""
        ids = self.tokenizer.encode(list(prompts))
        written = [(self.start if row else self.blank) + row for row in ids]
        both = [one + other for one, other in zip(ids, self.continuations(written, seed), strict=True)]
        texts = zip(self.tokenizer.decode(both), self.tokenizer.decode(ids), strict=True)
        return [whole[len(prompt) :] for whole, prompt in texts]

    def continuations(self, prompts: Sequence[Sequence[int]], seed: int = 0) -> list[list[int]]:
        """The ids that follow those of each prompt, without EOS.

        Where prompt and continuation are longer than the model's positions, half of them at a time are made from as
        much of the text before as the others hold.
        """
        most, remaining = self.model.config.max_length, self.config.max_new_tokens
        keys = row_keys(seed, np.arange(len(prompts)))
        rows, new = [list(prompt) for prompt in prompts], [[] for _ in prompts]
        while remaining and not all(EOS in row for row in new):
            steps = min(remaining, max(most - max(map(len, rows)), most // 2))
            made = self._continue([row[steps - most :] for row in rows], self._said(rows), keys, steps, len(new[0]))
            for row, written, tokens in zip(rows, new, made.tolist(), strict=True):
                row += tokens
                written += tokens
            remaining -= steps
        return [row[: row.index(EOS)] if EOS in row else row for row in new]

    def _continue(self, contexts: list[list[int]], said: np.ndarray, keys: Array, steps: int, done: int) -> np.ndarray:
        longest = max(1, *(len(context) - 1 for context in contexts))
        room = min(1 << (longest - 1).bit_length(), max(1, self.model.config.max_length - steps))  # few shapes
        prompts = np.full((len(contexts), room), NOTHING, np.int32)
        for row, context in enumerate(contexts):
            prompts[row, : len(context) - 1] = context[:-1]
        last = np.array([context[-1] for context in contexts], np.int32)
        sampling = SamplingConfig(**{name: getattr(self.config, name) for name in SamplingConfig.__dataclass_fields__})
        made = continued(self.model, self.params, prompts, last, said, keys, np.int32(done), sampling, steps)
        return np.asarray(made)

    def _said(self, rows: list[list[int]]) -> np.ndarray:
        said = np.zeros((len(rows), self.model.config.vocabulary), bool)
        for row, ids in enumerate(rows):
            said[row, ids] = True
        return said
