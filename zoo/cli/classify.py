"""`classify`: lines in, their labels out."""

import argparse
import json
import logging
import sys
from typing import TYPE_CHECKING

from zoo.cli.arguments import add_checkpoint, add_numbers, decoding_changes, directory, positive
from zoo.cli.lines import inputs

if TYPE_CHECKING:
    from zoo.tasks.label_reports import Classified

HELP = "classify standard input line by line: the label of each line, or its value"
EXAMPLE = "printf 'A man sleeps.\\tNobody is awake.\\n' | python -m zoo classify runs/rte --top 2"
CHUNK = 2000  # lines that are sorted by length and classified together

log = logging.getLogger("zoo")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", type=directory, metavar="WORKDIR", help="a working directory")
    parser.add_argument(
        "--top", type=positive, metavar="N", help="the N likeliest labels, each with its probability, separated by tabs"
    )
    parser.add_argument("--json", action="store_true", help="an object per line: label, probabilities (or value)")
    add_numbers(parser)
    add_checkpoint(parser)


def run(args: argparse.Namespace) -> None:
    from zoo.workdirs import load

    workdir = load(args.workdir, args.checkpoint, decoding_changes(args), command="classify")
    fields = "<TAB>".join(workdir.task.fields)
    if sys.stdin.isatty():
        log.info("classifying lines of %s; Ctrl-D ends", fields)
    first = 1
    for lines in inputs(f"{fields}> ", CHUNK):
        for each in workdir.classify([tuple(line.split("\t")) for line in lines], first):
            sys.stdout.buffer.write(f"{_written(each, args.top, args.json)}\n".encode())
        sys.stdout.buffer.flush()
        first += len(lines)


def _written(each: "Classified", top: int | None, as_json: bool) -> str:
    if as_json:
        of_labels = {} if each.value is None else {"value": each.value}
        record = {"label": each.label} | of_labels | ({"probabilities": each.probabilities} if not of_labels else {})
        return json.dumps(record, ensure_ascii=False)
    if not top or each.value is not None:
        return each.label
    likeliest = sorted(each.probabilities.items(), key=lambda item: -item[1])[:top]
    return "\t".join(f"{label}\t{probability:.4f}" for label, probability in likeliest)
