"""Commands that answer line by line, at the end of a pipe that stays open."""

import os
import threading
import time

import pytest

from zoo.cli.lines import arriving


@pytest.fixture
def pipe():
    """What is written to, and what reads it."""
    ends = os.pipe()
    with os.fdopen(ends[0], "rb") as reader, os.fdopen(ends[1], "wb", buffering=0) as writer:
        yield writer, reader


def test_what_has_come_is_given_when_nothing_more_comes(pipe):
    writer, reader = pipe
    given = arriving(reader, 10)
    writer.write(b"one\ntwo\nthr")
    assert next(given) == [b"one", b"two"]
    writer.write(b"ee\n")
    assert next(given) == [b"three"]
    writer.write(b"four")
    writer.close()
    assert list(given) == [[b"four"]]


def test_lines_that_come_fast_are_given_in_full(pipe, monkeypatch):
    """From a program that writes often less than a line, with pauses shorter than a silence."""
    monkeypatch.setattr("zoo.cli.lines.SILENCE", 30.0)  # this machine may be slow
    writer, reader = pipe

    def write():
        for number in range(100):
            writer.write(f"line {number}".encode())
            if number % 25 == 0:
                time.sleep(0.01)
            writer.write(b"\n")
        writer.close()

    thread = threading.Thread(target=write)
    thread.start()
    given = list(arriving(reader, 30))
    thread.join()
    assert [len(lines) for lines in given] == [30, 30, 30, 10]
    assert b"\n".join(line for lines in given for line in lines).count(b"line") == 100


@pytest.mark.parametrize("text", [b"", b"\n", b"a", b"a\n", b"a\n\nb", b"\n\n\n" * 40, b"a\r\nb\x0cc\n" * 50_000])
def test_a_file_has_the_lines_that_python_reads_from_it(tmp_path, text):
    (tmp_path / "lines").write_bytes(text)
    with open(tmp_path / "lines", "rb") as file:
        found = list(arriving(file, 7))
    assert b"\n".join(line for lines in found for line in lines) == text.removesuffix(b"\n")
    assert all(len(lines) == 7 for lines in found[:-1])


@pytest.mark.parametrize(
    ("command", "lines"),
    [
        (("translate", "--beam=1"), [b"in 3 days", b"", b"in 4 days"]),
        (("score",), [b"in 3 days\tdans 3 jours", b"in 4 days\tdans 4 jours"]),
    ],
)
def test_a_program_that_writes_a_line_and_reads_a_line_is_answered(workdir, converse, command, lines):
    name, *options = command
    assert len(converse([name, str(workdir), *options], lines)) == len(lines)
