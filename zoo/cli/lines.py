"""Standard input as the commands that answer line by line read it."""

import logging
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
