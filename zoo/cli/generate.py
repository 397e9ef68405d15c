"""`generate`: text that goes on from a prompt."""

import argparse
import sys
from pathlib import Path

from zoo.cli.arguments import add_checkpoint, number, positive

HELP = "write text with a language model, the prompt and how it goes on"
EXAMPLE = 'python -m zoo generate runs/gpt-nano --prompt "The " --max-new-tokens 200 --temperature 0.8 --top-k 50'
SAMPLING = ("max_new_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", type=Path, metavar="WORKDIR", help="a working directory")
    parser.add_argument("--prompt", default="", metavar="TEXT", help="what the text begins with (default: nothing)")
    parser.add_argument("--max-new-tokens", type=positive, metavar="N", help="tokens after the prompt, at most")
    parser.add_argument("--temperature", type=number, metavar="T", help="0: always the most likely; 1: the model's own")
    parser.add_argument("--top-k", type=positive, metavar="K", help="draw among the K most likely tokens")
    parser.add_argument(
        "--top-p", type=number, metavar="P", help="draw among the fewest that hold P of the probability"
    )
    parser.add_argument("--min-p", type=number, metavar="P", help="draw what is at least P times as likely as the best")
    parser.add_argument("--repetition-penalty", type=number, metavar="R", help="above 1: say again less often")
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before TEXT; may be repeated")
    parser.add_argument("--samples", type=positive, default=1, metavar="N", help="so many texts, a blank line between")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed writes the same (default: 0)")
    add_checkpoint(parser)


def run(args: argparse.Namespace) -> None:
    from zoo.workdirs import load

    changes = tuple((f"decoding.{k}", str(getattr(args, k))) for k in SAMPLING if getattr(args, k) is not None)
    workdir = load(args.workdir, args.checkpoint, changes, task="language_modeling")
    continuations = workdir.generate([args.prompt] * args.samples, args.seed)
    texts = (f"{args.prompt}{_until(text, args.stop)}\n" for text in continuations)
    sys.stdout.buffer.write("\n".join(texts).encode())


def _until(text: str, stops: list[str]) -> str:
    """`text` up to the first of the `stops`."""
    return text[: min((text.find(stop) for stop in stops if stop and stop in text), default=len(text))]
