"""`eval`: the scores of a working directory."""

import argparse
import json
import math
from pathlib import Path

from zoo.cli.arguments import add_checkpoint, add_decoding, evaluation_changes
from zoo.errors import UserError

HELP = "score a working directory on its validation or test split, or on other data"
EXAMPLE = "python eval.py --workdir=runs/phrases --split=test --beam-size=4 --json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", nargs="?", type=Path, metavar="WORKDIR", help="a working directory")
    parser.add_argument("--workdir", type=Path, metavar="DIR", help="the same")
    parser.add_argument("--split", choices=("valid", "test"), default="test", help="which split (default: test)")
    parser.add_argument("--data", default="", metavar="PATH", help="other data: a prefix, a .tsv, text, tfds:NAME")
    add_checkpoint(parser)
    add_decoding(parser)
    parser.add_argument(
        "--predictions", type=Path, metavar="FILE", help="write what a classifier says, as GLUE takes it"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def run(args: argparse.Namespace) -> None:
    directory = args.workdir or args.directory
    if directory is None:
        raise UserError("name a working directory: --workdir=DIR")
    from zoo.evaluation import score, table
    from zoo.workdirs import load

    workdir = load(directory, args.checkpoint, evaluation_changes(args))
    scores = score(workdir, args.split, args.data, args.predictions)
    if not args.json:
        print(table(scores))
        return
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in scores.items()}
    print(json.dumps(finite, ensure_ascii=False, allow_nan=False))
