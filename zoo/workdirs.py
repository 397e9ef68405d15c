"""Working directories opened for use: the models they hold, ready to translate, alone or together, and to write."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from os import PathLike
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Float

from zoo import interop
from zoo.checkpoints import load_parameters, save_parameters
from zoo.data.batches.base import LanguageBatch
from zoo.data.batches.buckets import padded
from zoo.data.examples import labels
from zoo.decoding.alignment import aligning
from zoo.decoding.ancestral import Draws
from zoo.decoding.ensemble import Ensemble
from zoo.decoding.generation import Generator
from zoo.decoding.inspection import of_text, of_translation
from zoo.decoding.scoring import Scorer
from zoo.decoding.translator import Translator
from zoo.errors import UserError, check_choice
from zoo.experiment import Change, Experiment, from_workdir
from zoo.models import registry
from zoo.nn.quantization import quantized
from zoo.storage import AnyPath, located, reached, remove, write_whole
from zoo.tasks.label_reports import Classified
from zoo.training.lora import LoRAConfig, adapted, merged

if TYPE_CHECKING:
    from zoo.plotting.explorer import Explorer


@dataclass(frozen=True)
class CrossAttention:
    """The attention of a translation's pieces: `weights[l, h, t, s]`, with EOS as the last piece of both sides."""

    text: str
    source: list[str]
    target: list[str]
    weights: Float[np.ndarray, "L H T S"]

    def alignment(self) -> Float[np.ndarray, "T S"]:
        """The source of each piece, see `zoo.decoding.alignment.aligning`."""
        return aligning(self.weights)


@dataclass
class Workdir:
    """`load("runs/phrases").translate(["Thursday, March 3, 2022"])`, or `load("runs/gpt-nano").generate(["The"])`.

    `shapes` of the parameters have the shardings to load them with; without it, they go to the first device.
    """

    path: AnyPath
    experiment: Experiment
    checkpoint: str = "best"
    shapes: Any | None = None

    @cached_property
    def task(self) -> Any:
        task = self.experiment.make_task(self.path)
        if self._foreign is not None:
            task.use_tokenizers(self._foreign.tokenizers)
        return task

    @cached_property
    def model(self) -> nn.Module:
        return registry.of(self.experiment.model_config(self.task, self.experiment.decoding.compute_dtype))

    @property
    def step(self) -> int:
        """The step of the parameters."""
        return self._loaded[0]

    @property
    def params(self) -> Any:
        """The parameters of `checkpoint`: best (or else the latest), latest, average, or the number of a step; with
        matrices of 8 bits where `decoding.quantize` says so."""
        return self._loaded[1]

    @cached_property
    def _loaded(self) -> tuple[int, Any]:
        step, params = self._read()
        return step, params if self.experiment.decoding.quantize == "none" else quantized(params)

    @property
    def _exact(self) -> Any:
        """The parameters as they were trained, for whoever writes them."""
        return self.params if self.experiment.decoding.quantize == "none" else self._read()[1]

    def _read(self) -> tuple[int, Any]:
        like, lora = self.shapes or self._on_one_device(), self.experiment.lora
        if self._foreign is not None:
            return 0, self._foreign.parameters(like)
        step, params = load_parameters(self.path, self.checkpoint, like)
        return step, merged(params, lora) if lora.rank else params

    @cached_property
    def _foreign(self) -> interop.Foreign | None:
        return interop.opened(self.path)

    def _on_one_device(self) -> Any:
        batch, model = self.task.example_batch(), adapted(self.model, self.experiment.lora)
        shapes = jax.eval_shape(lambda key: nn.unbox(model.init(key, batch))["params"], jax.random.key(0))
        where = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), shapes)

    @property
    def attends(self) -> bool:
        """Whether its model looks at the source anew for each target token."""
        return registry.family(self.experiment.model.name).attends

    def _check_is_for(self, *commands: str) -> None:
        """Raise `UserError` unless one of the `commands` uses its model."""
        _check_command(self.path, self.experiment, commands)

    def translator(self, batch_tokens: int = 2048, draws: Draws | None = None) -> Translator:
        self._check_is_for("translate")
        return Translator(self.model, self.params, *self.task.tokenizers, self.experiment.decoding, batch_tokens, draws)

    def scorer(self, batch_tokens: int = 2048) -> Scorer:
        self._check_is_for("translate")
        return Scorer(self.model, self.params, *self.task.tokenizers, self.experiment.decoding, batch_tokens)

    def generator(self) -> Generator:
        self._check_is_for("generate")
        return self.task.generator(self.model, self.params)

    def generate(self, prompts: list[str], seed: int = 0) -> list[str]:
        """The continuation of each prompt."""
        return self.generator()(prompts, seed)

    def translate(self, lines: list[str]) -> list[str]:
        """The best translation of every line."""
        return [best[0].text for best in self.translator()(lines)]

    def explore(self, text: str) -> "Explorer":
        """Every attention of the model on `text`, shown in a notebook cell or saved as a page: while translating it, or
        while a language model reads it, with the alternatives at each step.

        Raises `UserError` for an empty text, and for a model without attention.
        """
        from zoo.plotting.explorer import explore

        if not text.strip():
            raise UserError(f"{text!r} holds nothing to look at: give a sentence")
        self._check_is_for("translate", "generate")
        if self.experiment.command == "translate":
            written = self.translate([text])[0]
            return explore(of_translation(self.model, self.params, *self.task.tokenizers, text, written))
        return explore(of_text(self.model, self.params, self.task.tokenizer, self.task.begin(False), text))

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """The likelihood of the second text of each pair, given the first: beam search's score of a translation, or the
        natural logarithm of a continuation's probability."""
        self._check_is_for("translate", "generate")
        if self.experiment.command == "translate":
            return [scored.score for scored in self.scorer()(pairs)]
        names = [f"pair {number}" for number in range(1, len(pairs) + 1)]
        likelihood = self.task.likelihood(self.model, self.params)
        return [found.log_probability for found in likelihood.continuations(pairs, names)]

    def logits(self, text: str, target: str = "") -> Float[np.ndarray, "T V"]:
        """The prediction of a language model after each token of `text`; or of a translation model for each token of
        `target` and the EOS after it, from the source `text` and the tokens before."""
        return np.asarray(jax.jit(self.model.apply)({"params": self.params}, self._batch(text, target)).logits[0])

    def attention(self, text: str, target: str = "") -> dict[str, Float[np.ndarray, "L H T S"]]:
        """Every attention weight on `text`, by the name of its kind: `decoder`, and for translations into `target`
        (default: the model's own) also `encoder` and `cross`, with EOS last on both sides.

        Raises `UserError` for a model without attention.
        """
        self._check_is_for("translate", "generate")
        if self.experiment.command == "translate":
            written = target or self.translate([text])[0]
            found = of_translation(self.model, self.params, *self.task.tokenizers, text, written)
        else:
            found = of_text(self.model, self.params, self.task.tokenizer, self.task.begin(False), text)
        return {look.name: look.weights for look in found.looks}

    def _batch(self, text: str, target: str) -> Any:
        self._check_is_for("translate", "generate")
        if self.experiment.command != "translate":
            ids = [*self.task.begin(False), *self.task.tokenizer.encode([text])[0]]
            return LanguageBatch(np.array([ids], np.int32), np.array([ids], np.int32))
        pair = [np.array(t.encode([x])[0], np.int32) for t, x in zip(self.task.tokenizers, (text, target), strict=True)]
        batch = padded([(pair[0], pair[1])], 1, max(map(len, pair)) + 1)
        written = len(pair[1]) + 1
        return replace(batch, inputs=batch.inputs[:, :written], labels=batch.labels[:, :written])

    def classify(self, texts: Sequence[str | Sequence[str]], first: int = 1) -> list[Classified]:
        """The label of each text, or tuple of texts if the task reads several, with the probability of every label; see
        `Classification.classify`."""
        self._check_is_for("classify")
        return self.task.classify(self.model, self.params, texts, first)

    def cross_attention(self, line: str) -> CrossAttention | None:
        """The best translation of `line`, with the cross-attention of every layer and head; None if the model has none.

        Raises `UserError` when `line` is empty.
        """
        self._check_is_for("translate")
        source, target = self.task.tokenizers
        most = self.experiment.decoding.max_length
        ids = source.encode([line])[0][:most]
        if not ids:
            raise UserError(f"{line!r} holds nothing to translate, and nothing to look at: give a sentence")
        text = self.translate([line])[0]
        written = target.encode([text])[0]
        pair = np.array(ids, np.int32), np.array(written, np.int32)
        batch = padded([pair], 1, max(len(ids), len(written)) + 1)
        apply = jax.jit(partial(self.model.apply, weights=True))
        attention = apply({"params": self.params}, batch).attention
        if not attention or "cross" not in attention:
            return None
        labels = [*source.pieces(line)[:most], "</s>"], [*target.pieces(text), "</s>"]
        weights = np.asarray(attention["cross"])[:, 0, :, : len(written) + 1, : len(ids) + 1]
        return CrossAttention(text, *labels, weights)

    def save(self, directory: str | PathLike, to: str = "zoo", quantization: str = "") -> AnyPath:
        """Write the model into a new or empty directory, in the format `to` (see `zoo.interop`): `zoo` makes a working
        directory. If that fails, nothing is left there.

        Raises UserError for a directory with something in it, and for what the format cannot express.
        """
        directory = located(directory)
        check_choice("--to", to, ("zoo", *interop.WRITTEN))
        if quantization and to != "ctranslate2":
            raise UserError(f"--quantization={quantization!r} is for --to=ctranslate2: leave it out")
        existed = directory.exists()
        if existed and (not directory.is_dir() or any(directory.iterdir())):
            raise UserError(f"{directory} is there already: name a new or an empty directory")
        try:
            with reached(directory):
                directory.mkdir(parents=True, exist_ok=True)
                self._write_zoo(directory) if to == "zoo" else self._export(directory, to, quantization)
        except BaseException:
            for path in list(directory.iterdir()) if existed else [directory]:
                remove(path)
            raise
        return directory

    def _write_zoo(self, directory: AnyPath) -> None:
        for name, tokenizer in self.task.named_tokenizers().items():
            tokenizer.save(directory / "tokenizer", name)
        if (known := labels.saved(self.path)) is not None:
            labels.save(directory, known)
        save_parameters(directory / "best", self.step, self._exact, {})
        merged_in = replace(self.experiment, lora=LoRAConfig())
        content = json.dumps(merged_in.as_dict(), indent=2) + "\n"
        write_whole(directory / "config.json", content.encode())

    def _export(self, directory: AnyPath, to: str, quantization: str) -> None:
        data = self.experiment.data
        direction = (getattr(data, "source", ""), getattr(data, "target", ""))
        tokenizers, decoding = self.task.named_tokenizers(), self.experiment.decoding
        exported = interop.Exported(self.model.config, self._exact, tokenizers, decoding, direction)
        interop.write(directory, to, exported, quantization)


def load(path: str | PathLike, checkpoint: str = "best", changes: Sequence[Change] = (), command: str = "") -> Workdir:
    """Open a working directory; `changes` are changes of its config, such as `("decoding.beam_size", "1")`.

    Raises `UserError` if there is none, or if `command` cannot use its model.
    """
    path = located(path)
    if command:
        _check_command(path, from_workdir(path), (command,))
    return Workdir(path, from_workdir(path, changes), checkpoint)


def _check_command(path: AnyPath, experiment: Experiment, commands: Sequence[str]) -> None:
    if experiment.command not in commands:
        remedy = f"python -m zoo {experiment.command} {shlex.quote(str(path))}"
        raise UserError(f"{path} holds a model of task={experiment.task!r}: use {remedy}")


def ensemble(workdirs: Sequence[Workdir], batch_tokens: int = 2048, draws: Draws | None = None) -> Translator:
    """A translator with the mean of the models' probabilities; the first decides how it decodes.

    Raises `UserError` for two that differ in their languages or in their vocabularies.
    """
    first, *others = workdirs
    for other in others:
        _check_alike(first, other)
    model, params = Ensemble.of([w.model for w in workdirs], [w.params for w in workdirs])
    return Translator(model, params, *first.task.tokenizers, first.experiment.decoding, batch_tokens, draws)


def _check_alike(one: Workdir, other: Workdir) -> None:
    direction, another = (f"{w.experiment.data.source} to {w.experiment.data.target}" for w in (one, other))
    if direction != another:
        raise UserError(f"{one.path} translates {direction} and {other.path} {another}: an ensemble has one direction")
    if one.task.tokenizers != other.task.tokenizers:
        raise UserError(
            f"{one.path} and {other.path} have different vocabularies: train the members of an ensemble on the same "
            "text with the same data.vocabulary, or copy one's tokenizer/ before training the other"
        )
