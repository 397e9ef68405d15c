"""Scores of translations, each by the library that defines it, of language models, and of labelled examples."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Num

from zoo.errors import UserError, check_choice

Sample = tuple[str, str, str]  # source, reference, output
BINS = 12  # bins of sentence lengths, at most
LEAST_SENTENCES = 20  # sentences of a bin, at least, for a meaningful BLEU
SCORES = ("bleu", "bleu_lowercase", "chrf", "exact_match")
LANGUAGE_SCORES = ("bits_per_byte", "word_perplexity")


@dataclass(frozen=True)
class Evaluation:
    """The values of an evaluation, outputs of the model, notes on the values, and what was `measured`."""

    values: dict[str, Any]
    samples: list[Sample]
    note: str = ""
    measured: dict[str, Any] = field(default_factory=dict)
    predictions: Any = None  # of a classifier, `zoo.tasks.label_reports.Predictions`


# The languages with their own tokenizer in sacreBLEU, by all their codes (ISO 639-1, -2 and -3).
_TOKENIZERS = {
    "zh": ("zh", ("zh", "zho", "chi", "cmn")),
    "ja-mecab": ("ja", ("ja", "jpn")),
    "ko-mecab": ("ko", ("ko", "kor")),
}


def bleu_tokenizer(language: str, override: str = "") -> str:
    """The name of sacreBLEU's tokenizer for BLEU: `override`, or by its own rule the one for the target `language`.

    The code of a language may be followed by that of a script or a country (`zh-Hans`, `zh_TW`).

    Raises `UserError` for a name that sacreBLEU doesn't know, and if the tokenizer lacks a package.
    """
    from sacrebleu.metrics import BLEU

    code = language.replace("_", "-").partition("-")[0].lower()
    own = next((name for name, (_, codes) in _TOKENIZERS.items() if code in codes), BLEU.TOKENIZER_DEFAULT)
    name = override or own
    check_choice("data.bleu_tokenizer", name, sorted(BLEU.TOKENIZERS))
    try:
        BLEU(tokenize=name)
    except RuntimeError as error:
        extra = f"sacrebleu[{_TOKENIZERS[name][0]}]" if name in _TOKENIZERS else "what sacreBLEU asks for"
        raise UserError(
            f"BLEU of {language} needs sacreBLEU's tokenizer {name}: pip install '{extra}', or choose another by "
            "data.bleu_tokenizer (--bleu-tokenizer of eval and plot), as char"
        ) from error
    return name


def translation(samples: Sequence[Sample], tokenizer: str) -> dict[str, Any]:
    """BLEU with its signature, chrF (Post 2018, sacreBLEU), and the share of outputs that equal their reference.

    `bleu` is cased and detokenized; `bleu_lowercase` is for references that were published lower-cased. Both use
    sacreBLEU's `tokenizer` of this name.
    """
    from sacrebleu.metrics import BLEU, CHRF

    references, outputs = [[r for _, r, _ in samples]], [o for _, _, o in samples]
    bleu, lower, chrf = BLEU(tokenize=tokenizer), BLEU(tokenize=tokenizer, lowercase=True), CHRF()
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
    """All of `sources` by their length, in ranges of equal width; a range with too few joins its neighbour."""
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


def bleu_of_bins(samples: Sequence[Sample], bins: Sequence[LengthBin], tokenizer: str) -> tuple[list[float], str]:
    """The corpus BLEU of every bin with sacreBLEU's `tokenizer`, and its signature.

    It uses the effective order: a bin whose sentences are too short for any 4-gram is scored by its shorter n-grams,
    instead of 0. Other bins are not affected.
    """
    from sacrebleu.metrics import BLEU

    bleu = BLEU(tokenize=tokenizer, effective_order=True)
    scores = [
        bleu.corpus_score([samples[i][2] for i in b.sentences], [[samples[i][1] for i in b.sentences]]).score
        for b in bins
    ]
    return scores, str(bleu.get_signature())


def language(loss: float, documents: Iterable[str]) -> dict[str, float]:
    """From the summed `loss` in nats over `documents`: bits per UTF-8 byte, and the perplexity per word between white
    space. Both compare models with different vocabularies, which perplexity per token cannot."""
    counts = [(len(document.encode()), len(document.split())) for document in documents]
    size, words = (max(sum(column), 1) for column in zip(*counts, strict=True))
    return {"bits_per_byte": loss / math.log(2) / size, "word_perplexity": math.exp(min(loss / words, 700.0))}


Numbers = Num[np.ndarray, "_"]


def accuracy(predicted: Numbers, true: Numbers) -> float:
    """The share of correct labels."""
    return float((predicted == true).mean())


def f1(predicted: Numbers, true: Numbers) -> float:
    """Of two labels, the harmonic mean of precision and recall of the second (label 1, "is a paraphrase")."""
    found = int(((predicted == 1) & (true == 1)).sum())
    return 2 * found / max(int((predicted == 1).sum() + (true == 1).sum()), 1)


def pearson(predicted: Numbers, true: Numbers) -> float:
    """Pearson's r. It is 0 where undefined: one side is constant, or there is one example. It is NaN if a prediction
    is."""
    from scipy import stats

    return _correlation(stats.pearsonr, predicted, true)


def spearman(predicted: Numbers, true: Numbers) -> float:
    """Spearman's ρ, Pearson's r of the ranks; 0 or NaN as in `pearson`."""
    from scipy import stats

    return _correlation(stats.spearmanr, predicted, true)


def _correlation(measure: Callable[[Numbers, Numbers], Any], predicted: Numbers, true: Numbers) -> float:
    if not (np.isfinite(predicted).all() and np.isfinite(true).all()):
        return math.nan
    vary = np.ptp(predicted) > 0 and np.ptp(true) > 0
    return float(measure(predicted, true).statistic) if vary else 0.0


def matthews(predicted: Numbers, true: Numbers) -> float:
    """The correlation coefficient of Matthews 1975, in Gorodkin's form for any number of labels (R_K, 2004); 0 if only
    one label is ever predicted, or true."""
    labels = np.union1d(predicted, true)
    said, so = (np.array([(side == label).sum() for label in labels], float) for side in (predicted, true))
    n, right = len(true), float((predicted == true).sum())
    spread = math.sqrt((n**2 - said @ said) * (n**2 - so @ so))
    return float((right * n - said @ so) / spread) if spread else 0.0


# Scores of labels or values, named as in GLUE (Wang et al. 2018, table 1): shares and correlations, which papers print
# times 100.
LABEL_SCORES: dict[str, Callable[[Numbers, Numbers], float]] = {
    f.__name__: f for f in (accuracy, f1, matthews, pearson, spearman)
}
