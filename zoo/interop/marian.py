"""Marian models as `transformers` keeps them: the post-norm Transformer of OPUS-MT.

Its rows are those of one vocabulary or of two, in which padding is also what decoding begins with. Kernels are
transposed; sinusoids put all sines first.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.specials import BOS, EOS, PAD, SPECIALS
from zoo.data.tokenizers import MarianPieces, Tokenizer
from zoo.errors import UserError
from zoo.interop.files import SafeTensors, Tensors, damaged, read_json
from zoo.interop.settings import Settings
from zoo.interop.tables import ABSENT, Row, Section, Table, Vocabulary

ACTIVATIONS = {"swish": "swish", "silu": "swish", "relu": "relu", "gelu": "gelu", "gelu_new": "gelu_tanh"}
ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}
SHARED = "model.shared.weight"
TARGET = "model.decoder.embed_tokens.weight"
SOURCE = "model.encoder.embed_tokens.weight"
READOUT = "lm_head.weight"


def _affine(path: str, name: str, **options: Any) -> tuple[Row, Row]:
    return Row(f"{path}/kernel", f"{name}.weight", transposed=True, **options), Row(f"{path}/bias", f"{name}.bias")


def _norm(path: str, name: str) -> tuple[Row, Row]:
    return Row(f"{path}_residual/norm/scale", f"{name}.weight"), Row(f"{path}_residual/norm/bias", f"{name}.bias")


def _attention(path: str, name: str) -> tuple[Row, ...]:
    maps = (
        _affine(f"{path}/{ours}", f"{name}.{theirs}", inputs=1 + (ours == "output"))
        for ours, theirs in ATTENTION.items()
    )
    return tuple(row for rows in maps for row in rows) + _norm(path, f"{name}_layer_norm")


FEED_FORWARD = (
    *_affine("feed_forward/expand", "fc1"),
    *_affine("feed_forward/contract", "fc2"),
    *_norm("feed_forward", "final_layer_norm"),
)
ENCODER_LAYER = (*_attention("attention", "self_attn"), *FEED_FORWARD)
DECODER_LAYER = (
    *_attention("self_attention", "self_attn"),
    *_attention("cross_attention", "encoder_attn"),
    *FEED_FORWARD,
)


def table(
    tying: str, layers: tuple[int, int], vocabularies: Mapping[str, Vocabulary], embeddings: str = SHARED
) -> Table:
    """The table of a model with so many layers in its encoder and decoder. `embeddings` is the name of the array that
    three-way tying shares."""
    target = embeddings if tying == "all" else TARGET
    rows = [
        Row("target_embedding/table", target, vocabulary="target"),
        Row("output_bias", "final_logits_bias", as_row=True, vocabulary="target", optional=True),
    ]
    if tying != "all":
        rows.append(Row("source_embedding/table", SOURCE, vocabulary="source"))
    if tying == "none":
        rows.append(Row("output", READOUT, transposed=True, vocabulary="target"))
    tied = {"all": [SHARED, SOURCE, TARGET, READOUT], "output": [SHARED, READOUT], "none": [SHARED]}[tying]
    return Table(
        tuple(rows),
        (
            Section("encoder", "model.encoder.layers.{}.", layers[0], ENCODER_LAYER),
            Section("decoder", "model.decoder.layers.{}.", layers[1], DECODER_LAYER),
        ),
        ignored="|".join([*map(re.escape, tied), r".*embed_positions\.weight"]),
        vocabularies=vocabularies,
    )


@dataclass(frozen=True)
class SpecialRows:
    """The rows of Marian's special tokens in a vocabulary of `size`; decoding begins with `start`."""

    size: int
    pad: int
    start: int
    end: int
    unknown: int

    def order(self) -> list[int]:
        """The row there of every row here: the specials first, and then the others in their order."""
        first = [ABSENT if self.pad == self.start else self.pad, self.start, self.end, self.unknown]
        return first + [row for row in range(self.size) if row not in first]

    def vocabulary(self) -> Vocabulary:
        there = np.array(self.order())
        here = np.full(self.size, ABSENT)
        for row in range(len(there) - 1, -1, -1):
            here[there[row]] = row if there[row] != ABSENT else here[there[row]]
        here[self.end] = EOS
        return Vocabulary(there, here)

    def excluded(self) -> tuple[int, ...]:
        return ((PAD,) if self.pad == self.start else ()) + ((BOS,) if self.start == self.end else ())


@dataclass
class HuggingFaceMarian:
    """A folder of `transformers` with `marian`."""

    folder: Path
    settings: Settings

    @cached_property
    def sizes(self) -> tuple[int, int]:
        """The rows of the source's vocabulary and of the target's."""
        size = self.settings.integer("vocab_size", 58_101)
        return size, self.settings.integer("decoder_vocab_size", size)

    @cached_property
    def tying(self) -> str:
        if self.settings.flag("share_encoder_decoder_embeddings", True):
            self.settings.require("tie_word_embeddings", True)
            return "all"
        return "output" if self.settings.flag("tie_word_embeddings", True) else "none"

    @cached_property
    def pieces(self) -> tuple[dict[str, int], dict[str, int]]:
        """The pieces of both sides with their rows there."""
        apart = (self.folder / "target_vocab.json").is_file() and self.tying != "all"
        names = ("vocab.json", "target_vocab.json" if apart else "vocab.json")
        return tuple(self._pieces(self.folder / name, size) for name, size in zip(names, self.sizes, strict=True))

    def _pieces(self, path: Path, size: int) -> dict[str, int]:
        ids = read_json(path)
        if not all(type(i) is int for i in ids.values()) or sorted(ids.values()) != list(range(len(ids))):
            raise damaged(path, "it does not number its pieces from 0")
        if len(ids) != size:
            raise UserError(f"{path} has {len(ids)} pieces and config.json {size}: they are not of one model")
        if "<unk>" not in ids:
            raise damaged(path, "it has no <unk>")
        return ids

    @cached_property
    def specials(self) -> tuple[SpecialRows, SpecialRows]:
        return tuple(self._specials(ids, size) for ids, size in zip(self.pieces, self.sizes, strict=True))

    def _specials(self, ids: dict[str, int], size: int) -> SpecialRows:
        pad = self.settings.row("pad_token_id", 58_100)
        rows = {
            "pad_token_id": pad,
            "decoder_start_token_id": self.settings.row("decoder_start_token_id", pad),
            "eos_token_id": self.settings.row("eos_token_id", 0),
        }
        for key, row in rows.items():
            if row is None or row >= size:
                raise damaged(self.settings.path, f"{key}={row} is no row of a vocabulary of {size}")
        return SpecialRows(size, *rows.values(), ids["<unk>"])

    def tokenizers(self) -> Mapping[str, Tokenizer]:
        return {side: self._tokenizer(i, side) for i, side in enumerate(("source", "target"))}

    def _tokenizer(self, side: int, name: str) -> MarianPieces:
        path = self.folder / f"{name}.spm"
        if not path.is_file():
            raise UserError(f"{path} is missing: copy the tokenizer there too")
        surfaces = {row: piece for piece, row in self.pieces[side].items()}
        try:
            content = path.read_bytes()
            if not content:
                raise RuntimeError("it is empty")
            return MarianPieces(content, [surfaces[row] for row in self.specials[side].order()[len(SPECIALS) :]])
        except RuntimeError as error:
            raise damaged(path, "it is no SentencePiece model") from error

    def experiment(self) -> dict[str, Any]:
        s = self.settings
        same = {
            ours: (s.integer(f"encoder_{theirs}", default), s.integer(f"decoder_{theirs}", default))
            for ours, theirs, default in (
                ("layers", "layers", 12),
                ("ffn", "ffn_dim", 4096),
                ("heads", "attention_heads", 16),
            )
        }
        source, target = (rows.size + (PAD in rows.excluded()) for rows in self.specials)
        model = {
            "name": "transformer",
            "size": "base",
            "source_vocabulary": source,
            "target_vocabulary": target,
            **{name: encoder for name, (encoder, _) in same.items()},
            **{f"decoder_{name}": decoder for name, (encoder, decoder) in same.items() if decoder != encoder},
            "width": s.integer("d_model", 1024),
            "tying": self.tying,
            "positions": "concatenated",
            "activation": s.choice("activation_function", "gelu", ACTIVATIONS),
            "attention_bias": True,
            "output_bias": True,
            "embedding_scale": s.flag("scale_embedding", False),
            "dropout": s.share("dropout", 0.1),
            "attention_dropout": s.share("attention_dropout", 0.0),
            "ffn_dropout": s.share("activation_dropout", 0.0),
            "excluded_rows": self.specials[1].excluded(),
        }
        s.require("normalize_before", False)
        return {
            "name": self.folder.resolve().name or "imported",
            "task": "translation",
            "model": model,
            "data": {**self._languages(), "joint": False, "max_length": 128},
            "optimizer": {"schedule": "linear", "peak": 2e-5},
            "decoding": self._decoding(),
        }

    def _languages(self) -> dict[str, str]:
        path = self.folder / "tokenizer_config.json"
        values = read_json(path) if path.is_file() else {}
        found = {side: values.get(f"{side}_lang") for side in ("source", "target")}
        named = all(isinstance(name, str) and name for name in found.values()) and len(set(found.values())) == 2
        return found if named else {"source": "source", "target": "target"}

    def _decoding(self) -> dict[str, Any]:
        path = self.folder / "generation_config.json"
        values = read_json(path) if path.is_file() else self.settings.values
        found = {"beam_size": values.get("num_beams"), "max_length": values.get("max_length")}
        plain = {key: value for key, value in found.items() if type(value) is int and 0 < value < 2**16}
        penalty = values.get("length_penalty")
        alpha = float(penalty) if type(penalty) in (int, float) and abs(penalty) < 100 else 1.0
        return {"beam_size": 1, "length_penalty": alpha, "normalization": "power", **plain}

    def tensors(self) -> Tensors:
        return SafeTensors(self.folder)

    def table(self, tensors: Tensors) -> Table:
        layers = tuple(self.settings.integer(f"{side}_layers", 12) for side in ("encoder", "decoder"))
        for side, count in zip(("encoder", "decoder"), layers, strict=True):
            prefix = f"model.{side}.layers."
            found = {name[len(prefix) :].split(".")[0] for name in tensors.shapes if name.startswith(prefix)}
            if len(found) != count:
                raise UserError(
                    f"{self.settings.path} has {count} layers in the {side} and the weights {len(found)}: they are not "
                    "of one model"
                )
        embeddings = next((name for name in (SHARED, TARGET, SOURCE, READOUT) if name in tensors.shapes), SHARED)
        source, target = (rows.vocabulary() for rows in self.specials)
        return table(self.tying, layers, {"source": source, "target": target}, embeddings)
