"""Standard input and output of the commands that answer line by line."""

import io
import os
import select
import sys
from collections.abc import Iterable, Iterator
from itertools import islice

from zoo.data.text.encodings import Decoder

SILENCE = 0.05  # seconds without a new line, after which the lines so far are answered
PIECE = 1 << 16  # bytes read at a time


def inputs(prompt: str, size: int) -> Iterator[list[str]]:
    """The lines of standard input, in groups that are answered together.

    A group has `size` lines while they come fast, or fewer after `SILENCE`, so that a program may write a line and wait
    for its answer. On a terminal each line is a group, and `prompt` asks for it.
    """
    return _decoded(_typed(prompt) if sys.stdin.isatty() else arriving(sys.stdin.buffer, size))


def whole_input() -> list[str]:
    """All lines of standard input."""
    (lines,) = _decoded([list(sys.stdin.buffer)])
    return lines


def speak_utf8() -> None:
    """Make standard output UTF-8 whatever the locale, like the input, and as JSON requires."""
    if getattr(sys.stdout, "encoding", "utf-8").lower() != "utf-8" and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8")


def write(text: str) -> None:
    """Write an answer to standard output, in UTF-8 like the input."""
    sys.stdout.buffer.write(text.encode())


def flush() -> None:
    sys.stdout.buffer.flush()


def _decoded(chunks: Iterable[list[bytes]]) -> Iterator[list[str]]:
    r"""The text of the lines without their ends. Only \n ends one; any other line break of Unicode stays inside its
    line. Each line is answered, so bytes that are not UTF-8 become U+FFFD and are counted."""
    decode = Decoder("standard input", strict=False)
    for chunk in chunks:
        yield [decode(raw.removesuffix(b"\n").removesuffix(b"\r")) for raw in chunk]
    decode.finish()


def arriving(stream: io.BufferedIOBase, size: int) -> Iterator[list[bytes]]:
    """The lines of `stream`, `size` at a time, or fewer if no more come for `SILENCE`.

    If waiting for bytes is impossible (a stream in memory, or on Windows), only the last group is smaller.
    """
    descriptor = _descriptor(stream)
    if descriptor is None:
        lines = iter(stream)
        while chunk := list(islice(lines, size)):
            yield chunk
        return
    lines, beginning = [], []  # whole lines, and the pieces of an unfinished one
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
    """The file descriptor that can be polled for input, if there is one."""
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
