r"""Text files: the one place that finds, opens, decompresses and decodes what a user names.

A file may be plain, gzip or xz; its first bytes decide, not its name. It is UTF-8, with or without a byte order mark.
Only \n and \r\n end a line. `str.splitlines` would also split at U+2028, form feeds and the like, and two aligned files
would get out of step.
"""

import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from itertools import chain

from etils import epath

from zoo.data.text.encodings import Decoder
from zoo.errors import UserError
from zoo.storage import AnyPath, expanded

COMPRESSED = (".gz", ".xz")
GZIP, XZ = b"\x1f\x8b", b"\xfd7zXZ\0"  # the first bytes of a file
DAMAGE = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, tarfile.ReadError)
HEAD = 2**20  # bytes whose encoding is checked before the first line is given away


def bare(name: str) -> str:
    """The name of a file without the suffix of its compression."""
    return next((name.removesuffix(ending) for ending in COMPRESSED if name.endswith(ending)), name)


def is_file(path: AnyPath) -> bool:
    return path.exists() and not path.is_dir()


def find(path: str | AnyPath) -> epath.Path | None:
    """The file at `path`, or else its compressed form."""
    return next((file for file in map(epath.Path, candidates(path)) if is_file(file)), None)


def candidates(path: str | AnyPath) -> list[str]:
    """The possible names of a file: its own, and with the suffixes of compressed files."""
    named = expanded(path)
    return [named] if named.endswith(COMPRESSED) else [named, *(named + ending for ending in COMPRESSED)]


def required(path: str | AnyPath, key: str) -> epath.Path:
    """As `find`, but raises a `UserError` that names the files beside it; `key` is the option or key that names the
    file."""
    if (found := find(path)) is not None:
        return found
    itself = epath.Path(expanded(path))
    if itself.is_dir():
        inside = ", ".join(sorted(p.name for p in itself.iterdir())[:8]) or "nothing"
        raise UserError(f"{path} is a folder, which holds {inside}: name a file in it; check {key}")
    folder = itself.parent
    beside = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    there = f"beside it are {', '.join(beside[:8])}" if beside else "nor is there such a folder"
    raise UserError(f"no file {' or '.join(candidates(path))}: {there}; check {key}")


@contextmanager
def opened(path: AnyPath) -> Iterator[tuple[BufferedIOBase, BufferedIOBase]]:
    """A file's own bytes, and the decompressed ones. Raises `UserError` for a damaged file."""
    with damage_told(path), path.open("rb") as raw, _decompressed(path, raw) as content:
        yield raw, content


def _decompressed(path: AnyPath, raw: BufferedIOBase) -> BufferedIOBase:
    first = raw.read(len(XZ))
    raw.seek(0)
    if first.startswith(GZIP):
        return gzip.open(raw)
    if first == XZ:
        return lzma.open(raw)
    if first and path.name.endswith(COMPRESSED):
        ending = path.name[-3:]
        kind = {".gz": "gzip", ".xz": "xz"}[ending]
        raise UserError(f"{path} isn't a {kind} file: remove {ending} from its name, or compress it")
    return raw


def unpacked(content: bytes) -> bytes:
    """The bytes of a whole file, decompressed."""
    if content.startswith(GZIP):
        return gzip.decompress(content)
    return lzma.decompress(content) if content.startswith(XZ) else content


@contextmanager
def damage_told(path: AnyPath, line: Callable[[], int] | None = None) -> Iterator[None]:
    """Turns damaged compression into a `UserError`, with the number of the last good `line` if it is known."""
    try:
        yield
    except DAMAGE as error:
        where = f" after line {line()}" if line else ""
        raise UserError(f"{path} is truncated or damaged{where}: fetch it again ({error})") from error


def lines(path: AnyPath) -> Iterator[str]:
    """The lines of a text file without line ends.

    Raises `UserError` for a file that is damaged or not UTF-8.
    """
    decode = Decoder(str(path))
    with opened(path) as (_, file), damage_told(path, lambda: decode.number):
        raw = (line.removesuffix(b"\n").removesuffix(b"\r") for line in file)
        head: list[str] = []
        size = 0
        for line in raw:
            head.append(decode(line))
            if (size := size + len(line)) > HEAD:
                break
        decode.check()
        yield from chain(head, map(decode, raw))
        decode.finish()


def text(content: bytes, name: str) -> str:
    """The text of a whole file's decompressed bytes. Raises `UserError` if they are not UTF-8."""
    if b"\0" not in content:
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError:
            pass  # the lines say where, and how often
    decode = Decoder(name)
    decoded = "\n".join(map(decode, content.split(b"\n")))
    decode.finish()
    return decoded


def read(path: AnyPath) -> str:
    """The text of a whole file. Raises `UserError` if it is damaged or not UTF-8."""
    with opened(path) as (_, file):
        return text(file.read(), str(path))
