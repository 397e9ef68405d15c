"""nanoGPT's training of a GPT, from a checkout of it, as a contestant of `benchmarks.in_turns`."""

import contextlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from benchmarks.gpt_training import OPTIMIZER, tokens


def model_file(directory: str) -> ModuleType:
    """`model.py` of the checkout in `directory`, as a module."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", Path(directory) / "model.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def prepare(options: dict[str, Any]) -> Callable[[], float]:
    """The updates of nanoGPT's `train.py`: autocast, AdamW, clipping. With `compiled` through `torch.compile`."""
    module = model_file(options["nanogpt"])
    torch.manual_seed(0)
    sizes = {"n_layer": options["layers"], "n_head": options["heads"], "n_embd": options["width"]}
    config = module.GPTConfig(block_size=options["length"], vocab_size=options["vocabulary"], dropout=0.1, **sizes)
    with contextlib.redirect_stdout(sys.stderr):
        model = module.GPT(config)
        betas = (OPTIMIZER.beta1, OPTIMIZER.beta2)
        adam = model.configure_optimizers(OPTIMIZER.decay, OPTIMIZER.peak, betas, "cpu")
    forward = torch.compile(model) if options["compiled"] else model
    ids = torch.from_numpy(tokens(options)).long()
    inputs, labels = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    updates = 1

    def update() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=options["dtype"] == "bfloat16"):
            loss = forward(inputs, labels)[1]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIMIZER.clip)
        adam.step()
        adam.zero_grad(set_to_none=True)
        return loss

    def turn() -> float:
        nonlocal updates
        for _ in range(updates):
            loss = update()
        updates = options["updates"]
        return loss.item()

    return turn
