"""CTranslate2 with the zoo's weights, as a contestant of `benchmarks.in_turns`."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ctranslate2

from benchmarks.decoding import sources, transformer
from benchmarks.in_turns import cores
from zoo.data.specials import SPECIALS
from zoo.data.tokenizers import WordVocabulary
from zoo.interop import ctranslate2 as written
from zoo.interop.exported import Exported


def prepare(options: dict[str, Any]) -> Callable[[], list[list[list[int]]]]:
    """A turn gives the best translations of each sentence, as many as there are beams."""
    model, params = transformer(options)
    tokenizers = {"joint": WordVocabulary([str(row) for row in range(len(SPECIALS), options["vocabulary"])])}
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        written.write(folder, Exported(model.config, params, tokenizers, None), options["quantize"])
        engine = ctranslate2.Translator(
            directory, device="cpu", intra_threads=cores(), compute_type=options["quantize"]
        )
    lines = [[str(row) for row in source[:-1]] for source in sources(options).tolist()]  # it adds EOS itself
    length, beam = options["length"], options["beam"]
    how = {"beam_size": beam, "num_hypotheses": beam, "min_decoding_length": length, "max_decoding_length": length}

    def turn() -> list[list[list[int]]]:
        found = engine.translate_batch(lines, max_batch_size=len(lines), length_penalty=0, **how)
        return [[[int(piece) for piece in tokens] for tokens in result.hypotheses] for result in found]

    return turn
