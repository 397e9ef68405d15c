"""Text that continues a prompt: draw the next token, give it to the model, and repeat.

The jitted loop returns every few tokens, so that a text can be shown while it grows, and ends at a stop string. A text
depends neither on that number of tokens nor on the other rows of its batch.
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
from zoo.decoding.arranged import arranged
from zoo.decoding.sampling import SamplingConfig, draw, penalized, row_keys
from zoo.errors import UserError, check_choice
from zoo.models.base import Cache, LanguageModel
from zoo.nn.quantization import QUANTIZATIONS
from zoo.parallel.devices import COMPUTE_DTYPES

NEVER_SAID = (PAD, BOS, UNK)
PIECE = 8  # tokens between two checks of the text
UNREADABLE = "\ufffd"  # stands for the bytes of an incomplete character


@dataclass(frozen=True)
class GenerationConfig(SamplingConfig):
    """How tokens are drawn, and how many at most. The model computes in `compute_dtype`; `quantize="int8"` rounds its
    matrices to 8 bits."""

    max_new_tokens: int = 100
    compute_dtype: str = "float32"
    quantize: str = "none"

    def __post_init__(self):
        super().__post_init__()
        check_choice("decoding.compute_dtype", self.compute_dtype, COMPUTE_DTYPES)
        check_choice("decoding.quantize", self.quantize, QUANTIZATIONS)
        if self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens={self.max_new_tokens}: use at least 1")


@struct.dataclass
class Drawing:
    """Continuations in progress. `last` is the token to give to the model next, `said` marks those that the repetition
    penalty counts; after its end, a row of `tokens` is `PAD`."""

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
    """Room for `length` tokens after each prompt, which is `prompts[b]` (filled with `NOTHING`) and then `last[b]`."""
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
    """The continuations up to step `until`, or until all rows have ended. Token `done + t` of a row is drawn with its
    key folded with that number, so a text does not depend on how many tokens are made at a time.
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
    """The text after a prompt so far. It only grows, and is complete once it has `ended`: at a `stop` string, which it
    does not include, at an `end` by the model, or at its `length`. `slid` tells whether prompt and text have outgrown
    the context, so the model no longer sees the beginning."""

    text: str = ""
    ended: Literal["", "stop", "end", "length"] = ""
    slid: bool = False


@dataclass
class _Text:
    """The ids of a text: `prompt` with the ids before it, `new` without the end; the model sees those from `first`
    on."""

    prompt: list[int]
    new: list[int]
    first: int = 0

    @property
    def seen(self) -> list[int]:
        return (self.prompt + self.new)[self.first :]


class Generator:
    """Continues texts with one model. The ids `start` precede every prompt; `blank` precede an empty one. The model
    sees at most `context` tokens (default: as many as it has positions)."""

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
        self.model, self.params, self.tokenizer, self.config = model, arranged(model, params), tokenizer, config
        self.start, self.blank = list(start), list(blank)
        self.context = context or model.config.max_length
        self._sampling = SamplingConfig(**{field.name: getattr(config, field.name) for field in fields(SamplingConfig)})

    def __call__(self, prompts: Sequence[str], seed: int = 0) -> list[str]:
        """The continuation of each prompt. A row's draws depend on the seed and its place in the list, not on the other
        rows."""
        return [continuation.text for continuation in self.whole(prompts, seed)]

    def whole(
        self, prompts: Sequence[str], seed: int = 0, stops: Sequence[str] = (), first: int = 0
    ) -> list[Continuation]:
        """The last continuations of `stream`."""
        *_, last = self.stream(prompts, seed, stops, first)
        return last

    def stream(
        self, prompts: Sequence[str], seed: int = 0, stops: Sequence[str] = (), first: int = 0
    ) -> Iterator[list[Continuation]]:
        """The continuation of each prompt, again and again as they grow.

        A text ends before the first of the `stops` that is complete in it. A suffix that may become part of one, or of
        a character, is held back. `first` is the number of the first prompt in the whole input, which decides its
        draws.
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
        """Extends the `texts` by some tokens at a time, and yields how many each has received. Rows that have `ended`
        receive no more; the caller may mark rows as ended too.

        A text that has filled the context continues from its last tokens, with room for half the context until the next
        cut. The cut depends only on the text's own length, not on `max_new_tokens` or the other rows, so neither
        changes a text.
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
        """New tokens, as many as fit into the context after the longest of the continuing texts."""
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
        """The ids that the model sees before the last tokens, the last tokens, and the number of new tokens, at best
        `wanted`.

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
    """The part of a text that cannot change any more; all of it once it has come to its `end`."""
    if not end:
        text = text.rstrip(UNREADABLE)
    complete = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
    if complete:
        return Continuation(text[: min(complete)[1]], "stop", slid)
    held = 0 if end else max((len(stop) - 1 for stop in stops), default=0)
    return Continuation(text[: len(text) - min(held, len(text))], end, slid)
