"""Beam search of a base-sized Transformer with random weights: 16 sentences of 32 tokens, 64 tokens each.

With `--peers` CTranslate2 and Hugging Face's `generate` translate the same sentences with the same weights. Every
system has a process of its own, and they take turns. Only ratios are to be compared between machines.
"""

import argparse
from typing import Any

from benchmarks.in_turns import Contestant, race
from benchmarks.measuring import Result, installed, matmul_ceiling, median_seconds, peak_memory_bytes, timed

KINDS = {"bfloat16": ("bfloat16", "none"), "float32": ("float32", "none"), "int8": ("bfloat16", "int8")}
VOCABULARY = 32_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", default="base", help="a size of the Transformer (default: base)")
    parser.add_argument("--sentences", type=int, default=16, help="rows of the batch (default: 16)")
    parser.add_argument("--source-length", type=int, default=32, help="tokens of a source (default: 32)")
    parser.add_argument("--length", type=int, default=64, help="tokens of a translation (default: 64)")
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY, help=f"tokens (default: {VOCABULARY:,})")
    parser.add_argument("--beams", type=int, nargs="+", default=[4, 1], help="sizes of the beam (default: 4 1)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="of numbers (default: all)")
    parser.add_argument(
        "--repeats",
        type=int,
        default=3,
        help="timed runs, of which the median counts, with peers the fastest (default: 3)",
    )
    parser.add_argument("--peers", action="store_true", help="beside CTranslate2 and Hugging Face, in turns")


def run(arguments: argparse.Namespace) -> Result:
    rows = [row for beam in arguments.beams for row in (_in_turns if arguments.peers else _alone)(arguments, beam)]
    return Result("decode", rows, {f"{d}_matmul_flops": matmul_ceiling(d) for d in ("bfloat16", "float32")})


def _options(arguments: argparse.Namespace, beam: int, kind: str) -> dict[str, Any]:
    names = ("size", "sentences", "source_length", "length", "vocabulary")
    dtype, quantize = KINDS[kind]
    return {name: getattr(arguments, name) for name in names} | {"beam": beam, "dtype": dtype, "quantize": quantize}


def _alone(arguments: argparse.Namespace, beam: int) -> list[dict[str, Any]]:
    from benchmarks.decoding import prepare

    rows = []
    for kind in arguments.kinds:
        decode = prepare(_options(arguments, beam, kind))
        _, first = timed(decode)
        seconds = median_seconds(decode, arguments.repeats)
        rows.append(
            {
                "system": f"zoo transformer/{arguments.size} {kind} beam {beam}",
                "tokens_per_second": arguments.sentences * arguments.length / seconds,
                "compile_seconds": first - seconds,
                "peak_memory_bytes": peak_memory_bytes(),
            }
        )
    return rows


def _in_turns(arguments: argparse.Namespace, beam: int) -> list[dict[str, Any]]:
    """Rows of the zoo beside CTranslate2 in float32, and in int8 that of int8."""
    contestants = [
        Contestant(f"zoo {kind} beam {beam}", "benchmarks.decoding", _options(arguments, beam, kind))
        for kind in arguments.kinds
    ]
    exact = _options(arguments, beam, "float32")
    if installed("ctranslate2", "CTranslate2", "hf"):
        contestants += [
            Contestant(f"CTranslate2 {kind} beam {beam}", "benchmarks.ctranslate2_decoding", exact | {"quantize": kind})
            for kind in ("float32", "int8")
        ]
    if installed("transformers", "Hugging Face's library", "hf"):
        contestants.append(Contestant(f"Hugging Face float32 beam {beam}", "benchmarks.huggingface_decoding", exact))
    race(contestants, arguments.repeats)
    found = {one.system: one for one in contestants}
    return [_row(arguments, one, beam, found) for one in contestants]


def _row(arguments: argparse.Namespace, one: Contestant, beam: int, found: dict[str, Contestant]) -> dict[str, Any]:
    tokens = arguments.sentences * arguments.length
    row = {
        "system": one.system,
        "tokens_per_second": tokens / one.fastest,
        "milliseconds_of_turns": one.spread,
        "first_seconds": one.first_seconds,
    }
    precision = "int8" if "int8" in one.system else "float32"
    peer = found.get(f"CTranslate2 {precision} beam {beam}")
    if peer is not None:
        row["beside"] = peer.system
    exact = found.get(f"CTranslate2 float32 beam {beam}")
    if exact is not None and one is not exact:
        best = [found if one.system.startswith("zoo") else found[0] for found in one.outcome]
        among = sum(best in others for best, others in zip(best, exact.outcome, strict=True))
        row["same_as_CTranslate2_float32"] = f"{among} of {arguments.sentences} translations"
    return row
