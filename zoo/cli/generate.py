"""`generate`: text that goes on from a prompt."""

import argparse
import sys
from pathlib import Path

from zoo.cli.arguments import add_checkpoint, add_sampling, number, positive, sampling_options

HELP = "write text with a language model, the prompt and how it goes on"
EXAMPLE = 'python -m zoo generate runs/gpt-nano --prompt "The " --max-new-tokens 200 --temperature 0.8 --top-k 50'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", type=Path, metavar="WORKDIR", help="a working directory")
    parser.add_argument("--prompt", default="", metavar="TEXT", help="what the text begins with (default: nothing)")
    parser.add_argument("--max-new-tokens", type=positive, metavar="N", help="tokens after the prompt, at most")
    add_sampling(parser)
    parser.add_argument("--repetition-penalty", type=number, metavar="R", help="above 1: say again less often")
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before TEXT; may be repeated")
    parser.add_argument("--samples", type=positive, default=1, metavar="N", help="so many texts, a blank line between")
    add_checkpoint(parser)


def run(args: argparse.Namespace) -> None:
    from zoo.workdirs import load

    own = {"max_new_tokens": args.max_new_tokens, "repetition_penalty": args.repetition_penalty}
    options = sampling_options(args) | {name: value for name, value in own.items() if value is not None}
    changes = tuple((f"decoding.{name}", str(value)) for name, value in options.items())
    workdir = load(args.workdir, args.checkpoint, changes, task="language_modeling")
    continuations = workdir.generate([args.prompt] * args.samples, args.seed or 0)
    texts = (f"{args.prompt}{_until(text, args.stop)}\n" for text in continuations)
    sys.stdout.buffer.write("\n".join(texts).encode())


def _until(text: str, stops: list[str]) -> str:
    """`text` up to the first of the `stops`."""
    return text[: min((text.find(stop) for stop in stops if stop and stop in text), default=len(text))]
