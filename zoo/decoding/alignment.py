"""Which word of the source each word of a translation came from, read off the attention."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from zoo.data.tokenizers import SPECIALS, UNK, Tokenizer
from zoo.decoding.translator import Translation


def word_links(line: str, translation: Translation, source: Tokenizer, target: Tokenizer) -> list[tuple[int, int]]:
    """(source word, target word) for every word of the translation, whitespace words counted from 0.

    Each is linked to the source word that its pieces looked at most, summed over the pieces of both; the attention to
    EOS counts for nobody. Raises ValueError when `translation` was made without attention.
    """
    if translation.attention is None:
        raise ValueError("the translation was made without attention=True")
    if not translation.tokens:
        return []
    looked = translation.attention[:-1, :-1]
    rows, columns = _words(_beginnings(translation.tokens, target)), source.words(line)[: looked.shape[1]]
    between_words: Float[np.ndarray, "T S"] = np.zeros((max(rows) + 1, max(columns) + 1))
    np.add.at(between_words, np.ix_(rows, columns), looked)
    return [(int(row.argmax()), word) for word, row in enumerate(between_words)]


def replace_unknown(
    line: str, translation: Translation, source: Tokenizer, target: Tokenizer, dictionary: Mapping[str, str]
) -> Translation:
    """With each <unk> replaced by the source word that it is aligned to, or what the `dictionary` has for that word
    (Luong et al. 2015, section 3).

    An <unk> inside a word, as that of a rare character, becomes the source's piece instead. Raises ValueError when
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
    """The text up to each token, that one included."""
    return tokenizer.decode([tokens[:end] for end in range(1, len(tokens) + 1)])


def _words(beginnings: list[str]) -> list[int]:
    """The word that each token belongs to. A model may cut a word as its tokenizer would not, so the text up to there
    tells it."""
    return [max(len(text.split()) - 1, 0) for text in beginnings]
