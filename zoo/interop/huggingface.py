"""Write folders that `transformers` loads without our code: config, weights, tokenizer, and generation settings."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import PyTree
from safetensors.numpy import save_file

from zoo.data.specials import BOS, EOS, PAD, SPECIALS, UNK
from zoo.data.tokenizers import SHIFT, SentencePiece, Tokenizer
from zoo.data.tokenizers.published_bpe import PublishedBPE
from zoo.errors import UserError
from zoo.interop import gpt, marian
from zoo.interop.bpe import TOGETHER
from zoo.interop.exported import Exported
from zoo.interop.files import INDEX, WEIGHTS
from zoo.interop.gpt import published_rows
from zoo.interop.tables import Table, Vocabulary, written
from zoo.interop.tokenizers import as_tokenizer_json
from zoo.models import registry
from zoo.models.base import EXCLUDED
from zoo.models.gpt import GPTConfig
from zoo.models.transformer import TransformerConfig

SHARD = 5 * 2**30  # bytes of a file of weights


def write(folder: Path, model: Exported) -> None:
    """Write a model of the zoo into an empty folder. Raises UserError for what `transformers` has no model for."""
    if isinstance(model.config, GPTConfig) and "body" not in model.params:
        _write_gpt(folder, model)
    elif isinstance(model.config, TransformerConfig):
        _write_marian(folder, model)
    else:
        name = type(model.config).__name__.removesuffix("Config")
        raise UserError(f"--to=huggingface: transformers has no {name}: only GPTs and Transformers can be exported")


def _write_gpt(folder: Path, model: Exported) -> None:
    config, tokenizer = model.config, model.tokenizers["text"]
    kind = "gpt2" if config.norm == "pre" else "openai-gpt"
    rows, end = gpt_rows(config, tokenizer, kind)
    _write_json(folder / "config.json", _gpt_config(config, kind, len(rows.here), end))
    _write_json(folder / "generation_config.json", _sampling(model.decoding, end))
    _write_weights(folder, gpt.table(kind, config.layers, rows, "transformer."), model.params)
    specials = {"eos_token": _name_of(tokenizer, rows, end), "unk_token": None if kind == "gpt2" else "<unk>"}
    _write_tokenizer(folder, as_tokenizer_json(tokenizer, rows.here), specials, config.max_length)
    if len(rows.here) == tokenizer.size:
        tokenizer.save(folder / "tokenizer", "text")  # for the zoo itself


def _gpt_config(config: GPTConfig, kind: str, size: int, end: int | None) -> dict[str, Any]:
    if config.head_size and config.head_size * config.heads != config.width:
        raise _cannot("head_size", config.head_size, f"heads are always width / heads = {config.width // config.heads}")
    if kind == "openai-gpt" and config.ffn != 4 * config.width:
        raise _cannot("ffn", config.ffn, f"GPT-1's is 4 times the width, {4 * config.width}")
    return {
        "model_type": kind,
        "architectures": ["GPT2LMHeadModel" if kind == "gpt2" else "OpenAIGPTLMHeadModel"],
        "vocab_size": size,
        "n_positions": config.max_length,
        "n_embd": config.width,
        "n_layer": config.layers,
        "n_head": config.heads,
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
        "dtype": "float32",
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.attention_dropout,
        "bos_token_id": end,
        "eos_token_id": end,
        gpt.ACTIVATION_KEYS[kind]: _activation(config, kind),
        **({"n_inner": config.ffn} if kind == "gpt2" else {}),
    }


def _sampling(decoding: Any, end: int | None) -> dict[str, Any]:
    ids = {"bos_token_id": end, "eos_token_id": end, "max_new_tokens": decoding.max_new_tokens}
    if not decoding.temperature:
        return ids | {"do_sample": False}
    names = ("temperature", "top_k", "top_p")
    return ids | {"do_sample": True} | {name: value for name in names if (value := getattr(decoding, name))}


def gpt_rows(config: GPTConfig, tokenizer: Tokenizer, kind: str) -> tuple[Vocabulary, int | None]:
    """The rows that a GPT has there, and the row that ends a text: only the published rows if the zoo's are never
    predicted, else all rows."""
    if not config.excluded_rows:
        return Vocabulary.same(config.vocabulary), EOS
    end = next((row - SHIFT for row in config.excluded_rows if row >= SHIFT and _is_end(tokenizer, row)), None)
    unknown = tokenizer.row("<unk>") if kind == "openai-gpt" else None
    rows, excluded = published_rows(config.vocabulary - SHIFT, end, unknown)
    added = EOS in excluded and EOS not in config.excluded_rows  # GPT-1, which has learned to end a text
    if not added and excluded != tuple(sorted(config.excluded_rows)):
        raise _cannot("excluded_rows", config.excluded_rows, "only those that an import gives can be left out")
    if added:
        return Vocabulary(rows.there, np.append(rows.here, EOS)), len(rows.here)
    return rows, end


def _is_end(tokenizer: Tokenizer, row: int) -> bool:
    return isinstance(tokenizer, PublishedBPE) and row - SHIFT != tokenizer.row("<unk>")


def _name_of(tokenizer: Tokenizer, rows: Vocabulary, end: int | None) -> str | None:
    """The name of the token that ends a text."""
    if end is None:
        return None
    return tokenizer.piece(end + SHIFT) if len(rows.here) == tokenizer.size - SHIFT else SPECIALS[EOS]


def _activation(config: Any, kind: str) -> str:
    if kind == "openai-gpt" and config.activation == "gelu_tanh":
        return "gelu"  # which is the approximation there, and there alone
    names = {"gelu_tanh": "gelu_new", "gelu": "gelu", "relu": "relu", "swish": "silu"}
    if kind == "openai-gpt" and config.activation == "gelu":
        raise _cannot("activation", config.activation, "GPT-1 has the approximation by tanh alone")
    return names[config.activation]


def _write_marian(folder: Path, model: Exported) -> None:
    pair = model.pair()
    if not all(isinstance(tokenizer, SentencePiece) for tokenizer in pair):
        raise UserError("--to=huggingface: Marian reads SentencePiece alone, and this model has other vocabularies")
    write_marian_model(folder, model.config, model.params, model.decoding)
    _write_pieces(folder, pair, model.direction, apart=model.config.tying != "all")


def write_marian_model(folder: Path, config: TransformerConfig, params: PyTree, decoding: Any) -> None:
    """The files of a Marian model without those of its tokenizers."""
    if config.norm != "post":
        raise _cannot("norm", config.norm, "Marian's norms come after their sublayers")
    if config.positions not in ("interleaved", "concatenated"):
        raise _cannot("positions", config.positions, "Marian's sinusoids are those of the paper")
    _write_json(folder / "config.json", _marian_config(config))
    _write_json(folder / "generation_config.json", _beam(decoding))
    sizes = {"source": config.source_vocabulary, "target": config.target_vocabulary}
    same = {side: Vocabulary.same(size) for side, size in sizes.items()}
    layout = marian.table(config.tying, (config.layers, config.decoder.layers), same)
    _write_weights(folder, layout, _as_marian(config, params))


def _marian_config(config: TransformerConfig) -> dict[str, Any]:
    sides = {}
    for side, sizes in (("encoder", config), ("decoder", config.decoder)):
        sides |= {f"{side}_layers": sizes.layers, f"{side}_ffn_dim": sizes.ffn, f"{side}_attention_heads": sizes.heads}
    return {
        "model_type": "marian",
        "architectures": ["MarianMTModel"],
        "dtype": "float32",
        **sides,
        "vocab_size": config.source_vocabulary,
        "decoder_vocab_size": config.target_vocabulary,
        "activation_function": {"gelu_tanh": "gelu_new"}.get(config.activation, config.activation),
        "d_model": config.width,
        "scale_embedding": config.embedding_scale,
        "share_encoder_decoder_embeddings": config.tying == "all",
        "tie_word_embeddings": config.tying != "none",
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": config.ffn_dropout,
        "max_position_embeddings": max(config.max_length, 512),
        "pad_token_id": PAD,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "decoder_start_token_id": BOS,
        "forced_eos_token_id": EOS,
        "is_encoder_decoder": True,
    }


def _beam(decoding: Any) -> dict[str, Any]:
    """The settings of search. GNMT's length normalization has no counterpart, so its α becomes an exponent."""
    return {
        "num_beams": decoding.beam_size,
        "length_penalty": decoding.length_penalty,
        "early_stopping": True,
        "max_length": decoding.max_length,
        "bad_words_ids": [[PAD], [BOS]],
        "pad_token_id": PAD,
        "eos_token_id": EOS,
        "decoder_start_token_id": BOS,
        "forced_eos_token_id": EOS,
    }


def _as_marian(config: TransformerConfig, params: PyTree) -> PyTree:
    """The same function with Marian's biases, and with its order of sinusoids along the width."""
    flat = flatten_dict(params, sep="/")
    for path in list(flat):
        bias = f"{path.removesuffix('kernel')}bias"
        if path.endswith("kernel") and bias not in flat:
            kernel, last = flat[path], path.split("/")[-2] == "output"
            layers = kernel.shape[:1] if "/layers/" in path else ()
            shape = kernel.shape[len(layers) :]
            flat[bias] = np.zeros((*layers, *(shape[2:] if last else shape[1:])), np.float32)
    bias = np.array(flat.get("output_bias", np.zeros(config.target_vocabulary, np.float32)), np.float32)
    bias[list(config.excluded_rows)] = EXCLUDED
    flat["output_bias"] = bias
    tree = unflatten_dict(flat, sep="/")
    return tree if config.positions == "concatenated" else _sines_first(config, tree)


def _sines_first(config: TransformerConfig, params: PyTree) -> PyTree:
    """Permute everything along the width; the kernels of the sublayers are permuted to match."""
    order = np.concatenate([np.arange(0, config.width, 2), np.arange(1, config.width, 2)])
    names = axis_names(config)

    def reordered(path: str, leaf: Any) -> Any:
        for axis, name in enumerate(names.get(path, ())):
            leaf = np.take(np.asarray(leaf), order, axis=axis) if name == "embed" else leaf
        return leaf

    for path, leaf in (flat := flatten_dict(params, sep="/")).items():
        flat[path] = reordered(path, leaf)
    return unflatten_dict(flat, sep="/")


def axis_names(config: TransformerConfig) -> dict[str, tuple[str | None, ...]]:
    """{path of a parameter: the logical names of its axes}, with all the biases that a Transformer can have."""
    boxes = flatten_dict(registry.boxed_shapes(replace(config, attention_bias=True, output_bias=True)), sep="/")
    return {path: box.names for path, box in boxes.items()}


def _cannot(field: str, value: Any, reason: str) -> UserError:
    return UserError(f"model.{field}={value!r} cannot be exported: {reason}")


def _write_pieces(folder: Path, pair: Sequence[SentencePiece], direction: Sequence[str], apart: bool) -> None:
    for side, tokenizer in zip(("source", "target"), pair, strict=True):
        (folder / f"{side}.spm").write_bytes(tokenizer.model())
    for name, tokenizer in zip(("vocab.json", "target_vocab.json") if apart else ("vocab.json",), pair, strict=False):
        _write_json(folder / name, {tokenizer.piece(row): row for row in range(tokenizer.size)})
    source, target = direction
    values = {
        "tokenizer_class": "MarianTokenizer",
        "source_lang": source,
        "target_lang": target,
        "separate_vocabs": apart,
        "model_max_length": 512,
        "unk_token": SPECIALS[UNK],
        "eos_token": SPECIALS[EOS],
        "pad_token": SPECIALS[PAD],
    }
    _write_json(folder / "tokenizer_config.json", values)


def _write_tokenizer(folder: Path, content: str, specials: Mapping[str, str | None], length: int) -> None:
    (folder / TOGETHER).write_text(content, encoding="utf-8")
    named = {key: name for key, name in specials.items() if name is not None}
    values = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": length, **named}
    _write_json(folder / "tokenizer_config.json", values)


def _write_weights(folder: Path, table: Table, params: PyTree) -> None:
    """All arrays in files of at most `SHARD` bytes, one of which is in memory at a time."""
    shards = list(_sharded(written(table, params)))
    if len(shards) == 1:
        save_file({name: make() for name, make in shards[0]}, folder / WEIGHTS, {"format": "pt"})
        return
    index, total = {}, 0
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        arrays = {key: make() for key, make in shard}
        total += sum(array.nbytes for array in arrays.values())
        save_file(arrays, folder / name, {"format": "pt"})
        index |= dict.fromkeys(arrays, name)
    _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": index})


def _sharded(arrays: Iterator[tuple[str, int, Callable]]) -> Iterator[list[tuple[str, Callable]]]:
    shard, size = [], 0
    for name, count, make in arrays:
        if shard and size + 4 * count > SHARD:
            yield shard
            shard, size = [], 0
        shard.append((name, make))
        size += 4 * count
    yield shard


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
