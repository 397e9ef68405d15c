"""Every model by name: its module, its config and its published sizes. `register` adds one of your own."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import flax.linen as nn
import jax

from zoo.data.batches.base import LabelledBatch, LanguageBatch, Seq2SeqBatch
from zoo.errors import UserError, nearest
from zoo.models import cho, gpt, gpt_classifier, rnnsearch, seq2seq, transformer
from zoo.plugins import alike


@dataclass(frozen=True)
class Family:
    """The models of one paper.

    `module` is called with a config of class `config`, which is frozen and has at least `dtype` and the vocabularies
    that its batches need (`vocabulary`, or `source_vocabulary` and `target_vocabulary`). `sizes` are configs by name.
    `batch` is what the model reads, and decides for which tasks it can be trained. `attends`: it looks at the source
    anew for each target token. `papers` names the papers of the sizes that another one published.
    """

    module: type[nn.Module]
    config: type
    sizes: Mapping[str, Any]
    paper: str
    batch: type[Seq2SeqBatch | LanguageBatch | LabelledBatch] = Seq2SeqBatch
    attends: bool = True
    papers: Mapping[str, str] = field(default_factory=dict)

    def paper_of(self, size: str) -> str:
        return self.papers.get(size, self.paper)


FAMILIES: dict[str, Family] = {
    "seq2seq": Family(seq2seq.Seq2Seq, seq2seq.Seq2SeqConfig, seq2seq.SIZES, seq2seq.PAPER, attends=False),
    "cho": Family(cho.Cho, cho.ChoConfig, cho.SIZES, cho.PAPER, attends=False),
    "rnnsearch": Family(rnnsearch.RNNsearch, rnnsearch.RNNsearchConfig, rnnsearch.SIZES, rnnsearch.PAPER),
    "transformer": Family(transformer.Transformer, transformer.TransformerConfig, transformer.SIZES, transformer.PAPER),
    "gpt": Family(gpt.GPT, gpt.GPTConfig, gpt.SIZES, gpt.PAPER, LanguageBatch, papers=gpt.PAPERS),
    "gpt_classifier": Family(
        gpt_classifier.GPTClassifier,
        gpt_classifier.GPTClassifierConfig,
        gpt_classifier.SIZES,
        gpt_classifier.PAPER,
        LabelledBatch,
    ),
}


def register(name: str, family: Family) -> None:
    """Add a model of your own, from any file (see `zoo.plugins`): from then on it is trained, decoded and listed as the
    others are.

        register("mine", Family(MyModel, MyConfig, {"small": MyConfig(width=64)}, "Me 2026", batch=LanguageBatch))

    Raises `UserError` if another model has this name.
    """
    known = FAMILIES.get(name, family)
    if not alike(known.module, family.module):
        raise UserError(f"there is a model {name!r} already, {known.module.__module__}: choose another name")
    FAMILIES[name] = family


def family(name: str) -> Family:
    if name not in FAMILIES:
        raise UserError(f"model.name={name!r} is not a model of the zoo: {nearest(name, FAMILIES)}")
    return FAMILIES[name]


def config(name: str, size: str, **fields_to_change: Any) -> Any:
    """The config of a published size, with some of its fields changed."""
    sizes = family(name).sizes
    if size not in sizes:
        raise UserError(f"model.size={size!r} is not a size of {name}: {nearest(size, sizes)}")
    known = [f.name for f in fields(sizes[size])]
    for key in fields_to_change:
        if key not in known:
            raise UserError(f"model.{key} is not a field of {name}: {nearest(key, known)}")
    for key, value in fields_to_change.items():
        if type(value) is int and value < 1:
            raise UserError(f"model.{key}={value}: use at least 1")
        if key.endswith("dropout") and not 0 <= value < 1:
            raise UserError(f"model.{key}={value}: a probability to drop lies in [0, 1)")
    return replace(sizes[size], **fields_to_change)


def build(name: str, size: str, **fields_to_change: Any) -> nn.Module:
    """A model in one line: `build("transformer", "tiny", dropout=0.1)`."""
    return family(name).module(config(name, size, **fields_to_change))


def of(config: Any) -> nn.Module:
    """The model of a config."""
    return _family_of(config).module(config)


def _family_of(config: Any) -> Family:
    return next(f for f in FAMILIES.values() if alike(type(config), f.config))


def example_batch(config: Any) -> Seq2SeqBatch | LanguageBatch | LabelledBatch:
    """The smallest batch that the model of a config takes, to initialize it with."""
    return _family_of(config).batch.example()


def parameter_count(config: Any) -> int:
    """The exact number of parameters, computed without creating any."""
    return sum(leaf.size for leaf in jax.tree.leaves(boxed_shapes(config)))


def boxed_shapes(config: Any) -> Any:
    """The shapes of a model's parameters, in the boxes that name their axes."""
    batch = example_batch(config)
    return jax.eval_shape(lambda key: of(config).init(key, batch)["params"], jax.random.key(0))


def catalog() -> list[dict[str, str | int]]:
    """Every model and size: `{"model", "size", "paper", "parameters"}`, the parameters counted without making any."""
    return [
        {"model": name, "size": size, "paper": family.paper_of(size), "parameters": parameter_count(config)}
        for name, family in FAMILIES.items()
        for size, config in family.sizes.items()
    ]
