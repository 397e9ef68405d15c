"""Documents as token ids on disk: tokenized once, read by position, shared by processes and by runs.

A file of records holds the concatenated ids of all documents in blocks of one size, then where each document ends, and
last a description of the file. It is written under another name and renamed, so it is whole or absent.
"""

import fcntl
import hashlib
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from jaxtyping import Int

from zoo.data.examples.documents import Documents
from zoo.data.ids.fingerprints import Fingerprint
from zoo.data.tokenizers import Tokenizer
from zoo.data.tokenizers.base import together
from zoo.errors import UserError

log = logging.getLogger("zoo")
FORMAT = 2
BLOCK = 4096  # tokens of a record: few enough to read a row, many enough for few records
REPORTED_EVERY = 10.0  # seconds
OPTIONS = "group_size:1,uncompressed"  # a record can be read without its neighbours


class TokenCache:
    """The ids of many documents, read from disk when needed."""

    def __init__(self, path: Path):
        """Raises UserError if `tokenized` did not write the file."""
        self.path = path
        try:
            self._reader = ArrayRecordReader(str(path), "readahead_buffer_size:0")
            if not (records := self._reader.num_records()):
                raise ValueError("it has no records")
            about = json.loads(self._reader.read([records - 1])[0])
            self._dtype, self._blocks = np.dtype(about["dtype"]), about["blocks"]
            self.fingerprint: str = about["fingerprint"]  # of the ids of every document
            self.ends = np.frombuffer(b"".join(self._records(self._blocks, about["records"])), np.int64)
        except (RuntimeError, ValueError, KeyError) as error:
            raise UserError(f"{path} is damaged ({error}): delete it, and it will be made again") from error

    def take(self, places: Int[np.ndarray, "*shape"]) -> Int[np.ndarray, "*shape"]:
        """The ids at these places of the concatenated documents."""
        blocks, inverse = np.unique(places // BLOCK, return_inverse=True)
        if not len(blocks):
            return np.zeros(places.shape, np.int32)
        read = [np.frombuffer(record, self._dtype) for record in self._reader.read(blocks.tolist())]
        starts = np.cumsum([0, *map(len, read[:-1])])
        return np.concatenate(read)[starts[inverse.reshape(places.shape)] + places % BLOCK].astype(np.int32)

    def _records(self, start: int, stop: int) -> list[bytes]:
        return self._reader.read(list(range(start, stop))) if stop > start else []


def tokenized(documents: Documents, tokenizer: Tokenizer, directory: Path, name: str) -> TokenCache:
    """The ids of the `documents`, from a file in `directory`, which is made if it does not exist.

    Its name depends on everything that decides its content: the texts, by the sizes and times of their files, and the
    tokenizer. One of several processes makes it, and the others wait. `name` is for the log.
    """
    decided_by = {"format": FORMAT, "text": documents.identity(), "tokenizer": _fingerprint(tokenizer)}
    key = hashlib.sha256(json.dumps(decided_by, sort_keys=True).encode()).hexdigest()[:24]
    path = directory / f"{key}.array_record"
    directory.mkdir(parents=True, exist_ok=True)
    with _alone(directory / f".{key}.lock", waiting=f"{name}: waiting for the process that tokenizes it into {path}"):
        start, made = time.perf_counter(), not path.exists()
        if made:
            _write(path, documents, tokenizer, name)
        cache = TokenCache(path)
    size = f"{len(cache.ends):,} documents, {cache.ends.max(initial=0):,} tokens"
    if made:
        log.info("%s: %s tokenized in %.1f seconds into %s", name, size, time.perf_counter() - start, path)
    else:
        log.info("%s: %s already tokenized in %s", name, size, path)
    return cache


def _fingerprint(tokenizer: Tokenizer) -> str:
    return hashlib.sha256(tokenizer.content()).hexdigest()


@contextmanager
def _alone(path: Path, waiting: str) -> Iterator[None]:
    """Holds the lock among the processes of this machine; when its process is killed, the lock is free again."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("%s", waiting)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(path: Path, documents: Documents, tokenizer: Tokenizer, name: str) -> None:
    partial = path.with_name(f".{path.name}.{socket.gethostname()}")  # overwrites what a killed process has left
    try:
        writer = _Writer(partial, np.dtype(np.uint16 if tokenizer.size <= 2**16 else np.uint32))
        report = _progress(documents, name)
        for texts in together(filter(str.strip, documents), len):
            for ids in tokenizer.encode(texts):
                writer.add(ids)
            report(len(writer.ends), writer.tokens)
        writer.close()
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


class _Writer:
    def __init__(self, path: Path, dtype: np.dtype):
        self._file = ArrayRecordWriter(str(path), OPTIONS)
        self._dtype, self._rest = dtype, np.zeros(0, dtype)
        self._fingerprint = Fingerprint()
        self.ends: list[int] = []
        self.tokens = 0

    def add(self, document: list[int]) -> None:
        added = np.asarray(document, self._dtype)
        self._fingerprint.add(added)
        ids = np.concatenate([self._rest, added])
        whole = len(ids) // BLOCK * BLOCK
        for start in range(0, whole, BLOCK):
            self._file.write(ids[start : start + BLOCK].tobytes())
        self._rest = ids[whole:]
        self.tokens += len(document)
        self.ends.append(self.tokens)

    def close(self) -> None:
        if len(self._rest):
            self._file.write(self._rest.tobytes())
        ends = np.array(self.ends, np.int64)
        blocks, rows = -(-self.tokens // BLOCK), range(0, len(ends), BLOCK)
        for start in rows:
            self._file.write(ends[start : start + BLOCK].tobytes())
        about: dict[str, Any] = {"dtype": self._dtype.name, "blocks": blocks, "records": blocks + len(rows)}
        about["fingerprint"] = str(self._fingerprint)
        self._file.write(json.dumps(about).encode())
        self._file.close()


def _progress(documents: Documents, name: str) -> Callable[[int, int], None]:
    """Reports the progress now and then."""
    began = last = time.perf_counter()

    def report(count: int, tokens: int) -> None:
        nonlocal last
        now = time.perf_counter()
        if now - last > REPORTED_EVERY:
            last = now
            share, pace = 100 * documents.read, tokens / (now - began)
            log.info(
                "%s: %.0f%% read, %s tokens of %d documents, %.0f a second", name, share, f"{tokens:,}", count, pace
            )

    return report
