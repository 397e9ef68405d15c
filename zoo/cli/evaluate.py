"""`eval`: the scores of a working directory."""

import argparse
import json
import math

from zoo.cli.arguments import add_bleu, add_checkpoint, add_decoding, directory, evaluation_changes, output, positive
from zoo.errors import UserError

HELP = "score a working directory on its validation or test split, or on other data"
EXAMPLE = "python eval.py --workdir=runs/phrases --split=test --beam-size=4 --json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", nargs="?", type=directory, metavar="WORKDIR", help="a working directory")
    parser.add_argument("--workdir", type=directory, metavar="DIR", help="the same")
    parser.add_argument("--split", choices=("valid", "test"), default="test", help="which split (default: test)")
    parser.add_argument("--data", default="", metavar="PATH", help="other data: a prefix, a .tsv, text, tfds:NAME")
    add_checkpoint(parser)
    parser.add_argument(
        "--format",
        choices=("text", "lambada", "blimp", "choice", "glue"),
        help="for a language model on other data: perplexity of text (default), or a .jsonl with these fields: "
        "text (lambada: the last word); sentence_good, sentence_bad (blimp); context, choices, answer (choice: the "
        "likeliest). --predictions: index and prediction alone, as the server of GLUE takes them (glue)",
    )
    parser.add_argument(
        "--stride",
        type=positive,
        metavar="N",
        help="a language model on other text: tokens by which the window slides (default: half of it)",
    )
    add_decoding(parser)
    add_bleu(parser)
    parser.add_argument(
        "--predictions",
        type=output,
        metavar="FILE",
        help="write a classifier's prediction for each row: index, prediction, label, probability",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def run(args: argparse.Namespace) -> None:
    path = args.workdir or args.directory
    if path is None:
        raise UserError("name a working directory: --workdir=DIR")
    from zoo.evaluation import score, score_zero_shot, table
    from zoo.workdirs import load

    workdir = load(path, args.checkpoint, evaluation_changes(args))
    if _is_zero_shot(args, workdir.experiment.command):
        scores = score_zero_shot(workdir, args.data, args.format or "", args.stride or 0)
    else:
        scores = score(workdir, args.split, args.data, args.predictions, args.format == "glue")
    if not args.json:
        print(table(scores))
        return
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in scores.items()}
    print(json.dumps(finite, ensure_ascii=False, allow_nan=False))


def _is_zero_shot(args: argparse.Namespace, command: str) -> bool:
    """Whether a language model is evaluated on data that is not one of its splits."""
    applies = command == "generate" and args.data != ""
    if args.format == "glue":
        if args.predictions is None:
            raise UserError("--format=glue is a layout for --predictions=FILE: name that file")
        return False
    for name, value in (("format", args.format), ("stride", args.stride)):
        if value is not None and not applies:
            raise UserError(f"--{name}={value} only applies to a language model on other data: add --data=PATH")
    return applies
