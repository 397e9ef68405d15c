"""Standard input as the commands that answer line by line read it."""

import logging
import sys
from collections.abc import Iterator
from itertools import islice

log = logging.getLogger("zoo")


def decoded(lines: Iterator[bytes]) -> Iterator[str]:
    r"""The text of each line. Only \n ends one: what else Unicode counts as a line break stays inside its line."""
    for number, raw in enumerate(lines, 1):
        raw = raw.removesuffix(b"\n").removesuffix(b"\r")
        try:
            yield raw.decode()
        except UnicodeDecodeError:
            log.warning("line %d is not UTF-8: what cannot be read becomes \ufffd", number)
            yield raw.decode(errors="replace")


def chunks(lines: Iterator[str], size: int) -> Iterator[list[str]]:
    while chunk := list(islice(lines, size)):
        yield chunk


def inputs(prompt: str, size: int) -> Iterator[list[str]]:
    """The lines of standard input that are answered together: `size` of them, or each alone on a terminal, where
    `prompt` asks for it."""
    if sys.stdin.isatty():
        yield from chunks(decoded(_prompted(prompt)), 1)
    else:
        yield from chunks(decoded(sys.stdin.buffer), size)


def _prompted(prompt: str) -> Iterator[bytes]:
    while True:
        print(prompt, end="", file=sys.stderr, flush=True)
        if not (line := sys.stdin.buffer.readline()):
            print(file=sys.stderr)
            return
        yield line
