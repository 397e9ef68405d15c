"""Training a GPT on one batch of random tokens, again and again: the work of a training step, without its data.

With `--peers --nanogpt DIR` nanoGPT trains the same shapes, eager and compiled, with the same optimizer. Every system
has a process of its own, and they take turns. Only ratios are to be compared between machines.
"""

import argparse
from operator import attrgetter
from typing import Any

from benchmarks.in_turns import Contestant, race
from benchmarks.measuring import Result, installed, matmul_ceiling
from zoo.errors import UserError

SIZES = {
    "small": {"layers": 6, "width": 384, "heads": 6, "vocabulary": 8192, "rows": 16, "length": 256, "updates": 3},
    "gpt1": {"layers": 12, "width": 768, "heads": 12, "vocabulary": 40_478, "rows": 2, "length": 512, "updates": 2},
    "tiny": {"layers": 1, "width": 16, "heads": 2, "vocabulary": 32, "rows": 2, "length": 8, "updates": 1},
}
DTYPES = ("bfloat16", "float32")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["small", "gpt1"], help="(default: small gpt1)")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES, help="to compute in (default: both)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each, of which the fastest counts (default: 5)")
    parser.add_argument("--peers", action="store_true", help="beside nanoGPT, in turns")
    parser.add_argument("--nanogpt", default="", metavar="DIR", help="a checkout of nanoGPT, with its model.py")


def run(arguments: argparse.Namespace) -> Result:
    ceilings = {dtype: matmul_ceiling(dtype) for dtype in arguments.dtypes}
    rows = [
        row for size in arguments.sizes for dtype in arguments.dtypes for row in _rows(arguments, size, dtype, ceilings)
    ]
    return Result("train-gpt", rows, {f"{dtype}_matmul_flops": flops for dtype, flops in ceilings.items()})


def _rows(arguments: argparse.Namespace, size: str, dtype: str, ceilings: dict[str, float]) -> list[dict[str, Any]]:
    options = SIZES[size] | {"dtype": dtype}
    contestants = [Contestant(f"zoo {size} {dtype}", "benchmarks.gpt_training", options)]
    if arguments.peers and _has_peers(arguments.nanogpt):
        contestants += [
            Contestant(
                f"nanoGPT {how} {size} {dtype}",
                "benchmarks.nanogpt_training",
                options | {"nanogpt": arguments.nanogpt, "compiled": how == "compiled"},
            )
            for how in ("eager", "compiled")
        ]
    race(contestants, arguments.rounds)
    peer = min(contestants[1:] or contestants, key=attrgetter("fastest"))
    tokens = options["rows"] * options["length"] * options["updates"]
    return [
        {
            "system": one.system,
            "tokens_per_second": (speed := tokens / one.fastest),
            "milliseconds_of_turns": one.spread,
            "of_the_ceiling": speed * flops_of_token(options) / ceilings[dtype],
            "first_step_seconds": one.first_seconds,
            "loss": one.outcome,
            "beside": peer.system,
        }
        for one in contestants
    ]


def _has_peers(directory: str) -> bool:
    if not directory:
        raise UserError("--peers needs --nanogpt=DIR: a checkout of nanoGPT, which is not a package")
    return installed("torch", "PyTorch", "bench")


def flops_of_token(options: dict[str, Any]) -> float:
    """Of a training step, in products: 6 for every weight that is multiplied by, and attention over all positions."""
    width, layers = options["width"], options["layers"]
    weights = 12 * layers * width**2 + options["vocabulary"] * width
    return 6 * weights + 12 * layers * width * options["length"]
