"""Files of working directories: written, compared and damaged."""

import hashlib
from pathlib import Path

Files = dict[str, str]


def files_under(directory: Path) -> Files:
    """{name: digest} of all files, so that a lost, a new and an altered one all show."""
    paths = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def write(directory: Path, files: dict[str, str | bytes]) -> None:
    for name, text in files.items():
        (directory / name).write_bytes(text.encode() if isinstance(text, str) else text)


def truncate(checkpoint: Path) -> None:
    """Cut the largest file of a checkpoint short."""
    largest = max((p for p in (checkpoint / "state").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:100])
