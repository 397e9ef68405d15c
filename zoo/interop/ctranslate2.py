"""Models for CTranslate2, a fast engine for CPUs and GPUs, whose own library writes the files.

It takes Transformers with norms before or after their sublayers and any table of positions, and GPTs of both kinds. A
bias forbids what the zoo never predicts: padding, BOS and excluded rows.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Float, PyTree

from zoo.data.specials import BOS, EOS, PAD, SPECIALS, UNK
from zoo.data.tokenizers import SentencePiece, Tokenizer
from zoo.errors import UserError, check_choice
from zoo.interop.exported import Exported
from zoo.models.base import EXCLUDED
from zoo.models.gpt import GPTConfig
from zoo.models.transformer import TransformerConfig
from zoo.nn.positions import sinusoids

QUANTIZATIONS = ("int8", "int8_float16", "int8_float32", "int8_bfloat16", "int16", "float16", "bfloat16", "float32")
LENGTH = 1024  # positions of a table of sinusoids; the engine does not compute more


def write(folder: Path, model: Exported, quantization: str = "") -> None:
    """Write a model into an empty folder. Raises UserError for a model that the engine does not have, and if its
    library is not installed."""
    if quantization:
        check_choice("--quantization", quantization, QUANTIZATIONS)
    kinds = {GPTConfig: _gpt, TransformerConfig: _transformer}
    if type(model.config) not in kinds:
        name = type(model.config).__name__.removesuffix("Config")
        raise UserError(f"--to=ctranslate2: it has no {name}: only GPTs and Transformers can be exported")
    if not importlib.util.find_spec("ctranslate2"):
        raise UserError("--to=ctranslate2 needs its library: pip install ctranslate2")
    spec = kinds[type(model.config)](model)
    spec.config.layer_norm_epsilon = 1e-5
    spec.validate()
    spec.optimize(quantization=quantization or None)
    spec.save(str(folder))
    for name, tokenizer in model.tokenizers.items():
        if isinstance(tokenizer, SentencePiece):
            (folder / f"{name}.spm").write_bytes(tokenizer.model())


def _transformer(model: Exported) -> Any:
    from ctranslate2.specs import TransformerSpec, transformer_spec

    config, params = model.config, _Leaves(model.params)
    same = {"pre_norm": config.norm == "pre", "activation": _activation(config.activation)}
    sides = config.decoder
    spec = TransformerSpec(
        transformer_spec.TransformerEncoderSpec(config.layers, config.heads, **same),
        transformer_spec.TransformerDecoderSpec(
            sides.layers, sides.heads, alignment_layer=max(sides.layers - 2, 0), alignment_heads=sides.heads, **same
        ),
    )
    target = params["target_embedding/table"]
    source = target if config.tying == "all" else params["source_embedding/table"]
    spec.encoder.embeddings[0].weight, spec.decoder.embeddings.weight = source, target
    positions = _positions(config, params)
    for side, stack in ((spec.encoder, "encoder"), (spec.decoder, "decoder")):
        side.scale_embeddings = config.embedding_scale
        side.position_encodings.encodings = positions
        if config.norm == "pre":
            _norm(side.layer_norm, params, f"{stack}_norm")
    for i, layer in enumerate(spec.encoder.layer):
        _self_attention(layer.self_attention, params.layer("encoder", i), "attention", config.width)
        _feed_forward(layer.ffn, params.layer("encoder", i))
    for i, layer in enumerate(spec.decoder.layer):
        leaves = params.layer("decoder", i)
        _self_attention(layer.self_attention, leaves, "self_attention", config.width)
        _cross_attention(layer.attention, leaves, config.width)
        _feed_forward(layer.ffn, leaves)
    spec.decoder.projection.weight = params["output"].T.copy() if config.tying == "none" else target
    bias = params["output_bias"] if config.output_bias else np.zeros(config.target_vocabulary, np.float32)
    spec.decoder.projection.bias = _forbidding(bias, config.excluded_rows)
    for register, tokenizer in zip(
        (spec.register_source_vocabulary, spec.register_target_vocabulary), model.pair(), strict=True
    ):
        register(_names(tokenizer))
    _name_specials(spec.config)
    spec.config.decoder_start_token, spec.config.add_source_eos = SPECIALS[BOS], True
    return spec


def _gpt(model: Exported) -> Any:
    from ctranslate2.specs import TransformerDecoderModelSpec

    config, params = model.config, _Leaves(model.params)
    spec = TransformerDecoderModelSpec.from_config(
        config.layers,
        config.heads,
        pre_norm=config.norm == "pre",
        activation=_activation(config.activation),
        head_dim=config.head_size or None,
    )
    decoder, table = spec.decoder, params["embedding/table"]
    decoder.scale_embeddings, decoder.embeddings.weight = False, table
    decoder.position_encodings.encodings = params["positions/table"]
    if config.norm == "pre":
        _norm(decoder.layer_norm, params, "decoder_norm")
    for i, layer in enumerate(decoder.layer):
        leaves = params.layer("decoder", i)
        _self_attention(layer.self_attention, leaves, "attention", config.width)
        _feed_forward(layer.ffn, leaves)
    decoder.projection.weight = table
    decoder.projection.bias = _forbidding(np.zeros(config.vocabulary, np.float32), (*config.excluded_rows, UNK))
    spec.register_vocabulary(_names(model.tokenizers["text"]))
    _name_specials(spec.config)
    return spec


class _Leaves(dict):
    """Parameters by their paths, as float32 on the host."""

    def __init__(self, params: PyTree):
        super().__init__(flatten_dict(params, sep="/"))

    def __getitem__(self, path: str) -> Float[np.ndarray, "..."]:
        return np.array(super().__getitem__(path), np.float32)

    def layer(self, stack: str, i: int) -> Mapping[str, Float[np.ndarray, "..."]]:
        """The parameters of one layer, whether the layers are scanned or not."""
        scanned, own = f"{stack}/layers/", f"{stack}/layers_{i}/"
        found = {path.removeprefix(scanned): self[path][i] for path in self if path.startswith(scanned)}
        return found or {path.removeprefix(own): self[path] for path in self if path.startswith(own)}


def _positions(config: TransformerConfig, params: _Leaves) -> Float[np.ndarray, "T E"]:
    if config.positions == "learned":
        return params["learned_positions/table"]
    return np.asarray(sinusoids(jnp.arange(LENGTH), config.width, config.positions))


def _activation(name: str) -> Any:
    from ctranslate2.specs import Activation

    names = {"relu": "RELU", "gelu": "GELU", "gelu_tanh": "GELUTanh", "swish": "SWISH"}
    return getattr(Activation, names[name])


def _norm(spec: Any, leaves: Mapping[str, np.ndarray], path: str) -> None:
    spec.gamma, spec.beta = leaves[f"{path}/scale"], leaves[f"{path}/bias"]


def _linear(spec: Any, leaves: Mapping[str, np.ndarray], paths: list[str], width: int, out: bool = False) -> None:
    """One map, or several that read the same and are computed together. The engine keeps outputs first."""
    kernels = [leaves[f"{path}/kernel"] for path in paths]
    shape = (-1, width) if out else (width, -1)
    spec.weight = np.concatenate([kernel.reshape(shape).T for kernel in kernels])
    biases = [leaves.get(f"{path}/bias") for path in paths]
    if biases[0] is not None:
        spec.bias = np.concatenate([bias.reshape(-1) for bias in biases])


def _self_attention(spec: Any, leaves: Mapping[str, np.ndarray], path: str, width: int) -> None:
    _linear(spec.linear[0], leaves, [f"{path}/{name}" for name in ("query", "key", "value")], width)
    _linear(spec.linear[1], leaves, [f"{path}/output"], width, out=True)
    _norm(spec.layer_norm, leaves, f"{path}_residual/norm")


def _cross_attention(spec: Any, leaves: Mapping[str, np.ndarray], width: int) -> None:
    path = "cross_attention"
    _linear(spec.linear[0], leaves, [f"{path}/query"], width)
    _linear(spec.linear[1], leaves, [f"{path}/key", f"{path}/value"], width)
    _linear(spec.linear[2], leaves, [f"{path}/output"], width, out=True)
    _norm(spec.layer_norm, leaves, f"{path}_residual/norm")


def _feed_forward(spec: Any, leaves: Mapping[str, np.ndarray]) -> None:
    width = leaves["feed_forward/expand/kernel"].shape[0]
    _linear(spec.linear_0, leaves, ["feed_forward/expand"], width)
    _linear(spec.linear_1, leaves, ["feed_forward/contract"], width, out=True)
    _norm(spec.layer_norm, leaves, "feed_forward_residual/norm")


def _forbidding(bias: Float[np.ndarray, "V"], excluded: tuple[int, ...]) -> Float[np.ndarray, "V"]:
    bias = np.array(bias)
    bias[[PAD, BOS, *excluded]] = EXCLUDED
    return bias


def _names(tokenizer: Tokenizer) -> list[str]:
    """A unique name for every row: a published vocabulary has its own <unk> beside the zoo's."""
    names, seen = [], set()
    for row in range(tokenizer.size):
        name = SPECIALS[row] if row < len(SPECIALS) else tokenizer.piece(row)
        name = f"<row {row}>" if name in seen else name
        seen.add(name)
        names.append(name)
    return names


def _name_specials(config: Any) -> None:
    config.bos_token, config.eos_token, config.unk_token = (SPECIALS[row] for row in (BOS, EOS, UNK))
