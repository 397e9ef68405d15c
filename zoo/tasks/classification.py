"""Supervised fine-tuning (Radford et al. 2018, sections 3.2 and 3.3): labelled examples, and scores by GLUE's names."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import grain
import jax
import numpy as np
from jaxtyping import Num

from zoo.data import tokenizers
from zoo.data.batches.base import ALONE, LabelledBatch, Share
from zoo.data.batches.buckets import check_rows, padded_lengths, power_of_two, shape_of_ids
from zoo.data.batches.labelled import StoredExamples, evaluation_examples, training_examples
from zoo.data.examples import labelled, labels
from zoo.data.examples.labelled import FORMATS, Example, Format
from zoo.data.ids.transformations import Layout
from zoo.errors import UserError, check_choice, nearest
from zoo.nn.quantization import QUANTIZATIONS
from zoo.parallel.devices import COMPUTE_DTYPES
from zoo.storage import AnyPath
from zoo.tasks import metrics
from zoo.tasks.base import Splits, check_positions, lacks_tokenizers, save_tokenizer
from zoo.tasks.label_losses import LabelSums, fine_tuning_loss
from zoo.tasks.label_reports import Classified, Predictions, baselines

log = logging.getLogger("zoo")


@dataclass(frozen=True)
class ClassificationData(Splits):
    """Where the labelled examples come from: `task` is one of `zoo.data.examples.labelled.FORMATS`; the locations are
    tables with tabs, a `.csv` or tfds:NAME.

    A batch is `batch_rows` examples with sequences of at most `length` tokens. `train_examples` of the training split
    are used, drawn at random, the same for every seed (0: all). `columns`, such as `text:review,label:stars`, names the
    columns of the texts and the label (`zoo.data.examples.labelled.with_columns`). `auxiliary` is λ, the weight of the
    language model's loss. `tokenizer` and `vocabulary` describe the task's own tokenizer, where a donor gives none.
    With `skip_malformed`, rows that do not fit the header of their table are left out and counted.
    """

    task: str = "cola"
    train: str = "train.tsv"
    valid: str = "dev.tsv"
    test: str = "test.tsv"
    tokenizer: str = "bpe"
    vocabulary: int = 4000
    length: int = 512
    batch_rows: int = 32
    train_examples: int = 0
    auxiliary: float = 0.5
    skip_malformed: bool = False

    columns: str = ""

    KINDS: ClassVar[str] = "a .tsv, a .csv, a .jsonl or tfds:NAME"

    def __post_init__(self):
        if self.task not in FORMATS:
            raise UserError(f"data.task={self.task!r} is not a known task: {nearest(self.task, FORMATS)}")
        check_choice("data.tokenizer", self.tokenizer, (*tokenizers.LEARNED, *tokenizers.PUBLISHED))
        least = {"length": 5, "vocabulary": 5, "batch_rows": 1, "auxiliary": 0, "train_examples": 0}
        for key, bound in least.items():
            if getattr(self, key) < bound:
                raise UserError(f"data.{key}={getattr(self, key)}: use at least {bound}")
        _ = self.format  # or its columns are named

    @property
    def format(self) -> Format:
        form = FORMATS[self.task]
        return labelled.with_columns(form, self.columns) if self.columns else form

    size_key = "batch_rows"

    def planned_vocabularies(self) -> dict[str, int]:
        outputs = self.format.outputs_per_answer or len(self.format.names) or 2
        return {"vocabulary": self.vocabulary + Layout.ADDED, "outputs": outputs}

    def batch_shapes(self, shards: int) -> list[LabelledBatch]:
        check_rows("batch_rows", self.batch_rows, shards)
        each = (self.batch_rows, self.format.answers, self.format.orders)
        target = jax.ShapeDtypeStruct(each[:1], np.float32 if self.format.regression else np.int32)
        labelled = jax.ShapeDtypeStruct(each[:1], np.bool_)
        ids = [shape_of_ids(*each, length) for length in padded_lengths(self.length)]
        return [LabelledBatch(one, one, shape_of_ids(*each), target, labelled) for one in ids]


@dataclass(frozen=True)
class PredictionConfig:
    """A trained classifier computes in `compute_dtype`, from matrices rounded to 8 bits with `quantize="int8"`."""

    compute_dtype: str = "float32"
    quantize: str = "none"

    def __post_init__(self):
        check_choice("decoding.compute_dtype", self.compute_dtype, COMPUTE_DTYPES)
        check_choice("decoding.quantize", self.quantize, QUANTIZATIONS)


class Classification:
    """A task of labelled examples over a working directory, which keeps its tokenizer and its labels."""

    SUMMARY = "valid"  # GLUE keeps the labels of its test splits to itself

    @staticmethod
    def check(experiment: Any) -> None:
        data = experiment.data
        check_positions(data, experiment.model.config())
        if experiment.optimizer.per != "sentence":
            raise UserError(
                f"optimizer.per={experiment.optimizer.per!r}: the objective of labelled examples is a mean over them: "
                "use sentence"
            )
        smoothing = experiment.train.smoothing
        if data.format.regression and smoothing:
            raise UserError(f"train.smoothing={smoothing:g}: data.task={data.task!r} predicts numbers: leave it at 0")

    @staticmethod
    def selectable(data: ClassificationData) -> tuple[str, ...]:
        return ("loss", *data.format.scores)

    def __init__(
        self, data: ClassificationData, decoding: PredictionConfig, smoothing: float, workdir: AnyPath, seed: int = 0
    ):
        self.data, self.decoding, self.smoothing = data, decoding, smoothing
        self.workdir, self.seed = workdir, seed

    def prepare(self) -> None:
        """Check that the examples of training and validation are there and have the labels of the task, save these, and
        learn the tokenizer if the working directory has none. The test split is read only when it is scored."""
        form, splits = self.data.format, {split: list(self.examples(split)) for split in ("train", "valid")}
        known = labels.saved(self.workdir)
        new = labels.classes(form, splits["train"]) if known is None else known
        targets = {split: labels.targets(form, examples, new) for split, examples in splits.items()}
        for split, examples in splits.items():
            if all(example.label is None for example in examples):
                raise UserError(f"{self._name(split)} holds no labelled examples: name another")
            said = "" if form.regression else f": {labels.counted(examples)}"
            log.info("%s: %s examples%s", self._name(split), f"{len(examples):,}", said)
            if not (form.names or form.regression) and (rare := labels.rare(examples)):
                log.warning("%s: few have the label %s: check its spelling", self._name(split), " or ".join(rare))
        score, true = form.scores[0], targets["valid"][[example.label is not None for example in splits["valid"]]]
        always = "" if form.regression else f" by always saying {new[np.bincount(true).argmax()]!r}"
        log.info("to beat: %s %.4f%s", score, baselines(score, true, len(new))["majority"], always)
        if known is None:
            labels.save(self.workdir, new)
        if lacks_tokenizers(self.workdir, ("text",)):
            save_tokenizer(self.workdir, self._new_tokenizer(splits["train"]), self.data.tokenizer)

    def _name(self, split: str) -> str:
        return f"data.{split}={getattr(self.data, split)!r}"

    def _new_tokenizer(self, examples: list[Example]) -> tokenizers.Tokenizer:
        if self.data.tokenizer not in tokenizers.LEARNED:
            raise UserError(
                f"data.tokenizer={self.data.tokenizer!r} comes with a donor, by --init_from or --like: name one, or "
                f"learn one of {', '.join(tokenizers.LEARNED)}"
            )
        texts = (text for example in examples for text in (example.first, *example.seconds))
        return tokenizers.train_lossless(self.data.tokenizer, texts, self.data.vocabulary)

    def examples(self, split: str, location: str = "") -> Iterable[Example]:
        """The examples of a split, or of any other `location`."""
        where, tfds_split = self.data.where(split, location), self.data.tfds_split(split)
        options = {"download": self.data.download, "skip_malformed": self.data.skip_malformed}
        return labelled.read(self.data.format, where, tfds_split, split != "test", **options)

    @cached_property
    def labels(self) -> list[str]:
        """From the working directory, where `prepare` saved them, or from its checkpoint."""
        if (known := labels.saved(self.workdir)) is None:
            raise UserError(f"no {self.workdir / labels.FILE}: copy it from where it was trained, or train again")
        return known

    @cached_property
    def tokenizer(self) -> tokenizers.Tokenizer:
        """From the working directory, where `prepare` saved it."""
        return tokenizers.load(self.workdir / "tokenizer", "text", self.data.tokenizer)

    def named_tokenizers(self) -> dict[str, tokenizers.Tokenizer]:
        """The tokenizer by the name of its file."""
        return {"text": self.tokenizer}

    def vocabularies(self) -> dict[str, int]:
        """The fields of a model's config that the data decides."""
        return {
            "vocabulary": self.tokenizer.size + Layout.ADDED,
            "outputs": self.data.format.outputs_per_answer or len(self.labels),
        }

    def _stored(self, examples: list[Example], name: str, lengths: tuple[int, ...] = ()) -> StoredExamples:
        form, targets = self.data.format, labels.targets(self.data.format, examples, self.labels)
        return StoredExamples(examples, targets, form.kind, self.tokenizer, self.data.length, name, lengths)

    @cached_property
    def _training(self) -> StoredExamples:
        """The labelled examples of the training split."""
        examples = [example for example in self.examples("train") if example.label is not None]
        if 0 < self.data.train_examples < len(examples):
            drawn = np.random.default_rng(0).permutation(len(examples))[: self.data.train_examples]
            examples = [examples[i] for i in sorted(drawn)]
        stored = self._stored(examples, self._name("train"))
        log.info(
            "training on %s examples, %.4g updates an epoch, λ %g, %.1f %% of them cut to data.length=%d tokens",
            f"{len(stored):,}",
            len(stored) / self.data.batch_rows,
            self.data.auxiliary,
            100 * stored.cut / len(stored),
            self.data.length,
        )
        return stored

    def epoch_steps(self) -> float:
        """The number of batches in which each training example is seen once."""
        return len(self._training) / self.data.batch_rows

    def training_batches(self, shards: int, share: Share = ALONE) -> grain.DatasetIterator:
        """The endless stream of training batches, with this process's rows of each; the rows divide by `shards`."""
        return training_examples(self._training, self.data.batch_rows, shards, self.seed, share)

    def training_fingerprint(self) -> str:
        return self._training.fingerprint

    def training_shapes(self, shards: int) -> list[LabelledBatch]:
        """The possible lengths of a batch. A batch is as long as its longest example, so it cannot be shorter than the
        `batch_rows` shortest examples."""
        lengths = Counter(self._training.longest([i]) for i in range(len(self._training)))
        shapes, enough = [], 0
        for shape in self.data.batch_shapes(shards):
            count = lengths[shape.inputs.shape[-1]]
            enough += count
            shapes += [shape] * (count > 0 and enough >= min(self.data.batch_rows, len(self._training)))
        return shapes

    def example_batch(self) -> LabelledBatch:
        """The smallest batch, to initialize a model with."""
        return LabelledBatch.example()

    def loss(self, model: Any, params: Any, batch: LabelledBatch, key: jax.Array | None = None) -> LabelSums:
        """Sums over the batch; training passes a `key` for dropout, evaluation none."""
        dropout = {} if key is None else {"train": True, "rngs": {"dropout": key}}
        output = model.apply({"params": params}, batch, **dropout)
        smoothing, auxiliary = (0.0, 0.0) if key is None else (self.smoothing, self.data.auxiliary)
        return fine_tuning_loss(output, batch, self.data.format.regression, smoothing, auxiliary)

    def evaluate(self, model: Any, params: Any, split: str, location: str = "", most: int = 0) -> metrics.Evaluation:
        """The loss and the task's scores on a split (its first `most` examples, if given), and all predictions. Only
        labelled examples are scored; without any, there are no values."""
        examples = list(self.examples(split, location))[: most or None]
        stored = self._stored(examples, location or self._name(split))
        predictions, loss = self._predicted(model, params, stored)
        given = predictions.given
        values = {}
        if given.any():
            predicted, true = predictions.predicted[given], predictions.true[given]
            scores = {name: metrics.LABEL_SCORES[name](predicted, true) for name in self.data.format.scores}
            values = {"loss": loss / given.sum()} | scores
        texts = (" | ".join((example.first, *example.seconds)) for example in examples)
        known = (example.label or "" for example in examples)
        samples = list(zip(texts, known, predictions.said(), strict=True))
        return metrics.Evaluation(values, samples, measured={"examples": len(examples)}, predictions=predictions)

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the texts that make an example."""
        form = self.data.format
        seconds = form.seconds
        if form.kind == "multiple_choice":
            seconds = tuple(f"answer {label}" for label in form.names)
        return (" ".join(form.first), *seconds)

    def classify(
        self, model: Any, params: Any, texts: Sequence[str | Sequence[str]], first: int = 1
    ) -> list[Classified]:
        """The prediction for each of `texts`: one text, or as many as there are `fields`. Errors count lines from
        `first`. Raises `UserError` for another number of texts. An empty text is an example too."""
        examples = [self._example(text, number) for number, text in enumerate(texts, first)]
        if not examples:
            return []
        lengths = padded_lengths(self.data.length)
        predictions, _ = self._predicted(model, params, self._stored(examples, "the input", lengths))
        return predictions.each()

    def _example(self, text: str | Sequence[str], number: int) -> Example:
        given = (text,) if isinstance(text, str) else tuple(text)
        if given == ("",):
            given = ("",) * len(self.fields)
        if len(given) != len(self.fields):
            raise UserError(
                f"line {number}: {len(given)} text{'s' * (len(given) != 1)} where the model reads {len(self.fields)}: "
                f"write {'<TAB>'.join(self.fields)}"
            )
        return Example(given[0], given[1:])

    def _predicted(self, model: Any, params: Any, stored: StoredExamples) -> tuple[Predictions, float]:
        """The predictions, and the summed loss of those with labels."""
        regression, outputs = self.data.format.regression, np.empty(len(stored), object)
        loss = 0.0
        for indices, batch in evaluation_examples(stored, min(self.data.batch_rows, power_of_two(len(stored)))):
            found, sums = _evaluated(model, params, batch, regression)
            loss += float(sums.loss)
            for i, row in zip(indices, np.asarray(found), strict=False):
                outputs[i] = row
        scores = np.stack(list(outputs))
        if regression:
            return Predictions((), scores[:, 0], stored.targets), loss
        return Predictions(tuple(self.labels), scores.argmax(axis=1), stored.targets, softmax(scores)), loss


def softmax(scores: Num[np.ndarray, "N C"]) -> Num[np.ndarray, "N C"]:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@partial(jax.jit, static_argnames=("model", "regression"))
def _evaluated(model: Any, params: Any, batch: LabelledBatch, regression: bool) -> tuple[jax.Array, LabelSums]:
    output = model.apply({"params": params}, batch)
    return output.scores, fine_tuning_loss(output, batch, regression)
