"""The laws of standard input and output: what has come in is answered, and every character can be written."""

import io
import sys
from types import SimpleNamespace

import pytest

from zoo.cli import main


def run(monkeypatch, argv: list[str], given: bytes) -> bytes:
    """What a command answers to this input, where standard output holds ASCII only."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(given), isatty=lambda: False))
    monkeypatch.setattr(sys, "stdout", out)
    assert main(argv) == 0
    out.flush()
    return out.buffer.getvalue()


@pytest.mark.parametrize(("command", "line"), [("translate", b"in 1 days"), ("score", b"in 1 days\tdans 1 jours")])
def test_a_byte_order_mark_before_the_first_line_changes_nothing(workdir, monkeypatch, command, line):
    plain = run(monkeypatch, [command, str(workdir)], line + b"\n")
    assert run(monkeypatch, [command, str(workdir)], b"\xef\xbb\xbf" + line + b"\n") == plain


def test_input_in_utf16_is_refused(workdir, monkeypatch, capfd):
    given = SimpleNamespace(buffer=io.BytesIO("in 1 days\n".encode("utf-16")), isatty=lambda: False)
    monkeypatch.setattr(sys, "stdin", given)
    assert main(["translate", str(workdir)]) == 2
    assert "standard input:1: not UTF-8, but probably UTF-16" in capfd.readouterr().err


def test_characters_that_cannot_be_read_are_counted(workdir, monkeypatch, capfd):
    run(monkeypatch, ["translate", str(workdir)], b"a\nb\xe9\n" * 30)
    err = capfd.readouterr().err
    assert "standard input: 30 characters that cannot be read" in err and "the first in line 2" in err
    assert err.count("is not UTF-8") == 10


def test_an_output_that_holds_ascii_only_is_given_utf8(workdir, monkeypatch):
    scores = run(monkeypatch, ["eval", str(workdir), "--split=valid"], b"").decode()
    assert "en→fr" in scores
