"""Scores of translations, each by the library that defines it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Sample = tuple[str, str, str]  # source, reference, output
BINS = 12  # of sentence lengths, at most
LEAST_SENTENCES = 20  # of a bin, for its BLEU to say something
SCORES = ("bleu", "bleu_lowercase", "chrf", "exact_match")


@dataclass(frozen=True)
class Evaluation:
    """The values of an evaluation, what the model said, and how the values are to be read."""

    values: dict[str, Any]
    samples: list[Sample]
    note: str = ""


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


@dataclass(frozen=True)
class LengthBin:
    """The sentences (by their indices) whose source has `first` to `last` whitespace words."""

    first: int
    last: int
    sentences: list[int]


def length_bins(sources: Sequence[str]) -> list[LengthBin]:
    """All of `sources` by their length: ranges of equal width, those joined to their neighbours that hold too few."""
    lengths = [len(source.split()) for source in sources]
    width = max(1, -(-(max(lengths) - min(lengths) + 1) // BINS))
    bins: list[LengthBin] = []
    for first in range(min(lengths), max(lengths) + 1, width):
        last = min(first + width - 1, max(lengths))
        inside = [i for i, length in enumerate(lengths) if first <= length <= last]
        if bins and len(bins[-1].sentences) < LEAST_SENTENCES:
            bins[-1] = LengthBin(bins[-1].first, last, bins[-1].sentences + inside)
        else:
            bins.append(LengthBin(first, last, inside))
    if len(bins) > 1 and len(bins[-1].sentences) < LEAST_SENTENCES:
        rest = bins.pop()
        bins[-1] = LengthBin(bins[-1].first, rest.last, bins[-1].sentences + rest.sentences)
    return bins


def bleu_of_bins(samples: Sequence[Sample], bins: Sequence[LengthBin]) -> tuple[list[float], str]:
    """The corpus BLEU of every bin, and its signature.

    Of the effective order: a bin of sentences too short for any 4-gram is scored by the n-grams that there are, where
    it would be 0 otherwise; no other bin is touched.
    """
    from sacrebleu.metrics import BLEU

    bleu = BLEU(effective_order=True)
    scores = [
        bleu.corpus_score([samples[i][2] for i in b.sentences], [[samples[i][1] for i in b.sentences]]).score
        for b in bins
    ]
    return scores, str(bleu.get_signature())
