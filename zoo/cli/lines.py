"""Standard input as the commands that answer line by line read it, and their answers on standard output."""

import io
import os
import select
import sys
from collections.abc import Iterable, Iterator
from itertools import islice

from zoo.data.text.encodings import Decoder

SILENCE = 0.05  # seconds without a new line after which what has come is answered
PIECE = 1 << 16  # bytes read at a time


def inputs(prompt: str, size: int) -> Iterator[list[str]]:
    """The lines of standard input that are answered together.

    `size` of them while they come fast, or what has come after `SILENCE`, so that a program may write a line and wait
    for its answer; on a terminal each line alone, where `prompt` asks for it.
    """
    return _decoded(_typed(prompt) if sys.stdin.isatty() else arriving(sys.stdin.buffer, size))


def whole_input() -> list[str]:
    """All lines of standard input."""
    (lines,) = _decoded([list(sys.stdin.buffer)])
    return lines


def speak_utf8() -> None:
    """Make standard output UTF-8 whatever the locale, as the input is and as JSON has to be."""
    if getattr(sys.stdout, "encoding", "utf-8").lower() != "utf-8" and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8")


def write(text: str) -> None:
    """Give an answer to standard output, in UTF-8 as the input is."""
    sys.stdout.buffer.write(text.encode())


def flush() -> None:
    sys.stdout.buffer.flush()


def _decoded(chunks: Iterable[list[bytes]]) -> Iterator[list[str]]:
    r"""The text of the lines without their ends. Only \n ends one: what else Unicode counts as a line break stays
    inside its line. Each line is answered, so bytes that are not UTF-8 become U+FFFD; they are counted."""
    decode = Decoder("standard input", strict=False)
    for chunk in chunks:
        yield [decode(raw.removesuffix(b"\n").removesuffix(b"\r")) for raw in chunk]
    decode.finish()


def arriving(stream: io.BufferedIOBase, size: int) -> Iterator[list[bytes]]:
    """The lines of `stream`, `size` at a time, or fewer when no more come for `SILENCE`.

    Where one cannot wait for bytes (a stream in memory, or on Windows), fewer come at the end alone.
    """
    descriptor = _descriptor(stream)
    if descriptor is None:
        lines = iter(stream)
        while chunk := list(islice(lines, size)):
            yield chunk
        return
    lines, beginning = [], []  # whole lines, and the pieces of one that has no end yet
    while True:
        if lines and not select.select([descriptor], [], [], SILENCE)[0]:
            yield lines
            lines = []
        piece = os.read(descriptor, PIECE)
        *whole, rest = piece.split(b"\n")
        if whole:
            lines += [b"".join([*beginning, whole[0]]), *whole[1:]]
            beginning = []
        beginning.append(rest)
        if not piece:
            last = b"".join(beginning)
            lines += [last] if last else []
        full = len(lines) - len(lines) % size
        for start in range(0, full, size):
            yield lines[start : start + size]
        lines = lines[full:]
        if not piece:
            break
    if lines:
        yield lines


def _descriptor(stream: io.BufferedIOBase) -> int | None:
    """That by which the system can tell whether something has come."""
    if os.name == "nt":
        return None
    try:
        return stream.fileno()
    except OSError:
        return None


def _typed(prompt: str) -> Iterator[list[bytes]]:
    while True:
        print(prompt, end="", file=sys.stderr, flush=True)
        if not (line := sys.stdin.buffer.readline()):
            print(file=sys.stderr)
            return
        yield [line]
