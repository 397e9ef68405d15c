"""`generate`: text that continues a prompt."""

import argparse
import json
import logging
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from zoo.cli.arguments import (
    add_checkpoint,
    add_numbers,
    add_sampling,
    decoding_changes,
    directory,
    number,
    positive,
    sampling_options,
)
from zoo.cli.lines import flush, inputs, write
from zoo.errors import UserError

if TYPE_CHECKING:
    from zoo.decoding.generation import Continuation

HELP = "write text with a language model: the prompt and its continuation"
EXAMPLE = 'python -m zoo generate runs/gpt-nano --prompt "The " --max-new-tokens 200 --temperature 0.8 --top-k 50'
CHUNK = 32  # prompts at most that are continued together

log = logging.getLogger("zoo")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", type=directory, metavar="WORKDIR", help="a working directory")
    parser.add_argument(
        "--prompt",
        action="append",
        metavar="TEXT",
        help="what the text begins with; may be repeated (default: every line of standard input)",
    )
    parser.add_argument("--max-new-tokens", type=positive, metavar="N", help="tokens after the prompt, at most")
    add_sampling(parser)
    parser.add_argument("--repetition-penalty", type=number, metavar="R", help="above 1: repeat less often")
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before TEXT; may be repeated")
    parser.add_argument(
        "--samples", type=positive, default=1, metavar="N", help="the number of texts, with a blank line between them"
    )
    parser.add_argument("--json", action="store_true", help="an object per line: prompt, text, ended")
    add_numbers(parser)
    add_checkpoint(parser)


def run(args: argparse.Namespace) -> None:
    from zoo.workdirs import load

    if "" in args.stop:
        raise UserError("--stop='' matches everywhere: name a text to end before")
    own = {"max_new_tokens": args.max_new_tokens, "repetition_penalty": args.repetition_penalty}
    options = sampling_options(args) | {name: value for name, value in own.items() if value is not None}
    changes = (*decoding_changes(args), *((f"decoding.{name}", str(value)) for name, value in options.items()))
    generator = load(args.workdir, args.checkpoint, changes, command="generate").generator()
    if args.prompt is None and sys.stdin.isatty():
        log.info("continuing each line; Ctrl-D ends")
    done, told = 0, False
    for prompts in inputs("> ", CHUNK) if args.prompt is None else [args.prompt]:
        rows = [prompt for prompt in prompts for _ in range(args.samples)]
        grown = generator.stream(rows, args.seed or 0, args.stop, done)
        last = _write_json(rows, grown) if args.json else _write_plain(rows, grown, apart=done > 0)
        if not told and any(continuation.slid for continuation in last):
            log.info(
                "a text is longer than %d tokens: only its last tokens are read, at least half as many",
                generator.context,
            )
            told = True
        done += len(rows)


def _write_plain(prompts: list[str], grown: "Iterator[list[Continuation]]", apart: bool) -> "list[Continuation]":
    """Write prompts and continuations, with a blank line before them if `apart`; a single text appears while it
    grows."""
    alone, shown = len(prompts) == 1, 0
    if apart and not sys.stdin.isatty():
        write("\n")
    if alone:
        write(prompts[0])
        flush()
    for last in grown:
        if alone:
            write(last[0].text[shown:])
            flush()
            shown = len(last[0].text)
    texts = (f"{prompt}{continuation.text}\n" for prompt, continuation in zip(prompts, last, strict=True))
    write("\n" if alone else "\n".join(texts))
    flush()
    return last


def _write_json(prompts: list[str], grown: "Iterator[list[Continuation]]") -> "list[Continuation]":
    *_, last = grown
    for prompt, continuation in zip(prompts, last, strict=True):
        record = {"prompt": prompt, "text": continuation.text, "ended": continuation.ended}
        write(f"{json.dumps(record, ensure_ascii=False)}\n")
    flush()
    return last
