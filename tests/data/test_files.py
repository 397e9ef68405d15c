"""The laws of text files: the same text in every packing, and a clear word about what is not text in UTF-8."""

import gzip
import logging
import lzma

import pytest

from zoo.data.text import files
from zoo.errors import UserError

FRENCH = "Où êtes-vous allé à Noël ?\nLe café était fermé.\n"
ENGLISH = "It is a plain line.\n" * 2000
PACKINGS = {"plain": lambda data: data, "gz": gzip.compress, "xz": lzma.compress}


def said(path) -> str:
    with pytest.raises(UserError) as caught:
        list(files.lines(path))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError):
        files.read(path)
    return str(caught.value)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.xz"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_text_is_the_same_in_every_packing_under_every_name(tmp_path, packing, name, mark):
    path = tmp_path / name
    path.write_bytes(PACKINGS[packing]((mark + FRENCH).encode()))
    if packing == "plain" and name != "a.txt":
        assert "isn't a" in said(path)
    else:
        assert list(files.lines(path)) == FRENCH.splitlines()
        assert files.read(path) == FRENCH


@pytest.mark.parametrize(
    ("encoding", "named"),
    [
        ("latin-1", "ISO-8859-1"),
        ("cp1252", "ISO-8859-1"),
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16-LE"),
        ("utf-16-be", "UTF-16-BE"),
        ("utf-32", "UTF-32"),
    ],
)
def test_another_encoding_is_refused_by_its_name(tmp_path, encoding, named):
    (tmp_path / "a").write_bytes(FRENCH.encode(encoding))
    assert f"{tmp_path / 'a'}:1: not UTF-8, but probably {named}" in said(tmp_path / "a")


def test_another_encoding_is_refused_wherever_it_begins(tmp_path):
    (tmp_path / "a").write_bytes(ENGLISH.encode() + "a “green” one\n".encode("cp1252") * 200)
    assert "a:2001: not UTF-8, but probably Windows-1252" in said(tmp_path / "a")


def test_single_bad_bytes_are_replaced_and_counted(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("zoo"), "propagate", True)
    (tmp_path / "a").write_bytes(ENGLISH.encode() + b"caf\xe9 \xe9\n")
    assert list(files.lines(tmp_path / "a"))[-1] == "caf\ufffd \ufffd"
    assert "2 characters that cannot be read became U+FFFD, the first in line 2001" in caplog.text


def test_a_nul_byte_and_a_cut_end_are_reported_with_their_lines(tmp_path):
    (tmp_path / "a").write_bytes(FRENCH.encode() + b"a\0b\n")
    assert "a:3: a NUL byte" in said(tmp_path / "a")
    for packing in ("gz", "xz"):
        whole = PACKINGS[packing]("".join(f"{i * i}\n" for i in range(9999)).encode())
        (tmp_path / "b").write_bytes(whole[: len(whole) // 2])
        assert "b is truncated or damaged after line " in said(tmp_path / "b")
