"""Scores of translations, each by the library that defines it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Sample = tuple[str, str, str]  # source, reference, output
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
