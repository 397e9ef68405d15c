"""Scores of translations, each by the library that defines it, and of language models."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

Sample = tuple[str, str, str]  # source, reference, output
SCORES = ("bleu", "bleu_lowercase", "chrf", "exact_match")
LANGUAGE_SCORES = ("bits_per_byte", "word_perplexity")


@dataclass(frozen=True)
class Evaluation:
    """The values of an evaluation, what the model said, how the values are to be read, and what was `measured`."""

    values: dict[str, Any]
    samples: list[Sample]
    note: str = ""
    measured: dict[str, Any] = field(default_factory=dict)


def translation(samples: Sequence[Sample]) -> dict[str, Any]:
    """BLEU with its signature, chrF (Post 2018, sacreBLEU), and the share of outputs that equal their reference.

    `bleu` is cased and detokenized; `bleu_lowercase` is for references that were published lower-cased.
    """
    from sacrebleu.metrics import BLEU, CHRF

    references, outputs = [[r for _, r, _ in samples]], [o for _, _, o in samples]
    bleu, lower, chrf = BLEU(), BLEU(lowercase=True), CHRF()
    return {
        "bleu": bleu.corpus_score(outputs, references).score,
        "bleu_signature": str(bleu.get_signature()),
        "bleu_lowercase": lower.corpus_score(outputs, references).score,
        "bleu_lowercase_signature": str(lower.get_signature()),
        "chrf": chrf.corpus_score(outputs, references).score,
        "exact_match": sum(o == r for _, r, o in samples) / len(samples),
    }


def language(loss: float, documents: Iterable[str]) -> dict[str, float]:
    """From the summed `loss` in nats over `documents`: bits for each of their bytes in UTF-8, and the perplexity of a
    word between white space. Both compare models of different vocabularies, as the perplexity of a token does not."""
    counts = [(len(document.encode()), len(document.split())) for document in documents]
    size, words = (max(sum(column), 1) for column in zip(*counts, strict=True))
    return {"bits_per_byte": loss / math.log(2) / size, "word_perplexity": math.exp(min(loss / words, 700.0))}
