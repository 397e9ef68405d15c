"""CTranslate2 as a pipe: `python -m benchmarks.ctranslate2_file OPTIONS < sources > translations`.

`OPTIONS` is a JSON object: the `folder` that `zoo convert --to=ctranslate2` wrote, the `type` to compute in, `beam`,
and `penalty`, the α of the length normalization, which is an exponent here.
"""

import json
import sys
from pathlib import Path

import ctranslate2
import sentencepiece

from benchmarks.in_turns import cores

BATCH_TOKENS = 2048  # as the zoo's `--batch-tokens`


def main() -> None:
    options = json.loads(sys.argv[1])
    folder = Path(options["folder"])
    engine = ctranslate2.Translator(str(folder), device="cpu", intra_threads=cores(), compute_type=options["type"])
    source, target = (_pieces(folder, side) for side in ("source", "target"))
    lines = sys.stdin.read().splitlines()
    found = engine.translate_batch(
        source.encode(lines, out_type=str),
        max_batch_size=BATCH_TOKENS,
        batch_type="tokens",
        beam_size=options["beam"],
        length_penalty=options["penalty"],
    )
    sys.stdout.write("".join(f"{target.decode(result.hypotheses[0])}\n" for result in found))


def _pieces(folder: Path, side: str) -> sentencepiece.SentencePieceProcessor:
    joint = folder / "joint.spm"
    return sentencepiece.SentencePieceProcessor(model_file=str(joint if joint.exists() else folder / f"{side}.spm"))


if __name__ == "__main__":
    main()
