"""GPT-1 and GPT-2 of other programs: Hugging Face's layouts of both, nanoGPT's, and OpenAI's release of GPT-1.

Hugging Face and OpenAI keep kernels as the zoo does, inputs first, and query, key and value of a layer in one array;
nanoGPT transposes them. None has the zoo's four special rows: they come first here, and are never predicted, all but
the end of a text where the model has one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data import tokenizers
from zoo.data.specials import BOS, EOS, PAD, UNK
from zoo.data.tokenizers import SHIFT, Tokenizer
from zoo.errors import UserError
from zoo.interop.bpe import gpt1_tokenizer, gpt2_tokenizer
from zoo.interop.files import OpenAIArrays, SafeTensors, Tensors, damaged, openai_shapes
from zoo.interop.settings import Settings
from zoo.interop.tables import ABSENT, Row, Section, Table, Vocabulary

ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh", "relu": "relu"}
ACTIVATIONS |= {"silu": "swish", "swish": "swish"}
ACTIVATION_KEYS = {"openai-gpt": "afn", "gpt2": "activation_function"}
NAMES = {  # tokens, positions, last norm
    "gpt2": ("wte.weight", "wpe.weight", "ln_f"),
    "openai-gpt": ("tokens_embed.weight", "positions_embed.weight", ""),
}
PREFIXES = ("transformer.", "", "_orig_mod.transformer.", "_orig_mod.")
HEAD = 64  # the size of a head of GPT-1, which OpenAI's files do not tell


def _norm(path: str, name: str) -> tuple[Row, Row]:
    return Row(f"{path}/scale", f"{name}.weight"), Row(f"{path}/bias", f"{name}.bias", optional=True)


def _affine(path: str, name: str, transposed: bool, **options: Any) -> tuple[Row, Row]:
    kernel = Row(f"{path}/kernel", f"{name}.weight", transposed=transposed, **options)
    return kernel, Row(f"{path}/bias", f"{name}.bias", **options, optional=True)


def layer(transposed: bool = False) -> tuple[Row, ...]:
    """The rows of one layer."""
    fused = ("query", "key", "value")
    return (
        *(
            row
            for part, name in enumerate(fused)
            for row in _affine(f"attention/{name}", "attn.c_attn", transposed, part=part, parts=3)
        ),
        *_affine("attention/output", "attn.c_proj", transposed, inputs=2),
        *_norm("attention_residual/norm", "ln_1"),
        *_affine("feed_forward/expand", "mlp.c_fc", transposed),
        *_affine("feed_forward/contract", "mlp.c_proj", transposed),
        *_norm("feed_forward_residual/norm", "ln_2"),
    )


def table(kind: str, layers: int, vocabulary: Vocabulary, prefix: str, transposed: bool = False) -> Table:
    """The table of a `kind` of model, one of `NAMES`."""
    tokens, positions, last = NAMES[kind]
    rows = (Row("embedding/table", tokens, vocabulary="text"), Row("positions/table", positions))
    return Table(
        (*rows, *(_norm("decoder_norm", last) if last else ())),
        (Section("decoder", "h.{}.", layers, layer(transposed)),),
        ignored=r".*\.attn\.(bias|masked_bias)|.*lm_head\.weight|.*position_ids",
        prefix=prefix,
        vocabularies={"text": vocabulary},
    )


def published_rows(size: int, end: int | None, unknown: int | None) -> tuple[Vocabulary, tuple[int, ...]]:
    """The map between the rows of a published vocabulary of `size` and the zoo's, which has `SHIFT` more, and the rows
    of the zoo that are never predicted. `end` and `unknown` are the published rows of those tokens."""
    there = np.concatenate([np.full(SHIFT, ABSENT), np.arange(size)])
    here = np.arange(size) + SHIFT
    excluded = {PAD, BOS, EOS, UNK}
    for ours, theirs in ((EOS, end), (UNK, unknown)):
        if theirs is not None:
            there[ours], here[theirs] = theirs, ours
            excluded = excluded - {ours} | {theirs + SHIFT}
    if end is not None:
        there[BOS] = end  # GPT-2 begins a text with the token that ends one
    return Vocabulary(there, here), tuple(sorted(excluded))


@dataclass
class HuggingFaceGPT:
    """A folder of `transformers` with `openai-gpt` or `gpt2`, or one of nanoGPT's weights with such a config."""

    folder: Path
    settings: Settings

    @property
    def kind(self) -> str:
        return self.settings.values["model_type"]

    @cached_property
    def size(self) -> int:
        return self.settings.integer("vocab_size", 50_257 if self.kind == "gpt2" else 40_478)

    @cached_property
    def text(self) -> Tokenizer:
        if self.size > 2**24:
            raise damaged(self.settings.path, f"vocab_size={self.size}")
        if (self.folder / "tokenizer").is_dir():
            return tokenizers.load(self.folder / "tokenizer", "text")  # of a model that the zoo has exported
        read = gpt2_tokenizer if self.kind == "gpt2" else gpt1_tokenizer
        return read(self.folder, self.size)

    def tokenizers(self) -> Mapping[str, Tokenizer]:
        return {"text": self.text}

    @cached_property
    def rows(self) -> tuple[Vocabulary, tuple[int, ...]]:
        if self.text.size == self.size:
            return Vocabulary.same(self.size), ()
        end = self.settings.row("eos_token_id", 50_256 if self.kind == "gpt2" else None)
        unknown = self.text.row("<unk>") if self.kind == "openai-gpt" else None
        return published_rows(self.size, end if end is not None and end < self.size else None, unknown)

    def experiment(self) -> dict[str, Any]:
        s, first = self.settings, self.kind == "openai-gpt"
        s.require("layer_norm_epsilon", 1e-5)
        s.require("tie_word_embeddings", True)
        for key, plain in (("scale_attn_weights", True), ("scale_attn_by_inverse_layer_idx", False)):
            s.require(key, plain)
        s.require("add_cross_attention", False)
        width, key = s.integer("n_embd", 768), ACTIVATION_KEYS[self.kind]
        # Hugging Face's GPT-1 calls by the name of gelu what is gelu_new elsewhere.
        known = ACTIVATIONS | {"gelu": "gelu_tanh" if first else "gelu"}
        length = s.integer("n_positions", s.values.get("block_size") or (512 if first else 1024))
        dropouts = [s.share(key, s.values.get("dropout", 0.1)) for key in ("resid_pdrop", "attn_pdrop")]
        model = {
            "vocabulary": self.text.size,
            "layers": s.integer("n_layer", 12),
            "width": width,
            "ffn": s.integer("n_inner", 4 * width),
            "heads": s.integer("n_head", 12),
            "max_length": length,
            "norm": "post" if first else "pre",
            "residual_init": "plain" if first else "scaled",
            "activation": s.choice(key, "gelu" if first else "gelu_new", known),
            "dropout": dropouts[0],
            "attention_dropout": dropouts[1],
            "excluded_rows": self.rows[1],
        }
        return language_model(self.folder, "gpt1" if first else "gpt2", model, _sampling(self.folder))

    def tensors(self) -> Tensors:
        return SafeTensors(self.folder)

    def table(self, tensors: Tensors) -> Table:
        tokens = NAMES[self.kind][0]
        prefix = next((p for p in PREFIXES if p + tokens in tensors.shapes), PREFIXES[0])
        width = self.settings.integer("n_embd", 768)
        layers = self.settings.integer("n_layer", 12)
        _check_depth(tensors, prefix + "h.", layers, self.settings.path)
        transposed = tensors.shapes.get(f"{prefix}h.0.attn.c_attn.weight") == (3 * width, width)
        return table(self.kind, layers, self.rows[0], prefix, transposed)


@dataclass
class OpenAIGPT1:
    """GPT-1 as OpenAI released it. It has no special tokens, not even one that ends a text."""

    folder: Path

    @cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        shapes = openai_shapes(self.folder)
        fitting = len(shapes) >= 14 and len(shapes) % 12 == 2
        if not fitting or len(shapes[0]) != 2 or len(shapes[1]) != 2 or len(shapes[10]) != 3:
            raise damaged(self.folder / OpenAIArrays.SHAPES, "it is not of GPT-1")
        return shapes

    @cached_property
    def text(self) -> Tokenizer:
        return gpt1_tokenizer(self.folder, self.shapes[1][0])

    def tokenizers(self) -> Mapping[str, Tokenizer]:
        return {"text": self.text}

    @cached_property
    def rows(self) -> tuple[Vocabulary, tuple[int, ...]]:
        return published_rows(self.shapes[1][0], None, self.text.row("<unk>"))

    def experiment(self) -> dict[str, Any]:
        (length, width), (size, _) = self.shapes[:2]
        model = {
            "vocabulary": size + SHIFT,
            "layers": (len(self.shapes) - 2) // 12,
            "width": width,
            "ffn": self.shapes[8][-1],
            "heads": max(width // HEAD, 1),
            "max_length": length,
            "excluded_rows": self.rows[1],
        }
        return language_model(self.folder, "gpt1", model, {})

    def tensors(self) -> Tensors:
        tokens, positions, _ = NAMES["openai-gpt"]
        kinds = ("attn.c_attn", "attn.c_proj", "ln_1", "mlp.c_fc", "mlp.c_proj", "ln_2")
        layers = (len(self.shapes) - 2) // 12
        names = [f"h.{i}.{kind}.{of}" for i in range(layers) for kind in kinds for of in ("weight", "bias")]
        return OpenAIArrays(self.folder, [positions, tokens, *names])

    def table(self, tensors: Tensors) -> Table:
        return table("openai-gpt", (len(self.shapes) - 2) // 12, self.rows[0], "")


def language_model(folder: Path, tokenizer: str, model: dict[str, Any], decoding: dict[str, Any]) -> dict[str, Any]:
    """The plain values of an experiment around a published GPT."""
    sizes = {"gpt1": "gpt1", "gpt2": "gpt2_124m"}
    return {
        "name": folder.resolve().name or "imported",
        "task": "language_modeling",
        "model": {"name": "gpt", "size": sizes[tokenizer], **model},
        # Rows are cut from a stream, as in these models' training: no token precedes a text.
        "data": {"tokenizer": tokenizer, "length": model["max_length"], "packing": "stream"},
        "train": {"select": "loss"},
        "optimizer": {"schedule": "cosine", "peak": 6.25e-5},
        "decoding": decoding,
    }


def _sampling(folder: Path) -> dict[str, Any]:
    """The sampling of `generation_config.json`, if it exists and samples."""
    path = folder / "generation_config.json"
    values = Settings.of(path).values if path.is_file() else {}
    names = {"temperature": float, "top_k": int, "top_p": float}
    found = {key: kind(values[key]) for key, kind in names.items() if type(values.get(key)) in (int, float)}
    return found if values.get("do_sample") is True else {}


def _check_depth(tensors: Tensors, prefix: str, layers: int, path: Path) -> None:
    """Raise UserError if the config and the weights have different numbers of layers."""
    numbers = {name[len(prefix) :].split(".")[0] for name in tensors.shapes if name.startswith(prefix)}
    if len(numbers) != layers:
        raise UserError(f"{path} has {layers} layers and the weights {len(numbers)}: they are not of one model")
