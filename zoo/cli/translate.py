"""`translate`: lines in, lines out."""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.cli.arguments import add_checkpoint, add_decoding, decoding_changes, positive
from zoo.errors import UserError

if TYPE_CHECKING:
    from zoo.decoding.translator import Translation, Translator

HELP = "translate standard input to standard output, line by line"
EXAMPLE = 'echo "Thursday, March 3, 2022" | python -m zoo translate runs/phrases --beam 4 --alignment'
CHUNK = 2000  # lines that are sorted by length and translated together

log = logging.getLogger("zoo")
Writer = Callable[[int, str, "list[Translation]"], str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", type=Path, metavar="WORKDIR", help="a working directory")
    add_decoding(parser)
    parser.add_argument(
        "--n-best", "--nbest", type=positive, metavar="N", help="the N best as `line ||| translation ||| score`"
    )
    parser.add_argument("--alignment", action="store_true", help="append ` ||| 0-0 1-2`: source word-target word")
    parser.add_argument("--json", action="store_true", help="an object a line: translation, score, n_best, alignment")
    add_checkpoint(parser)


def run(args: argparse.Namespace) -> None:
    from zoo.workdirs import load

    workdir = load(args.workdir, args.checkpoint, decoding_changes(args), task="translation")
    beam = workdir.experiment.decoding.beam_size
    if args.n_best and args.n_best > beam:
        raise UserError(f"--n-best={args.n_best} is above the beam of {beam}: set --beam-size={args.n_best}")
    translator = workdir.translator(**({"batch_tokens": args.batch_tokens} if args.batch_tokens else {}))
    write = _writer(args, translator)
    interactive = sys.stdin.isatty()
    if interactive:
        data = workdir.experiment.data
        log.info("translating %s to %s line by line; Ctrl-D ends", data.source, data.target)
    lines = _prompted(f"{workdir.experiment.data.source}> ") if interactive else sys.stdin.buffer
    chunks = _chunks(_decoded(lines), 1 if interactive else CHUNK)
    first = 1
    for chunk in chunks:
        for number, (line, best) in enumerate(zip(chunk, translator(chunk, args.alignment, first), strict=True), first):
            sys.stdout.buffer.write(f"{write(number, line, best)}\n".encode())
        sys.stdout.buffer.flush()
        first += len(chunk)


def _prompted(prompt: str) -> Iterator[bytes]:
    while True:
        print(prompt, end="", file=sys.stderr, flush=True)
        if not (line := sys.stdin.buffer.readline()):
            print(file=sys.stderr)
            return
        yield line


def _decoded(lines: Iterator[bytes]) -> Iterator[str]:
    r"""The text of each line. Only \n ends one: what else Unicode counts as a line break stays inside its line."""
    for number, raw in enumerate(lines, 1):
        raw = raw.removesuffix(b"\n").removesuffix(b"\r")
        try:
            yield raw.decode()
        except UnicodeDecodeError:
            log.warning("line %d is not UTF-8: what cannot be read becomes \ufffd", number)
            yield raw.decode(errors="replace")


def _chunks(lines: Iterator[str], size: int) -> Iterator[list[str]]:
    while chunk := list(islice(lines, size)):
        yield chunk


def _writer(args: argparse.Namespace, translator: "Translator") -> Writer:
    """How the translations of a line are written."""
    from zoo.decoding.alignment import word_links

    def links(line: str, translation: "Translation") -> list[tuple[int, int]]:
        return word_links(line, translation, translator.source, translator.target)

    def suffix(line: str, translation: "Translation") -> str:
        return f" ||| {' '.join(f'{s}-{t}' for s, t in links(line, translation))}" if args.alignment else ""

    def plain(number: int, line: str, best: "Sequence[Translation]") -> str:
        return best[0].text + suffix(line, best[0])

    def n_best(number: int, line: str, best: "Sequence[Translation]") -> str:
        rows = (f"{number - 1} ||| {t.text} ||| {t.score:.4f}{suffix(line, t)}" for t in best[: args.n_best])
        return "\n".join(rows)

    def as_json(number: int, line: str, best: "Sequence[Translation]") -> str:
        record = {"translation": best[0].text, "score": best[0].score}
        if args.n_best:
            record["n_best"] = [{"translation": t.text, "score": t.score} for t in best[: args.n_best]]
        if args.alignment:
            record["alignment"] = links(line, best[0])
        return json.dumps(record, ensure_ascii=False)

    return as_json if args.json else n_best if args.n_best else plain
