"""The laws of the token cache: what is read is what was written, once, by one, and never what is stale."""

import logging
import os
import threading

import jax
import numpy as np
import pytest

from zoo.data import tokenizers
from zoo.data.batches.packing import HeldTokens, Rows
from zoo.data.examples.documents import documents
from zoo.data.ids import token_cache
from zoo.data.ids.token_cache import tokenized
from zoo.errors import UserError

TEXTS = ["One two.\n", "three " * 9, "\n \n", "vier fünf", "x"]
BYTES = tokenizers.Bytes()


class Counting(tokenizers.Bytes):
    """Bytes that count the texts that they are given, with ids as large as those of `size` rows."""

    def __init__(self, size=260):
        self._size, self.texts = size, 0

    @property
    def size(self):
        return self._size

    def encode(self, lines):
        self.texts += len(lines)
        return [[i * (self.size // 260) for i in row] for row in super().encode(lines)]

    def content(self):
        return b"%d" % self.size


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(token_cache, "BLOCK", 4)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "text").mkdir()
    for number, text in enumerate(TEXTS):
        (tmp_path / "text" / f"{number}.txt").write_text(text, encoding="utf-8")
    return tmp_path / "text"


@pytest.mark.parametrize("size", [260, 260 * 1000])
@pytest.mark.parametrize("packing", Rows.PACKINGS)
def test_rows_from_disk_are_those_from_memory(folder, tmp_path, size, packing):
    tokenizer = Counting(size)
    cache = tokenized(documents(str(folder), "train"), tokenizer, tmp_path / "cache", "train")
    held = HeldTokens(
        np.array(ids, np.int32) for ids in tokenizer.encode(TEXTS) if ids != tokenizer.encode(["\n \n"])[0]
    )
    one, other = Rows(cache, 7, packing), Rows(held, 7, packing)
    assert len(one) == len(other) > 5
    numbers = np.random.default_rng(0).integers(0, len(one), 20)
    for got, expected in zip(*map(jax.tree.leaves, (one.take(numbers), other.take(numbers))), strict=True):
        assert np.array_equal(got, expected)


def test_documents_are_tokenized_once_and_anew_when_anything_that_decides_them_changes(folder, tmp_path):
    def texts_read(place=str(folder), size=260, split="train"):
        tokenizer = Counting(size)
        tokenized(documents(place, split), tokenizer, tmp_path / "cache", "train")
        return tokenizer.texts

    assert texts_read() == 4 and texts_read() == 0
    assert texts_read(size=520) == 4
    assert (
        texts_read(f"{folder}[:50%]") > 0 and texts_read(f"{folder}[:50%]") == 0 and texts_read(f"{folder}[50%:]") > 0
    )
    assert texts_read(f"{folder}/0.txt") == 1
    assert texts_read("pydoc", split="valid") > 0 and texts_read("pydoc", split="test") > 0
    (folder / "0.txt").write_text("One two!\n")
    assert texts_read() == 4
    os.utime(folder / "0.txt", ns=(1, 1))
    assert texts_read() == 4 and texts_read() == 0


def test_of_many_at_once_one_tokenizes_and_the_others_wait(folder, tmp_path, caplog):
    tokenizer, entered = Counting(), threading.Event()
    encode = tokenizer.encode

    def slow(lines):
        entered.set()
        waiting.wait(20)
        return encode(lines)

    tokenizer.encode = slow
    waiting = threading.Event()

    class Waited(logging.Handler):
        def emit(self, record):
            if "waiting for the process" in record.getMessage():
                waiting.set()

    log = logging.getLogger("zoo")
    handler, level = Waited(), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    found = []
    try:
        threads = [
            threading.Thread(
                target=lambda: found.append(tokenized(documents(str(folder), "train"), tokenizer, tmp_path, "train"))
            )
            for _ in range(3)
        ]
        threads[0].start()
        assert entered.wait(20)
        for thread in threads[1:]:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
    assert waiting.is_set() and tokenizer.texts == 4
    assert len(found) == 3 and all((one.ends == found[0].ends).all() for one in found)


def test_a_tokenization_that_fails_leaves_nothing_that_looks_whole(folder, tmp_path):
    (folder / "9.txt").write_bytes(b"\0")
    with pytest.raises(UserError, match=r"9\.txt:1: "):
        tokenized(documents(str(folder), "train"), Counting(), tmp_path / "cache", "train")
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


@pytest.mark.parametrize("cut", [0, 10, -70000, -1])
def test_a_damaged_cache_is_one_line(folder, tmp_path, cut):
    cache = tokenized(documents(str(folder), "train"), Counting(), tmp_path / "cache", "train")
    cache.path.write_bytes(cache.path.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"is damaged .*delete it") as error:
        tokenized(documents(str(folder), "train"), Counting(), tmp_path / "cache", "train")
    assert "\n" not in str(error.value)


def test_a_log_line_says_documents_and_tokens_and_a_long_one_how_far_it_is(folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(token_cache, "REPORTED_EVERY", 0.0)
    monkeypatch.setattr(tokenizers.base, "TOGETHER", 20)
    with caplog.at_level(logging.INFO, "zoo"):
        for _ in range(2):
            tokenized(documents(str(folder), "train"), BYTES, tmp_path / "cache", "train")
    tokens = sum(len(text.encode()) for text in TEXTS if text.strip())
    *progress, made, again = [record.getMessage() for record in caplog.records]
    assert "4 documents" in made and f"{tokens} tokens tokenized in" in made and "already tokenized" in again
    shares = [int(line.split("%")[0].split()[-1]) for line in progress]
    assert len(shares) > 1 and shares == sorted(shares) and shares[-1] == 100
