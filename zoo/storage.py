"""The place of working directories: a file system, or an object store (`gs://BUCKET/RUN`) through epath.

An object store has whole files, each of which appears at once. Files that grow during a run (reports, logs) grow in a
local directory, and are copied as a whole now and then.
"""

import importlib.util
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etils import epath

from zoo.errors import REMEDIES, UserError, refused

AnyPath = Path | epath.Path
STORE = "gs://"


def is_remote(path: str | os.PathLike) -> bool:
    """Whether it is in an object store."""
    return "://" in os.fspath(path)


def expanded(path: str | os.PathLike) -> str:
    """The path that a user wrote, with `~` as the home directory. Every path from outside passes through here."""
    return os.path.expanduser(os.fspath(path))


def located(path: str | os.PathLike) -> AnyPath:
    """The path of a local file or directory, or of one in Google Cloud Storage.

    Raises UserError for a URL of any other store, for one without a bucket, and if the client is not installed.
    """
    if not is_remote(path):
        return Path(expanded(path))
    text = os.fspath(path)
    if not text.startswith(STORE) or text.startswith("gs:///"):
        raise UserError(f"{text}: checkpoints go to a file system or to gs://BUCKET/RUN; mount any other bucket")
    if not any(map(importlib.util.find_spec, ("gcsfs", "tensorflow"))):
        raise UserError(f"{text} needs a client of Google Cloud Storage: pip install 'seqzoo[gcs]'")
    _remember_no_listings()
    return epath.Path(text)


def _remember_no_listings() -> None:
    """Forget cached listings: Orbax and other processes write to the store too."""
    import fsspec

    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False


def absolute(path: str | os.PathLike) -> epath.Path:
    """The path from the root of the file system, or of the store."""
    path = epath.Path(located(path))
    return path if is_remote(path) else path.resolve()


def write_whole(path: str | os.PathLike, content: bytes) -> None:
    """Write a file, and make its directory if necessary; a reader sees the whole file or the previous one."""
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_remote(path):
        path.write_bytes(content)
        return
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}"
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove(path: AnyPath) -> None:
    """Remove a file or directory, which another process may be removing too."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
    elif is_remote(path):
        path.rmtree(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def scratch(workdir: AnyPath, name: str) -> Path:
    """A directory for files that can be made again: `name` in the working directory or, for one in a store, in the
    user's cache, where runs share it."""
    if not is_remote(workdir):
        return Path(workdir) / name
    return user_cache(name)


def user_cache(name: str) -> Path:
    """The user's directory for files that can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seqzoo" / name


def output(path: str | os.PathLike) -> AnyPath:
    """The path of a file that will be written after the work, checked to be writable.

    Raises UserError for a directory, for a file in a missing directory, and for a write-protected file or directory.
    """
    path = located(path)
    if is_remote(path):
        return path
    if path.is_dir():
        raise UserError(f"{path} is a directory: name a file in it")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no directory {path.parent}: make it, or write elsewhere")
    try:
        if path.exists():
            path.open("ab").close()
        else:
            with tempfile.TemporaryFile(dir=path.parent):
                pass
    except OSError as error:
        raise UserError(refused(path, error)) from error
    return path


def write_output(path: str | os.PathLike, content: bytes) -> None:
    """Write a file that a user named: whole or not at all, or straight into a device or a pipe."""
    path = located(path)
    if is_remote(path) or path.is_file() or not path.exists():
        write_whole(path if is_remote(path) else path.resolve(), content)
    else:
        path.write_bytes(content)


@contextmanager
def reached(path: AnyPath) -> Iterator[None]:
    """Around the first use of a store: what its client raises is that there is no such bucket, no permission or no
    network, and becomes a UserError; so does what a file system refuses."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not (is_remote(path) or isinstance(error, OSError)):
            raise
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        remedy = REMEDIES.get(getattr(error, "errno", None), "check that the place exists and can be written")
        if is_remote(path):
            remedy = "check that the bucket exists and that you may write to it"
        raise UserError(f"cannot write {path} ({reason}): {remedy}, or choose another --workdir") from error


class Growing:
    """The files of a directory that grow: `local` is where to append to them. That is the directory itself, or for one
    in a store a temporary one, which `publish` copies."""

    def __init__(self, directory: AnyPath):
        self._directory = directory
        self._remote = is_remote(directory)
        self.local = Path(tempfile.mkdtemp(prefix="seqzoo-")) if self._remote else Path(directory)
        self._published: dict[Path, tuple[int, int]] = {}

    def fetch(self, name: str) -> Path:
        """Where to append to the file `name`, with what was published of it."""
        self.local.mkdir(parents=True, exist_ok=True)
        if self._remote and (self._directory / name).exists():
            (self.local / name).write_bytes((self._directory / name).read_bytes())
        return self.local / name

    def publish(self) -> None:
        """Copy the files that have changed to the store, if it is one."""
        if not self._remote:
            return
        for path in sorted(path for path in self.local.rglob("*") if path.is_file()):
            state = path.stat().st_size, path.stat().st_mtime_ns
            if self._published.get(path) != state:
                write_whole(self._directory / path.relative_to(self.local).as_posix(), path.read_bytes())
                self._published[path] = state

    def close(self) -> None:
        """`publish`, and take the temporary directory away."""
        self.publish()
        if self._remote:
            shutil.rmtree(self.local, ignore_errors=True)
