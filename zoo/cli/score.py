"""`score`: pairs in, the model's scores of them out."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zoo.cli.arguments import add_checkpoint, add_scoring, decoding_changes, directory
from zoo.cli.lines import flush, inputs, write
from zoo.errors import UserError

if TYPE_CHECKING:
    from zoo.decoding.scoring import Scored

HELP = "score given translations: lines of `source<TAB>target` in, a score per line out, as translate shows it"
EXAMPLE = "printf 'in 3 days\\tdans 3 jours\\n' | python -m zoo score runs/phrases --tokens"
CHUNK = 2000  # pairs that are sorted by length and scored together

log = logging.getLogger("zoo")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", type=directory, metavar="WORKDIR", help="a working directory")
    add_scoring(parser)
    parser.add_argument("--tokens", action="store_true", help="append ` ||| piece:log-probability ... </s>:...`")
    parser.add_argument("--json", action="store_true", help="an object per line: score, log_probability, tokens")
    add_checkpoint(parser)


def run(args: argparse.Namespace) -> None:
    from zoo.workdirs import load

    workdir = load(args.workdir, args.checkpoint, decoding_changes(args), command="translate")
    scorer = workdir.scorer(**({"batch_tokens": args.batch_tokens} if args.batch_tokens else {}))
    if sys.stdin.isatty():
        log.info("scoring lines of source<TAB>target; Ctrl-D ends")
    first = 1
    for chunk in inputs("source<TAB>target> ", CHUNK):
        pairs = [_pair(line, number) for number, line in enumerate(chunk, first)]
        for (_, target), scored in zip(pairs, scorer(pairs, first), strict=True):
            labels = [*scorer.target.pieces(target), "</s>"] if args.tokens else []
            write(f"{_written(scored, labels, args.json)}\n")
        flush()
        first += len(chunk)


def _pair(line: str, number: int) -> tuple[str, str]:
    """Source and target; further columns are ignored, as in a .tsv. An empty line is an empty pair."""
    source, tab, rest = line.partition("\t")
    if line.strip() and not tab:
        raise UserError(f"line {number}: no tab between source and target: {line[:40]!r}: write source<TAB>target")
    return source, rest.partition("\t")[0]


def _written(scored: "Scored", labels: Sequence[str], as_json: bool) -> str:
    """A line of output, with the log-probability of each of the `labels` if there are any."""
    tokens = list(zip(labels, scored.log_probabilities.tolist(), strict=True)) if labels else []
    if as_json:
        record: dict[str, Any] = {"score": scored.score, "log_probability": scored.log_probability}
        return json.dumps(record | ({"tokens": tokens} if tokens else {}), ensure_ascii=False)
    each = " ".join(f"{label}:{value:.2f}" for label, value in tokens)
    return f"{scored.score:.4f}" + (f" ||| {each}" if each else "")
