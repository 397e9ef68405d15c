"""Which word of the source each word of a translation came from, read off the attention."""

import numpy as np
from jaxtyping import Float

from zoo.data.tokenizers import Tokenizer
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
    rows, columns = _words_so_far(translation.tokens, target), source.words(line)[: looked.shape[1]]
    between_words: Float[np.ndarray, "T S"] = np.zeros((max(rows) + 1, max(columns) + 1))
    np.add.at(between_words, np.ix_(rows, columns), looked)
    return [(int(row.argmax()), word) for word, row in enumerate(between_words)]


def _words_so_far(tokens: list[int], tokenizer: Tokenizer) -> list[int]:
    """The word that each token belongs to. A model may cut a word as its tokenizer would not, so the text of every
    prefix tells it."""
    prefixes = tokenizer.decode([tokens[:end] for end in range(1, len(tokens) + 1)])
    return [max(len(prefix.split()) - 1, 0) for prefix in prefixes]
