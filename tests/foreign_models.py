"""Small random models in the folders of other programs, made without those programs."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from zoo.data.tokenizers.gpt2 import BYTES

MERGES = ["t h", "th e", "Ġ the", "i n", "a n", "an d", "Ġ and"]
MERGES_GPT1 = ["t h", "th e</w>", "i n", "a n", "an d</w>"]
TEXT = "the cat and the dog went in and out"


def json_file(path: Path, values) -> None:
    path.write_text(json.dumps(values), encoding="utf-8")


def gpt2_vocabulary(folder: Path) -> int:
    """Writes `vocab.json` and `merges.txt`, and gives the number of pieces; the last ends a text."""
    pieces = [*BYTES, *(merge.replace(" ", "") for merge in MERGES), "<|endoftext|>"]
    json_file(folder / "vocab.json", {piece: i for i, piece in enumerate(pieces)})
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n", encoding="utf-8")
    return len(pieces)


def gpt1_vocabulary(folder: Path, names=("vocab.json", "merges.txt")) -> int:
    letters = "abcdefghijklmnopqrstuvwxyz.,!?0123456789"
    pieces = ["<unk>", *letters, *(f"{c}</w>" for c in letters), "\n</w>"]
    pieces += [merge.replace(" ", "") for merge in MERGES_GPT1]
    json_file(folder / names[0], {piece: i for i, piece in enumerate(pieces)})
    (folder / names[1]).write_text("#version: 0.2\n" + "\n".join(MERGES_GPT1) + "\n", encoding="utf-8")
    return len(pieces)


def random_arrays(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    """No array has a value such as 0 or 1 that could hide where it goes."""
    random = np.random.default_rng(seed)
    return {
        name: (0.2 * random.normal(size=shape) + (len(shape) == 1 and name.endswith("weight"))).astype(np.float32)
        for name, shape in shapes.items()
    }


def gpt2_shapes(vocabulary: int, layers: int = 2, width: int = 16, length: int = 32, prefix: str = "transformer."):
    one = {
        "ln_1.weight": (width,),
        "ln_1.bias": (width,),
        "ln_2.weight": (width,),
        "ln_2.bias": (width,),
        "attn.c_attn.weight": (width, 3 * width),
        "attn.c_attn.bias": (3 * width,),
        "attn.c_proj.weight": (width, width),
        "attn.c_proj.bias": (width,),
        "mlp.c_fc.weight": (width, 4 * width),
        "mlp.c_fc.bias": (4 * width,),
        "mlp.c_proj.weight": (4 * width, width),
        "mlp.c_proj.bias": (width,),
    }
    top = {"wte.weight": (vocabulary, width), "wpe.weight": (length, width)}
    top |= {"ln_f.weight": (width,), "ln_f.bias": (width,)}
    return {prefix + name: shape for name, shape in top.items()} | {
        f"{prefix}h.{i}.{name}": shape for i in range(layers) for name, shape in one.items()
    }


def gpt2_folder(folder: Path, **changes) -> Path:
    """A GPT-2 of two layers, whole: config, weights, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    size = gpt2_vocabulary(folder)
    config = {"model_type": "gpt2", "vocab_size": size, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
    json_file(folder / "config.json", config | {"eos_token_id": size - 1, "n_inner": None} | changes)
    save_file(random_arrays(gpt2_shapes(size)), folder / "model.safetensors")
    return folder


def openai_folder(folder: Path, width: int = 128, layers: int = 2) -> Path:
    """GPT-1 in OpenAI's layout, its numbers in three files."""
    folder.mkdir(parents=True, exist_ok=True)
    size = gpt1_vocabulary(folder, ("encoder_bpe_40000.json", "vocab_40000.bpe"))
    one = [(1, width, 3 * width), (3 * width,), (1, width, width), (width,), (width,), (width,)]
    one += [(1, width, 4 * width), (4 * width,), (1, 4 * width, width), (width,), (width,), (width,)]
    shapes = [(32, width), (size, width), *(one * layers)]
    numbers = random_arrays({"all": (sum(int(np.prod(shape)) for shape in shapes), 1)})["all"][:, 0]
    for i, part in enumerate(np.array_split(numbers, 3)):
        np.save(folder / f"params_{i}.npy", part)
    json_file(folder / "params_shapes.json", [list(shape) for shape in shapes])
    return folder


def marian_shapes(vocabulary: int, width: int = 16, ffn: int = 32) -> dict[str, tuple[int, ...]]:
    """One layer on each side."""
    attention = {f"{name}_proj": (width, width) for name in "qkv"} | {"out_proj": (width, width)}
    shapes = {"model.shared.weight": (vocabulary, width), "final_logits_bias": (1, vocabulary)}
    for side, kinds in (("encoder", ("self_attn",)), ("decoder", ("self_attn", "encoder_attn"))):
        layer = f"model.{side}.layers.0."
        maps = {f"{kind}.{name}": shape for kind in kinds for name, shape in attention.items()}
        maps |= {"fc1": (ffn, width), "fc2": (width, ffn)}
        for name, shape in maps.items():
            shapes |= {f"{layer}{name}.weight": shape, f"{layer}{name}.bias": shape[:1]}
        for norm in (*(f"{kind}_layer_norm" for kind in kinds), "final_layer_norm"):
            shapes |= {f"{layer}{norm}.weight": (width,), f"{layer}{norm}.bias": (width,)}
    return shapes


def marian_folder(folder: Path, model: bytes, pieces: list[str]) -> Path:
    """A Marian whose sides share one SentencePiece model with these pieces, the specials not among them."""
    folder.mkdir(parents=True, exist_ok=True)
    surfaces = ["</s>", "<unk>", *pieces, "<pad>"]
    json_file(folder / "vocab.json", {piece: i for i, piece in enumerate(surfaces)})
    for side in ("source", "target"):
        (folder / f"{side}.spm").write_bytes(model)
    sides = {"layers": 1, "ffn_dim": 32, "attention_heads": 2}
    config = {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in sides.items()}
    config |= {"model_type": "marian", "vocab_size": len(surfaces), "d_model": 16, "activation_function": "swish"}
    config |= {"pad_token_id": len(surfaces) - 1, "eos_token_id": 0, "decoder_start_token_id": len(surfaces) - 1}
    json_file(folder / "config.json", config | {"scale_embedding": True})
    json_file(folder / "generation_config.json", {"num_beams": 4, "max_length": 20})
    save_file(random_arrays(marian_shapes(len(surfaces))), folder / "model.safetensors")
    return folder
