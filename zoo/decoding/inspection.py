"""What a model attends to while it reads or writes a text, and the alternatives at each step."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from zoo.data.batches.base import LanguageBatch
from zoo.data.batches.buckets import padded
from zoo.data.specials import SPECIALS
from zoo.data.tokenizers import Tokenizer
from zoo.errors import UserError
from zoo.plotting.explorer import Inspection, Look, Step

ALTERNATIVES = 5
BEGIN, END = SPECIALS[1], SPECIALS[2]


def of_translation(
    model: nn.Module, params: Any, source: Tokenizer, target: Tokenizer, line: str, text: str
) -> Inspection:
    """The encoder's, decoder's and cross-attention of `text` as a translation of `line`."""
    read, written = (np.array(t.encode([x])[0], np.int32) for t, x in ((source, line), (target, text)))
    batch = padded([(read, written)], 1, max(len(read), len(written)) + 1)
    attention, logits = _seen(model, params, batch)
    reading = (*source.pieces(line), END)
    writing = (*target.pieces(text), END)
    before = (BEGIN, *target.pieces(text))
    ends = {"encoder": (reading, reading), "cross": (writing, reading), "decoder": (writing, before)}
    looks = tuple(
        Look(name, *ends[name], np.asarray(attention[name])[:, 0, :, : len(ends[name][0]), : len(ends[name][1])])
        for name in ("cross", "decoder", "encoder")
        if name in attention
    )
    return Inspection(f"{line} → {text}", looks, _steps(writing, logits[0], target))


def of_text(model: nn.Module, params: Any, tokenizer: Tokenizer, begin: Sequence[int], text: str) -> Inspection:
    """The attention of a language model on `text`, after the ids `begin`."""
    ids = [*begin, *tokenizer.encode([text])[0]]
    if len(ids) > model.config.max_length:
        raise UserError(f"a text of {len(ids)} tokens is longer than the model's {model.config.max_length}: shorten it")
    row = np.array([ids], np.int32)
    attention, logits = _seen(model, params, LanguageBatch(row, row))
    pieces = (*(SPECIALS[i] for i in begin), *tokenizer.pieces(text))
    looks = tuple(Look(name, pieces, pieces, np.asarray(weights)[:, 0]) for name, weights in attention.items())
    # The logits at a position are for the next piece.
    steps = (Step(pieces[0], ()), *_steps(pieces[1:], logits[0], tokenizer))
    return Inspection(text, looks, steps)


def _seen(model: nn.Module, params: Any, batch: Any) -> tuple[dict[str, jax.Array], jax.Array]:
    @partial(jax.jit, static_argnums=0)
    def run(model, params, batch):
        output = model.apply({"params": params}, batch, weights=True)
        return output.attention, output.readout.logits()

    attention, logits = run(model, params, batch)
    if not attention:
        raise UserError(f"{type(model).__name__} has no attention: there is nothing to explore")
    return attention, logits


def _steps(pieces: Sequence[str], logits: Float[jax.Array, "T V"], tokenizer: Tokenizer) -> tuple[Step, ...]:
    probabilities, ids = jax.lax.top_k(jax.nn.softmax(logits[: len(pieces)].astype(jnp.float32)), ALTERNATIVES)
    rows = zip(pieces, np.asarray(probabilities), np.asarray(ids), strict=True)
    return tuple(
        Step(piece, tuple((name_of(tokenizer, int(i)), float(p)) for p, i in zip(likely, which, strict=True)))
        for piece, likely, which in rows
    )


def name_of(tokenizer: Tokenizer, token: int) -> str:
    """A row of the vocabulary as text."""
    return SPECIALS[token] if token < len(SPECIALS) else tokenizer.decode([[token]])[0]
