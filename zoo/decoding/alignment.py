"""Word alignments from attention."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from zoo.data.batches.base import Seq2SeqBatch
from zoo.data.batches.buckets import given_batches
from zoo.data.specials import SPECIALS, UNK
from zoo.data.tokenizers import Tokenizer
from zoo.decoding.translator import Translation
from zoo.models.base import Seq2SeqModel

Link = tuple[int, int]
"""(source word, target word), whitespace words counted from 0."""


def word_links(line: str, translation: Translation, source: Tokenizer, target: Tokenizer) -> list[Link]:
    """One link for every word of the translation.

    Each word is linked to the source word with the most attention, summed over the pieces of both; attention to EOS is
    ignored. Raises ValueError when `translation` was made without attention.
    """
    if translation.attention is None:
        raise ValueError("the translation was made without attention=True")
    if not translation.tokens:
        return []
    looked = translation.attention[:-1, :-1]
    return _linked(looked, _words(_beginnings(translation.tokens, target)), source.words(line)[: looked.shape[1]])


def forced_links(
    model: Seq2SeqModel,
    params: Any,
    pairs: Sequence[tuple[str, str]],
    source: Tokenizer,
    target: Tokenizer,
    batch_tokens: int = 2048,
) -> list[list[Link]] | None:
    """The links of every given pair (source, target), as `word_links` has them, with teacher forcing of the target.
    None if the model has no attention to its source."""
    sides = source.encode([line for line, _ in pairs]), target.encode([line for _, line in pairs])
    ids = [(np.array(one, np.int32), np.array(other, np.int32)) for one, other in zip(*sides, strict=True)]
    links: list[list[Link]] = [[] for _ in pairs]
    for indices, batch in given_batches(ids, batch_tokens):
        attention = jax.device_get(_forced_attention(model, params, batch))
        if attention is None:
            return None
        for row, i in enumerate(indices):
            columns, rows = source.words(pairs[i][0]), target.words(pairs[i][1])
            if columns and rows:
                # Row t is the attention before the model emits label t, in RNNsearch and in the Transformer.
                links[i] = _linked(attention[row, : len(rows), : len(columns)], rows, columns)
    return links


@partial(jax.jit, static_argnames="model")
def _forced_attention(model: Seq2SeqModel, params: Any, batch: Seq2SeqBatch) -> Float[Array, "B T S"] | None:
    attention = model.apply({"params": params}, batch, weights=True).attention
    return aligning(attention["cross"]) if attention and "cross" in attention else None


def aligning(attention: Float[ArrayLike, "L *B H T S"]) -> Float[ArrayLike, "*B T S"]:
    """The mean over the heads of the cross-attention in the layer before the last, which aligns best (Garg et al.
    2019)."""
    return attention[max(len(attention) - 2, 0)].mean(axis=-3)


def alignment_error_rate(guessed: Sequence[Collection[Link]], sure: Sequence[Collection[Link]]) -> float:
    """AER over all sentences, from 0 (best) to 1 (Och & Ney 2003), with every true link sure: `1 - 2 |A ∩ S| / (|A| +
    |S|)`."""
    shared = sum(len(set(a) & set(s)) for a, s in zip(guessed, sure, strict=True))
    return 1 - 2 * shared / max(sum(map(len, guessed)) + sum(map(len, sure)), 1)


def _linked(looked: Float[np.ndarray, "T S"], rows: Sequence[int], columns: Sequence[int]) -> list[Link]:
    """`rows` and `columns` hold the number of the word of each piece."""
    between_words: Float[np.ndarray, "T S"] = np.zeros((max(rows) + 1, max(columns) + 1))
    np.add.at(between_words, np.ix_(rows, columns), looked)
    return [(int(row.argmax()), word) for word, row in enumerate(between_words)]


def replace_unknown(
    line: str, translation: Translation, source: Tokenizer, target: Tokenizer, dictionary: Mapping[str, str]
) -> Translation:
    """The translation with each <unk> replaced by the source word that it is aligned to, or by that word's entry in
    `dictionary` (Luong et al. 2015, section 3).

    An <unk> inside a word, such as a rare character, becomes the source's piece instead. Raises ValueError when
    `translation` was made without attention.
    """
    if UNK not in translation.tokens:
        return translation
    words, pieces = line.split(), source.pieces(line)
    linked = [source_word for source_word, _ in word_links(line, translation, source, target)]
    beginnings, target_words = _beginnings(translation.tokens, target), translation.text.split()
    of_token, text, copied = _words(beginnings), "", 0
    for position in np.flatnonzero(np.array(translation.tokens) == UNK):
        word, end = of_token[position], len(beginnings[position])
        if target_words[word] == SPECIALS[UNK]:
            aligned = words[linked[word]]
            meant = dictionary.get(aligned, aligned)
        else:
            meant = pieces[translation.attention[position, :-1].argmax()].replace("▁", "")
        text += translation.text[copied : end - len(SPECIALS[UNK])] + meant
        copied = end
    return replace(translation, text=text + translation.text[copied:])


def _beginnings(tokens: list[int], tokenizer: Tokenizer) -> list[str]:
    """The text up to and including each token."""
    return tokenizer.decode([tokens[:end] for end in range(1, len(tokens) + 1)])


def _words(beginnings: list[str]) -> list[int]:
    """The number of the word of each token. It follows from the text up to there, since a model may split a word
    differently from its tokenizer."""
    return [max(len(text.split()) - 1, 0) for text in beginnings]
