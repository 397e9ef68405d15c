"""Every model of the zoo by name: its module, its config and its published sizes."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from zoo.data.batching import Seq2SeqBatch
from zoo.errors import UserError, nearest
from zoo.models import cho, rnnsearch, seq2seq, transformer


@dataclass(frozen=True)
class Family:
    """The models of one paper; `attends`: they look at the source anew for each target token."""

    module: type[nn.Module]
    config: type
    sizes: Mapping[str, Any]
    paper: str
    attends: bool = True


FAMILIES: dict[str, Family] = {
    "seq2seq": Family(seq2seq.Seq2Seq, seq2seq.Seq2SeqConfig, seq2seq.SIZES, seq2seq.PAPER, attends=False),
    "cho": Family(cho.Cho, cho.ChoConfig, cho.SIZES, cho.PAPER, attends=False),
    "rnnsearch": Family(rnnsearch.RNNsearch, rnnsearch.RNNsearchConfig, rnnsearch.SIZES, rnnsearch.PAPER),
    "transformer": Family(transformer.Transformer, transformer.TransformerConfig, transformer.SIZES, transformer.PAPER),
}


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
    return next(f.module for f in FAMILIES.values() if isinstance(config, f.config))(config)


def parameter_count(config: Any) -> int:
    """Exactly, and without making any of them."""
    batch = Seq2SeqBatch(*(np.ones((1, 2), np.int32) for _ in range(3)))
    shapes = jax.eval_shape(lambda key: of(config).init(key, batch)["params"], jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))
