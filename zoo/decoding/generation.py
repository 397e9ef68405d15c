"""Text that goes on from a prompt: the next token drawn, given back to the model, and so on.

The loop is jitted and comes back every few tokens, so that a text can be shown while it is made, and ends with the
stop string that it was told to end with. What a text says depends neither on that number nor on what is beside it.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax
from jaxtyping import Array, Bool, Int

from zoo.data.batches.buckets import power_of_two
from zoo.data.specials import BOS, EOS, NOTHING, PAD, UNK
from zoo.data.tokenizers import Tokenizer
from zoo.decoding.sampling import SamplingConfig, draw, penalized, row_keys
from zoo.errors import UserError, check_choice
from zoo.models.base import Cache, LanguageModel
from zoo.parallel.devices import COMPUTE_DTYPES

NEVER_SAID = (PAD, BOS, UNK)
PIECE = 8  # tokens between two looks at the text
UNREADABLE = "\ufffd"  # what the first bytes of a character are read as


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
class Drawing:
    """Continuations in the making. `last` is the token that is given to the model next, `said` are those that the
    repetition penalty counts; behind its end a row of `tokens` is `PAD`."""

    cache: Cache
    step: Int[Array, ""]
    last: Int[Array, "B"]
    tokens: Int[Array, "B T"]
    said: Bool[Array, "B V"]
    ended: Bool[Array, "B"]


@partial(jax.jit, static_argnames=("model", "length"))
def begun(
    model: LanguageModel,
    params: Any,
    prompts: Int[Array, "B S"],
    last: Int[Array, "B"],
    said: Bool[Array, "B V"],
    ended: Bool[Array, "B"],
    length: int,
) -> Drawing:
    """Room for `length` tokens behind prompts that are `prompts[b]`, filled up with `NOTHING`, and then `last[b]`."""
    cache = model.apply({"params": params}, prompts, length, method="prefill")
    nothing = jnp.full((len(prompts), length), PAD, jnp.int32)
    return Drawing(cache, jnp.int32(0), last, nothing, said, ended)


@partial(jax.jit, static_argnames=("model", "sampling"), donate_argnames="drawing")
def advanced(
    model: LanguageModel,
    params: Any,
    drawing: Drawing,
    keys: Array,
    done: Int[Array, ""],
    until: Int[Array, ""],
    sampling: SamplingConfig,
) -> Drawing:
    """With the tokens before step `until`, or as many as it takes until all rows have ended.

    Token `done + t` of a row is drawn with its key folded with that number, so that a text does not depend on how many
    tokens are made together.
    """

    def unfinished(drawing: Drawing) -> Bool[Array, ""]:
        return (drawing.step < until) & ~drawing.ended.all()

    def advance(drawing: Drawing) -> Drawing:
        step, ended, tokens = drawing.step, drawing.ended, drawing.tokens
        cache, logits, _ = model.apply({"params": params}, drawing.cache, drawing.last[:, None], method="decode_step")
        logits = penalized(logits[:, 0], drawing.said, sampling.repetition_penalty)
        may = jnp.ones(logits.shape[-1], bool).at[jnp.array(NEVER_SAID)].set(False)
        token = draw(jax.vmap(jax.random.fold_in, (0, None))(keys, done + step), logits, sampling, may)
        token = jnp.where(ended, PAD, token)
        said = drawing.said.at[jnp.arange(len(token)), token].set(True)
        return Drawing(cache, step + 1, token, tokens.at[:, step].set(token), said, ended | (token == EOS))

    return lax.while_loop(unfinished, advance, drawing)


@dataclass(frozen=True)
class Continuation:
    """What follows a prompt so far. It only grows, and once it has `ended` it is whole: by a `stop` string, which it
    does not hold, by an `end` of the model's own, or by its `length`. `slid` tells whether the model has lost sight of
    the beginning, since prompt and text together are longer than its context."""

    text: str = ""
    ended: Literal["", "stop", "end", "length"] = ""
    slid: bool = False


@dataclass
class _Text:
    """The ids of a text: `prompt` with what begins it, `new` without the end; the model sees those from `first` on."""

    prompt: list[int]
    new: list[int]
    first: int = 0

    @property
    def seen(self) -> list[int]:
        return (self.prompt + self.new)[self.first :]


class Generator:
    """Continues texts with one model. `start` are the ids that stand before every prompt, `blank` those that do where
    the prompt is empty. The model sees at most `context` tokens (default: as many as it has positions)."""

    def __init__(
        self,
        model: LanguageModel,
        params: Any,
        tokenizer: Tokenizer,
        config: GenerationConfig,
        start: Sequence[int] = (BOS,),
        blank: Sequence[int] = (BOS,),
        context: int | None = None,
    ):
        self.model, self.params, self.tokenizer, self.config = model, params, tokenizer, config
        self.start, self.blank = list(start), list(blank)
        self.context = context or model.config.max_length
        self._sampling = SamplingConfig(**{field.name: getattr(config, field.name) for field in fields(SamplingConfig)})

    def __call__(self, prompts: Sequence[str], seed: int = 0) -> list[str]:
        """What follows each prompt; a row draws the same in any batch, by its place in it and the seed."""
        return [continuation.text for continuation in self.whole(prompts, seed)]

    def whole(
        self, prompts: Sequence[str], seed: int = 0, stops: Sequence[str] = (), first: int = 0
    ) -> list[Continuation]:
        """The continuations that `stream` ends with."""
        *_, last = self.stream(prompts, seed, stops, first)
        return last

    def stream(
        self, prompts: Sequence[str], seed: int = 0, stops: Sequence[str] = (), first: int = 0
    ) -> Iterator[list[Continuation]]:
        """The continuation of each prompt, again and again as they grow.

        A text ends before the first of the `stops` that is complete in it; what may yet turn out to be part of one, or
        of a character, is held back. `first` is the number of the first prompt in the whole input, by which it draws.
        """
        ids = self.tokenizer.encode(list(prompts))
        texts = [_Text((self.start if row else self.blank) + row, []) for row in ids]
        before = self.tokenizer.decode(ids)
        shown, ended = [Continuation()] * len(texts), np.zeros(len(texts), bool)
        yield list(shown)
        for made in self._made(texts, row_keys(seed, first + np.arange(len(texts))), ended):
            whole = self.tokenizer.decode([row + text.new for row, text in zip(ids, texts, strict=True)])
            for row, text in enumerate(texts):
                if not shown[row].ended:
                    end = "end" if ended[row] else "length" if made == self.config.max_new_tokens else ""
                    shown[row] = _settled(whole[row][len(before[row]) :], stops, end, text.first > 0)
                    ended[row] |= shown[row].ended != ""
            yield list(shown)

    def continuations(self, prompts: Sequence[Sequence[int]], seed: int = 0) -> list[list[int]]:
        """The ids that follow those of each prompt, without EOS."""
        texts = [_Text(list(prompt), []) for prompt in prompts]
        deque(self._made(texts, row_keys(seed, np.arange(len(texts))), np.zeros(len(texts), bool)), maxlen=0)
        return [text.new for text in texts]

    def _made(self, texts: list[_Text], keys: Array, ended: Bool[np.ndarray, "B"]) -> Iterator[int]:
        """Adds to the `texts`, some tokens at a time, and tells how many each has been given; the rows that have
        `ended`, which whoever iterates may say too, are given no more.

        A text that has filled the context goes on from its last tokens, with room for half the context before it has
        to be cut again. Each is cut by its own length and not by `max_new_tokens`, so that it says what it says alone,
        and what it says first under a larger limit.
        """
        done, most = 0, self.config.max_new_tokens
        while done < most and not ended.all():
            for text in texts:
                if len(text.seen) >= self.context:
                    text.first = len(text.prompt) + len(text.new) - (self.context - max(1, self.context // 2))
            for tokens in self._pieces(texts, keys, ended, done):
                done += tokens.shape[1]
                for row, text in enumerate(texts):
                    new = tokens[row].tolist()
                    text.new += [] if ended[row] else new[: new.index(EOS)] if EOS in new else new
                ended |= (tokens == EOS).any(axis=1)
                yield done

    def _pieces(
        self, texts: list[_Text], keys: Array, ended: Bool[np.ndarray, "B"], done: int
    ) -> Iterator[Int[np.ndarray, "B T"]]:
        """New tokens, as many as there is room for in the context behind the longest of the texts that go on."""
        seen = [text.seen[-1:] if end else text.seen for text, end in zip(texts, ended.tolist(), strict=True)]
        left = min(self.config.max_new_tokens - done, self.context - max(map(len, seen)))
        prompts, last, length = self._prompts(seen, left)
        drawing = begun(self.model, self.params, prompts, last, self._said(texts), np.array(ended), length)
        made, steps = 0, min(left, length)
        while made < steps and not ended.all():
            until = min(made + PIECE, steps)
            how = keys, np.int32(done), np.int32(until), self._sampling
            drawing = advanced(self.model, self.params, drawing.replace(ended=np.array(ended)), *how)
            yield np.asarray(drawing.tokens)[:, made:until]
            made = until

    def _prompts(self, seen: list[list[int]], wanted: int) -> tuple[Int[np.ndarray, "B S"], Int[np.ndarray, "B"], int]:
        """What the model sees but for the last tokens, those, and room for more, at best all that are `wanted`.

        Both lengths are powers of two, unless that leaves too little of the context, so that few shapes are compiled.
        """
        longest = max(1, *(len(ids) - 1 for ids in seen))
        prompt = power_of_two(longest)
        length = min(power_of_two(wanted), self.context - prompt)
        if 2 * length < wanted:
            length = 1 << (self.context - longest).bit_length() - 1
            prompt = self.context - length
        prompts = np.full((len(seen), prompt), NOTHING, np.int32)
        for row, ids in enumerate(seen):
            prompts[row, : len(ids) - 1] = ids[:-1]
        return prompts, np.array([ids[-1] for ids in seen], np.int32), length

    def _said(self, texts: list[_Text]) -> Bool[np.ndarray, "B V"]:
        said = np.zeros((len(texts), self.model.config.vocabulary), bool)
        for row, text in enumerate(texts):
            said[row, text.prompt + text.new] = True
        return said


def _settled(text: str, stops: Sequence[str], end: Literal["", "end", "length"], slid: bool) -> Continuation:
    """What of a text can be told already; all of it if it has come to its `end`."""
    if not end:
        text = text.rstrip(UNREADABLE)
    complete = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
    if complete:
        return Continuation(text[: min(complete)[1]], "stop", slid)
    held = 0 if end else max((len(stop) - 1 for stop in stops), default=0)
    return Continuation(text[: len(text) - min(held, len(text))], end, slid)
