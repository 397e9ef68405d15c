"""Translation: pairs of sentences, a loss over the target's tokens, and BLEU."""

import logging
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import grain
import jax

from zoo.data import tokenizers
from zoo.data.batches.base import ALONE, Seq2SeqBatch, Share
from zoo.data.batches.buckets import Buckets, given_batches, shape_of_ids
from zoo.data.batches.pairs import Examples, training_batches
from zoo.data.examples.pairs import Pair, parallel
from zoo.data.ids.pairs import Encoder, Limits, StoredPairs, StreamedPairs
from zoo.data.phrases.pairs import Phrases
from zoo.data.tokenizers import Tokenizer
from zoo.decoding.beam import BeamConfig
from zoo.decoding.translator import Translator
from zoo.errors import UserError, check_choice
from zoo.models import registry
from zoo.storage import AnyPath
from zoo.tasks import metrics
from zoo.tasks.base import SPLITS, Splits, lacks_tokenizers, save_tokenizer
from zoo.tasks.losses import Sums, cross_entropy, total

log = logging.getLogger("zoo")
PHRASES = "phrases"
STREAMED_POOL = 10_000  # pairs of an endless source, which has no epoch
HELD_OUT_PHRASES = 1000  # endless phrases in valid and in test


@dataclass(frozen=True)
class TranslationData(Splits):
    """Where the pairs come from and how they become batches.

    The locations are a prefix (`PREFIX.en`, `PREFIX.fr`), a `.tsv`, `tfds:NAME`, or `phrases` for the embedded ones.
    `vocabulary` is the size of each side's vocabulary, or of the joint one; `target_vocabulary` is the target's size if
    it differs (0: it doesn't). `batch_tokens` bounds the padded tokens of either side of a batch; `batch_sentences`
    sets the number of pairs of a training batch instead (0: by tokens). A batch by tokens has a multiple of
    `rows_multiple` rows, so that any number of devices that divides it trains on the same batches. `pool` is how many
    pairs are sorted by length together (0: a whole epoch). `steps` are the padded lengths (empty: chosen). With
    `skip_malformed` the lines of a `.tsv` that have no tab are left out and counted. `bleu_tokenizer` is sacreBLEU's
    tokenizer for BLEU (empty: its own for the target's language code).
    """

    source: str = "en"
    target: str = "fr"
    tokenizer: str = "unigram"
    vocabulary: int = 8000
    target_vocabulary: int = 0
    joint: bool = True
    max_length: int = 128
    max_ratio: float = 0.0
    batch_tokens: int = 4096
    batch_sentences: int = 0
    rows_multiple: int = 8
    pool: int = 0
    steps: tuple[int, ...] = ()
    skip_malformed: bool = False
    bleu_tokenizer: str = ""

    KINDS: ClassVar[str] = "a PREFIX, a .tsv or tfds:NAME"

    def __post_init__(self):
        check_choice("data.tokenizer", self.tokenizer, ("unigram", "bpe", "word"))
        if self.source == self.target:
            raise UserError(f"data.source and data.target are both {self.source!r}: name two languages, as en-de")
        least = {"max_length": 2, "vocabulary": 5, "target_vocabulary": 0, "batch_sentences": 0, "pool": 0}
        least |= {"rows_multiple": 1}
        for key, bound in (least | {"max_ratio": 0}).items():
            if getattr(self, key) < bound:
                raise UserError(f"data.{key}={getattr(self, key)}: use at least {bound}")
        if self.joint and self.target_vocabulary:
            raise UserError(
                f"data.target_vocabulary={self.target_vocabulary}: a joint vocabulary has one size, data.vocabulary; "
                "set data.joint=false for two"
            )
        if any(step < 2 for step in self.steps):
            raise UserError(f"data.steps={self.steps}: a padded length is at least 2")

    @property
    def vocabulary_keys(self) -> tuple[str, str]:
        """The keys with the sizes of the source's and the target's vocabulary."""
        return "vocabulary", "target_vocabulary" if self.target_vocabulary else "vocabulary"

    @property
    def size_key(self) -> str:
        return "batch_sentences" if self.batch_sentences else "batch_tokens"

    def planned_vocabularies(self) -> dict[str, int]:
        target = self.target_vocabulary or self.vocabulary
        return {"source_vocabulary": self.vocabulary, "target_vocabulary": target}

    def buckets(self, shards: int) -> Buckets:
        """The lengths of training batches, and the number of rows of each."""
        if self.batch_sentences:
            return Buckets.of_sentences(self.max_length, self.batch_sentences, shards, self.steps)
        return Buckets.up_to(self.max_length, self.batch_tokens, self.multiple(shards), self.steps)

    def multiple(self, shards: int) -> int:
        """The number by which the rows of a batch divide: `rows_multiple`, or its greatest divisor that leaves room for
        the longest pairs; if `shards` do not divide it, a multiple of both."""
        fits = max(1, self.batch_tokens // self.max_length)
        fixed = max(n for n in range(1, self.rows_multiple + 1) if self.rows_multiple % n == 0 and n <= fits)
        both = math.lcm(fixed, shards)
        return both if both <= fits else shards

    def batch_shapes(self, shards: int) -> list[Seq2SeqBatch]:
        buckets = self.buckets(shards)
        ids = [shape_of_ids(*shape) for shape in zip(buckets.counts, buckets.boundaries, strict=True)]
        return [Seq2SeqBatch(one, one, one) for one in ids]


class Translation:
    """A translation task over a working directory, which keeps its tokenizers. The contract of `zoo.training`."""

    SUMMARY = "test"

    @staticmethod
    def check(experiment: Any) -> None:
        penalty, name = experiment.decoding.coverage_penalty, experiment.model.name
        if penalty and not registry.family(name).attends:
            raise UserError(
                f"decoding.coverage_penalty={penalty:g}: {name} has no attention to tell what is covered: leave it at 0"
            )

    @staticmethod
    def selectable(data: TranslationData) -> tuple[str, ...]:
        return ("loss", "perplexity", "accuracy", *metrics.SCORES)

    def __init__(self, data: TranslationData, decoding: BeamConfig, smoothing: float, workdir: AnyPath, seed: int = 0):
        self.data, self.decoding, self.smoothing = data, decoding, smoothing
        self.workdir, self.seed = workdir, seed

    def prepare(self) -> None:
        """Prepare the training, once: check that evaluations can score and that every split has text, read what
        evaluations will read, and learn the tokenizers if the working directory has none. Writes nothing if that
        fails."""
        self.bleu_tokenizer()
        for split in SPLITS if self.data.test else SPLITS[:2]:
            pairs = iter(self.pairs(split))
            if not any(source.strip() and target.strip() for source, target in pairs):
                raise UserError(f"data.{split}={getattr(self.data, split)!r} holds no pairs of sentences: name others")
            if split != "train":
                deque(pairs, maxlen=0)
        if lacks_tokenizers(self.workdir, self._names()):
            self._learn_tokenizers()

    def pairs(self, split: str, location: str = "") -> Iterable[Pair]:
        """The text of a split, or of any other `location`."""
        if (location or getattr(self.data, split)) == PHRASES:
            # The training phrases are endless; the other splits are samples.
            size = None if split == "train" else HELD_OUT_PHRASES
            return Phrases(self.data.source, self.data.target, split, self.seed, size)
        where, tfds_split = self.data.where(split, location), self.data.tfds_split(split)
        options = {"download": self.data.download, "skip_malformed": self.data.skip_malformed}
        return parallel(where, self.data.source, self.data.target, tfds_split, **options)

    def bleu_tokenizer(self) -> str:
        """The name of the tokenizer for BLEU; see `metrics.bleu_tokenizer`."""
        return metrics.bleu_tokenizer(self.data.target, self.data.bleu_tokenizer)

    def alignments(self, split: str, location: str = "") -> list[frozenset[tuple[int, int]]] | None:
        """The true links (source word, target word) of every pair, or None if they are unknown. They are known for the
        embedded phrases."""
        pairs = self.pairs(split, location)
        return [pairs.alignment(i) for i in range(len(pairs))] if isinstance(pairs, Phrases) else None

    @cached_property
    def tokenizers(self) -> tuple[tokenizers.Tokenizer, tokenizers.Tokenizer]:
        """Source and target tokenizer, from the working directory, where `prepare` saved them."""
        loaded = [tokenizers.load(self.workdir / "tokenizer", name, self.data.tokenizer) for name in self._names()]
        return loaded[0], loaded[-1]

    def use_tokenizers(self, found: Mapping[str, Tokenizer]) -> None:
        """Use the tokenizers of a foreign folder, by their names in a working directory, where there is no such
        directory."""
        self.tokenizers = found["source"], found["target"]

    def named_tokenizers(self) -> dict[str, Tokenizer]:
        """The tokenizers by the names of their files."""
        return dict(zip(self._names(), self.tokenizers, strict=False))

    def _names(self) -> tuple[str, ...]:
        return ("joint",) if self.data.joint else ("source", "target")

    def _learn_tokenizers(self) -> None:
        def learn(lines: Iterable[str], key: str) -> tokenizers.Tokenizer:
            return tokenizers.train(self.data.tokenizer, lines, getattr(self.data, key), key=f"data.{key}")

        if self.data.joint:
            learned = {"joint": learn((line for pair in self._training_text() for line in pair), "vocabulary")}
        else:
            sides = enumerate(zip(self._names(), self.data.vocabulary_keys, strict=True))
            learned = {name: learn((pair[i] for pair in self._training_text()), key) for i, (name, key) in sides}
        for name, tokenizer in learned.items():  # only now, when all of them are learned
            save_tokenizer(self.workdir, tokenizer, self.data.tokenizer, name)

    def _training_text(self) -> Iterator[Pair]:
        pairs = self.pairs("train")
        if isinstance(pairs, Phrases):  # endless
            return (pairs[i] for i in range(20_000))
        return iter(pairs)

    def vocabularies(self) -> dict[str, int]:
        """The fields of a model's config that the data decides."""
        source, target = self.tokenizers
        return {"source_vocabulary": source.size, "target_vocabulary": target.size}

    def _examples(self, split: str, limits: Limits, location: str = "", most: int = 0) -> Examples:
        encoder = Encoder(*self.tokenizers, limits)
        pairs = self.pairs(split, location)
        if isinstance(pairs, Phrases) and pairs.size is None:
            return StreamedPairs.begun(pairs, encoder, f"data.{split}={PHRASES!r}")
        if most:
            pairs = (pair for pair, _ in zip(pairs, range(most), strict=False))
        stored = StoredPairs.read(pairs, encoder, location or f"data.{split}={getattr(self.data, split)!r}")
        for reason, count in encoder.dropped.items():
            log.info("%s: dropped %d of %d pairs: %s", split, count, len(stored) + encoder.dropped.total(), reason)
        return stored

    def training_batches(self, shards: int, share: Share = ALONE) -> grain.DatasetIterator:
        """The endless stream of training batches, with this process's rows of each; the rows divide by `shards`."""
        data, buckets = self.data, self.data.buckets(shards)
        if not data.batch_sentences and data.multiple(shards) != data.multiple(1):
            log.info(
                "batches have multiples of %d rows, since they are cut into %d parts; one device would train on other "
                "batches, of multiples of %d (data.rows_multiple)",
                data.multiple(shards),
                shards,
                data.multiple(1),
            )
        examples = self._training
        pool = data.pool or (STREAMED_POOL if examples.in_random_order else len(examples))
        return training_batches(examples, buckets, pool, self.seed, share)

    @cached_property
    def _training(self) -> Examples:
        return self._examples("train", Limits(self.data.max_length, self.data.max_ratio))

    def training_fingerprint(self) -> str:
        return self._training.fingerprint

    def training_shapes(self, shards: int) -> list[Seq2SeqBatch]:
        shapes, examples = self.data.batch_shapes(shards), self._training
        if not isinstance(examples, StoredPairs):
            return shapes
        shorter = sum(shape.inputs.shape[1] < examples.longest for shape in shapes)
        return shapes[: shorter + 1]

    def example_batch(self) -> Seq2SeqBatch:
        return Seq2SeqBatch.example()

    def loss(self, model: Any, params: Any, batch: Seq2SeqBatch, key: jax.Array | None = None) -> Sums:
        """Sums over the batch; training passes a `key` for dropout, evaluation none."""
        if key is None:
            return _evaluation_loss(model, params, batch)
        output = model.apply({"params": params}, batch, train=True, rngs={"dropout": key})
        return cross_entropy(output.readout, batch.labels, self.smoothing)

    def evaluate(self, model: Any, params: Any, split: str, location: str = "", most: int = 0) -> metrics.Evaluation:
        """Loss and translation scores on a split (its first `most` pairs, if given). No pair is dropped: pairs too long
        for the loss are still translated.
        """
        tokenizer = self.bleu_tokenizer()  # first, so that anything missing is reported before all the work
        samples = self.translated(model, params, split, location, most)
        sums = self._summed_loss(model, params, split, location, most)
        values = sums.means() | metrics.translation(samples, tokenizer)
        note = f"BLEU {self.data.source}→{self.data.target} {values['bleu_signature']}"
        measured = {"direction": f"{self.data.source}-{self.data.target}", "sentences": len(samples)}
        return metrics.Evaluation(values, samples, note, measured)

    def translated(
        self, model: Any, params: Any, split: str, location: str = "", most: int = 0
    ) -> list[metrics.Sample]:
        """Every source of a split (of its first `most` pairs, if given) with its reference and the best translation."""
        pairs = list(self.pairs(split, location))[: most or None]
        translate = Translator(model, params, *self.tokenizers, self.decoding, self.data.batch_tokens)
        outputs = [best[0].text for best in translate([source for source, _ in pairs])]
        return [(source, reference, output) for (source, reference), output in zip(pairs, outputs, strict=True)]

    def _summed_loss(self, model: Any, params: Any, split: str, location: str, most: int) -> Sums:
        limits = Limits(max(4 * self.data.max_length, 512))
        examples = self._examples(split, limits, location, most)
        batches = given_batches(examples.fetch(range(len(examples))), self.data.batch_tokens)
        return total(_evaluation_loss(model, params, batch) for _, batch in batches)


@partial(jax.jit, static_argnames="model")
def _evaluation_loss(model: Any, params: Any, batch: Seq2SeqBatch) -> Sums:
    return cross_entropy(model.apply({"params": params}, batch).readout, batch.labels)
