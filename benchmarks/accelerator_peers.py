"""PyTorch's parts of `benchmarks accelerator`: `python -m benchmarks.accelerator_peers PART SIZES` prints an object."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.nanogpt_training import model_file

SECONDS = 3.0  # of timed steps


def nanogpt(sizes: dict[str, Any]) -> dict[str, Any]:
    """nanoGPT's model as its training script runs it: compiled where there is a GPU, bfloat16, AdamW and clipping."""
    module = model_file(sizes["nanogpt"])
    changes = sizes.get("changes", {})
    config = module.GPTConfig(
        block_size=sizes["length"],
        vocab_size=40478,
        n_layer=changes.get("layers", 12),
        n_head=changes.get("heads", 12),
        n_embd=changes.get("width", 768),
        dropout=sizes["dropout"],
    )
    model = module.GPT(config).to(_device())
    ids = torch.randint(1000, (sizes["rows"], sizes["length"]), device=_device())
    return _steps(model, lambda model: model(ids, ids)[1], sizes)


def marian(sizes: dict[str, Any]) -> dict[str, Any]:
    """Hugging Face's Marian at the size of Transformer big, with label smoothing."""
    from transformers import MarianConfig, MarianMTModel

    changes = sizes.get("changes", {})
    layers, heads, ffn = (changes.get(key, size) for key, size in (("layers", 6), ("heads", 16), ("ffn", 4096)))
    sides = {}
    for side in ("encoder", "decoder"):
        sides |= {f"{side}_layers": layers, f"{side}_attention_heads": heads, f"{side}_ffn_dim": ffn}
    config = MarianConfig(
        vocab_size=37000,
        d_model=changes.get("width", 1024),
        dropout=sizes["dropout"],
        activation_function="relu",
        pad_token_id=0,
        eos_token_id=3,
        decoder_start_token_id=0,
        **sides,
    )
    model = MarianMTModel(config).to(_device())
    ids = torch.randint(4, 1000, (sizes["rows"], sizes["length"]), device=_device())
    smoothed = torch.nn.CrossEntropyLoss(label_smoothing=0.1)

    def loss(model: Any) -> Any:
        logits = model(input_ids=ids, decoder_input_ids=ids).logits
        return smoothed(logits.float().flatten(0, 1), ids.flatten())

    return _steps(model, loss, sizes)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _steps(model: Any, loss: Callable[[Any], Any], sizes: dict[str, Any]) -> dict[str, Any]:
    began, on_gpu = time.perf_counter(), _device() == "cuda"
    adam = torch.optim.AdamW(model.parameters(), 1e-4, fused=on_gpu)
    run = torch.compile(model) if on_gpu else model

    def step() -> None:
        with torch.autocast(_device(), torch.bfloat16):
            value = loss(run)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)

    def timed(times: int) -> float:
        start = time.perf_counter()
        for _ in range(times):
            step()
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    timed(1)
    first = time.perf_counter() - began
    steps = max(3, min(200, int(SECONDS / timed(1))))
    seconds = timed(steps) / steps
    found = {"tokens_per_second": sizes["rows"] * sizes["length"] / seconds, "step_seconds": seconds}
    memory = {"peak_memory_bytes": torch.cuda.max_memory_allocated()} if on_gpu else {}
    return found | {"first_step_seconds": first, "compiled": str(on_gpu), "torch": torch.__version__} | memory


PARTS = {"nanogpt": nanogpt, "marian": marian}

if __name__ == "__main__":
    print(json.dumps(PARTS[sys.argv[1]](json.loads(sys.argv[2]))))
