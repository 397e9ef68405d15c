"""Language modeling: documents, a loss over every token, and how well a model compresses text."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar

import grain
import jax
import numpy as np

from zoo.data import tokenizers
from zoo.data.batches.base import ALONE, LanguageBatch, Share
from zoo.data.batches.buckets import check_rows, shape_of_ids
from zoo.data.batches.packing import HeldTokens, Rows, Tokens, evaluation_rows, training_rows
from zoo.data.examples.documents import PYDOC, Documents, documents
from zoo.data.ids.base import Ids
from zoo.data.ids.token_cache import TokenCache, tokenized
from zoo.data.specials import BOS, EOS, NOTHING
from zoo.decoding.generation import GenerationConfig, Generator
from zoo.decoding.likelihood import Likelihood
from zoo.errors import UserError, check_choice
from zoo.storage import AnyPath, expanded, scratch
from zoo.tasks import metrics
from zoo.tasks.base import SPLITS, Splits, check_positions, lacks_tokenizers, save_tokenizer
from zoo.tasks.losses import Sums, cross_entropy, total

SHOWN = 60  # characters of a document that a sample takes as its prompt, and that it shows of the continuation


@dataclass(frozen=True)
class LanguageModelingData(Splits):
    """Where the documents come from and how they are cut.

    The locations are those of `zoo.data.examples.documents`; `column` is the text of a TFDS dataset. A batch has
    `batch_rows` rows of `length` tokens; `packing` is `stream` or `segments` (documents that do not see each other).

    A tokenizer of `vocabulary` rows is learned from the training text; `gpt1` and `gpt2` read published files from the
    directory `vocabulary_files` instead. The training text is tokenized once, into files in the directory `cache`,
    which runs may share. By default each run has its own in its working directory or, if that is in an object store,
    all share one in ~/.cache/seqzoo.
    """

    train: str = PYDOC
    valid: str = PYDOC
    test: str = PYDOC
    column: str = "text"
    cache: str = ""
    tokenizer: str = "bpe"
    vocabulary_files: str = ""
    vocabulary: int = 8000
    length: int = 512
    batch_rows: int = 64
    packing: str = "segments"

    KINDS: ClassVar[str] = "a file, a folder or tfds:NAME"

    def __post_init__(self):
        check_choice("data.tokenizer", self.tokenizer, (*tokenizers.LEARNED, *tokenizers.PUBLISHED))
        check_choice("data.packing", self.packing, Rows.PACKINGS)
        for key, least in (("length", 2), ("vocabulary", 5), ("batch_rows", 1)):
            if getattr(self, key) < least:
                raise UserError(f"data.{key}={getattr(self, key)}: use at least {least}")

    size_key = "batch_rows"

    def planned_vocabularies(self) -> dict[str, int]:
        return {"vocabulary": self.vocabulary}

    def batch_shapes(self, shards: int) -> list[LanguageBatch]:
        check_rows("batch_rows", self.batch_rows, shards)
        ids = shape_of_ids(self.batch_rows, self.length)
        return [LanguageBatch(ids, ids, ids, ids) if self.packing == "segments" else LanguageBatch(ids, ids)]


class LanguageModeling:
    """A language modeling task over a working directory, which keeps its tokenizer."""

    SUMMARY = "test"

    @staticmethod
    def check(experiment: Any) -> None:
        check_positions(experiment.data, experiment.model.config())

    @staticmethod
    def selectable(data: LanguageModelingData) -> tuple[str, ...]:
        return ("loss", "perplexity", "accuracy", *metrics.LANGUAGE_SCORES)

    def __init__(
        self, data: LanguageModelingData, decoding: GenerationConfig, smoothing: float, workdir: AnyPath, seed: int = 0
    ):
        self.data, self.decoding, self.smoothing = data, decoding, smoothing
        self.workdir, self.seed = workdir, seed
        self._beginning = lru_cache(maxsize=1)(self._read)  # training evaluates the same again and again

    def prepare(self) -> None:
        """Check that there is text in every split, and learn the tokenizer if the working directory has none."""
        for split in SPLITS if self.data.test else SPLITS[:2]:
            documents = iter(self.documents(split))
            if not any(document.strip() for document in documents):
                raise UserError(f"data.{split}={getattr(self.data, split)!r} holds no text: name another")
            if split != "train":
                deque(documents, maxlen=0)
        if lacks_tokenizers(self.workdir, ("text",)):
            save_tokenizer(self.workdir, self._new_tokenizer(), self.data.tokenizer)

    def _new_tokenizer(self) -> tokenizers.Tokenizer:
        kind = self.data.tokenizer
        if kind in tokenizers.PUBLISHED:
            return tokenizers.published(kind, self.data.vocabulary_files)
        lines = (line for document in self.documents("train") for line in document.splitlines(keepends=True))
        return tokenizers.train_lossless(kind, lines, self.data.vocabulary)

    def documents(self, split: str, location: str = "") -> Documents:
        """The text of a split, or of any other `location`."""
        where, tfds_split = self.data.where(split, location), self.data.tfds_split(split)
        return documents(where, split, tfds_split, self.data.column, self.data.download)

    @cached_property
    def tokenizer(self) -> tokenizers.Tokenizer:
        """From the working directory, where `prepare` saved it."""
        return tokenizers.load(self.workdir / "tokenizer", "text", self.data.tokenizer)

    def use_tokenizers(self, found: Mapping[str, tokenizers.Tokenizer]) -> None:
        """Use the tokenizer of a foreign folder, where there is no working directory."""
        self.tokenizer = found["text"]

    def named_tokenizers(self) -> dict[str, tokenizers.Tokenizer]:
        """The tokenizer by the name of its file."""
        return {"text": self.tokenizer}

    def vocabularies(self) -> dict[str, int]:
        """The fields of a model's config that the data decides."""
        return {"vocabulary": self.tokenizer.size}

    def _rows(self, tokens: Tokens) -> Rows:
        return Rows(tokens, self.data.length, self.data.packing)

    def training_batches(self, shards: int, share: Share = ALONE) -> grain.DatasetIterator:
        """The endless stream of training batches, with this process's rows of each; the rows divide by `shards`."""
        return training_rows(self._rows(self._training), self.data.batch_rows, shards, self.seed, share)

    @cached_property
    def _training(self) -> TokenCache:
        cache = Path(expanded(self.data.cache)) if self.data.cache else scratch(self.workdir, "tokens")
        return tokenized(self.documents("train"), self.tokenizer, cache, "data.train")

    def training_fingerprint(self) -> str:
        return self._training.fingerprint

    def training_shapes(self, shards: int) -> list[LanguageBatch]:
        return self.data.batch_shapes(shards)

    def example_batch(self) -> LanguageBatch:
        """The smallest batch, to initialize a model with."""
        return LanguageBatch.example()

    def loss(self, model: Any, params: Any, batch: LanguageBatch, key: jax.Array | None = None) -> Sums:
        """Sums over the batch; training passes a `key` for dropout, evaluation none."""
        if key is None:
            return _evaluation_loss(model, params, batch)
        output = model.apply({"params": params}, batch, train=True, rngs={"dropout": key})
        return cross_entropy(output.readout, batch.labels, self.smoothing, NOTHING)

    def evaluate(self, model: Any, params: Any, split: str, location: str = "", most: int = 0) -> metrics.Evaluation:
        """Perplexity per token and word, bits per byte, and continuations of the first texts of a split. With `most`,
        only as many whole documents from its beginning as `most` rows need.
        """
        documents, ids = self._beginning(split, location, most * self.data.length)
        rows = self._rows(HeldTokens(ids))
        batches = evaluation_rows(rows, min(self.data.batch_rows, len(rows)))
        sums = total(_evaluation_loss(model, params, batch) for batch in batches)
        values = sums.means() | metrics.language(float(sums.loss), documents)
        measured = {"documents": len(documents), "tokens": int(sums.tokens)}
        return metrics.Evaluation(values, self._samples(model, params, documents), measured=measured)

    def _read(self, split: str, location: str, tokens: int) -> tuple[list[str], list[Ids]]:
        """The first documents that hold `tokens` tokens together, and their ids; all for 0."""
        documents, found, count = [], [], 0
        for document in filter(str.strip, self.documents(split, location)):
            (ids,) = self.tokenizer.encode([document])
            documents.append(document)
            found.append(np.asarray(ids, np.int32))
            count += len(ids)
            if tokens and count >= tokens:
                break
        if not documents:
            raise UserError(f"{location or f'data.{split}'} holds no text: name another")
        return documents, found

    def _samples(self, model: Any, params: Any, documents: Sequence[str]) -> list[metrics.Sample]:
        beginnings = [document.strip() for document in documents[:3]]
        prompts = [document[: min(SHOWN, len(document) // 2)] for document in beginnings]
        outputs = self.generator(model, params)(prompts)
        known = (document[len(prompt) :][:SHOWN] for document, prompt in zip(beginnings, prompts, strict=True))
        return list(zip(prompts, known, outputs, strict=True))

    def generator(self, model: Any, params: Any) -> Generator:
        """Begins texts as the training rows do, and sees at most their length, since later positions were not
        trained."""
        return Generator(
            model, params, self.tokenizer, self.decoding, self.begin(False), self.begin(True), self.data.length
        )

    def likelihood(self, model: Any, params: Any) -> Likelihood:
        """Scores texts that begin as the training rows do, in windows of their length."""
        return Likelihood(model, params, self.tokenizer, self.data.length, self.begin)

    def begin(self, blank: bool) -> list[int]:
        """The ids before a text: BOS, if training rows have it. In a stream a text may be any part of a document, so
        only a `blank` text, whose first token needs some context, is given the EOS between documents."""
        if self.data.packing == "segments":
            return [BOS]
        return [EOS] if blank else []


@partial(jax.jit, static_argnames="model")
def _evaluation_loss(model: Any, params: Any, batch: LanguageBatch) -> Sums:
    return cross_entropy(model.apply({"params": params}, batch).readout, batch.labels, padding=NOTHING)
