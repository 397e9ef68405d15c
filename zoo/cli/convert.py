"""`convert`: weights and tokenizers of other programs, in and out."""

import argparse
import shlex

from zoo.cli.arguments import directory

HELP = "convert another program's model to a working directory, or a working directory to another program's model"
KINDS = {
    "zoo": "a working directory",
    "huggingface": "a folder for transformers",
    "ctranslate2": "a folder for CTranslate2",
}
EXAMPLE = "python -m zoo convert path/to/opus-mt-en-fr runs/opus"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        type=directory,
        metavar="SOURCE",
        help="a folder of Hugging Face (gpt2, openai-gpt, marian), OpenAI's GPT-1, or a working directory",
    )
    parser.add_argument("out", type=directory, metavar="OUT", help="a directory that is new or empty")
    parser.add_argument(
        "--from", dest="format", metavar="FORMAT", help="zoo, huggingface or openai (default: recognized)"
    )
    parser.add_argument(
        "--to",
        metavar="FORMAT",
        help="zoo, huggingface or ctranslate2 (default: zoo, or huggingface for a working directory)",
    )
    parser.add_argument(
        "--quantization", default="", metavar="TYPE", help="for --to=ctranslate2, for example int8 (default: float32)"
    )
    parser.add_argument("--checkpoint", default="best", metavar="WHICH", help="best, latest, average or a step")


def run(args: argparse.Namespace) -> None:
    from zoo import interop
    from zoo.errors import UserError
    from zoo.workdirs import load

    found = interop.recognized(args.source) or "zoo"
    if not (args.source / "config.json").exists() and found == "zoo":
        raise UserError(f"{args.source} holds no model: name a working directory, or a folder with a config.json")
    if args.format not in (None, found):
        raise UserError(f"--from={args.format!r}: {args.source} has the format {found!r}: leave --from out")
    opened = load(args.source, args.checkpoint)
    to = args.to or ("huggingface" if found == "zoo" else "zoo")
    opened.save(args.out, to, args.quantization)
    print(f"{args.out} is {KINDS[to]}, converted from {args.source}")
    if to == "zoo":
        print(f"next: python -m zoo {opened.experiment.command} {shlex.quote(str(args.out))}")
