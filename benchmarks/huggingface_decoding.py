"""Hugging Face's `generate` with the zoo's weights, as a contestant of `benchmarks.in_turns`."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import MarianMTModel

from benchmarks.decoding import sources, transformer
from zoo.data.specials import BOS, PAD
from zoo.decoding.beam import BeamConfig
from zoo.interop.huggingface import write_marian_model


def prepare(options: dict[str, Any]) -> Callable[[], list[list[list[int]]]]:
    """A turn gives the best translations of each sentence, as many as there are beams."""
    model, params = transformer(options)
    with tempfile.TemporaryDirectory() as directory:
        write_marian_model(Path(directory), model.config, params, BeamConfig())
        marian = MarianMTModel.from_pretrained(directory).eval()
    source = torch.from_numpy(sources(options)).long()
    length, beam = options["length"], options["beam"]
    how = {"num_beams": beam, "num_return_sequences": beam, "length_penalty": 0.0, "forced_eos_token_id": None}
    how |= {"min_new_tokens": length, "max_new_tokens": length, "bad_words_ids": [[PAD], [BOS]]}

    @torch.inference_mode()
    def turn() -> list[list[list[int]]]:
        found = marian.generate(source, attention_mask=torch.ones_like(source), **how)
        return np.asarray(found[:, 1:]).reshape(len(source), beam, length).tolist()

    return turn
