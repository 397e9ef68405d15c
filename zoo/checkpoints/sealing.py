"""The seal of a checkpoint: `checksums.json`, the size and the CRC-32 of each of its files.

Orbax makes a checkpoint appear whole or not at all. But neither Orbax nor its storage always notices later damage (a
truncated copy, a bad disk), and an altered weight is worse than a lost one. So nothing is read unless it matches its
seal.
"""

import json
import zlib
from concurrent.futures import ThreadPoolExecutor

from etils import epath

SEAL = "checksums.json"
# Orbax writes these two after the seal; they hold only times, which are not restored.
_UNSEALED = {SEAL, "_CHECKPOINT_METADATA", "commit_success.txt"}
_CHUNK_BYTES = 1 << 24


def files(directory: epath.Path) -> list[str]:
    """The files under `directory` that a seal covers, as relative paths."""
    walked = list(directory.walk())
    top = walked[0][0]  # in a store, without its gs://
    relative = (str(root.relative_to(top) / name) for root, _, names in walked for name in names if name)
    return sorted(name for name in relative if name not in _UNSEALED)


def size_and_checksum(path: epath.Path) -> tuple[int, int]:
    """Bytes and CRC-32 of a file."""
    size, checksum = 0, 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            size, checksum = size + len(chunk), zlib.crc32(chunk, checksum)
    return size, checksum


def seal(directory: epath.Path) -> None:
    """Write `checksums.json` for the files under `directory`."""
    with ThreadPoolExecutor() as pool:
        names = files(directory)
        facts = pool.map(lambda name: size_and_checksum(directory / name), names)
        (directory / SEAL).write_text(json.dumps(dict(zip(names, facts, strict=True))))


def read_seal(directory: epath.Path) -> dict[str, list[int]] | None:
    """The content of `checksums.json`: {file: [bytes, CRC-32]}; None if it is missing or unreadable."""
    try:
        return json.loads((directory / SEAL).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def missing(directory: epath.Path) -> str | None:
    """The first file that is missing or has another length, in words; None if all are right."""
    sealed = read_seal(directory)
    if sealed is None:
        return f"its {SEAL} is missing or damaged"
    for name, (size, _) in sealed.items():
        path = directory / name
        if not path.exists():
            return f"{name} is missing"
        if (length := path.stat().length) != size:
            return f"{name} has {length:,} of {size:,} bytes"
    return None


def defect(directory: epath.Path) -> str | None:
    """How the checkpoint differs from what was written, in words; None if not a byte differs."""
    if reason := missing(directory):
        return reason
    sealed = read_seal(directory)
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda name: size_and_checksum(directory / name), sealed)
        altered = [name for name, facts in zip(sealed, found, strict=True) if list(facts) != sealed[name]]
    return f"the bytes of {altered[0]} have changed" if altered else None
