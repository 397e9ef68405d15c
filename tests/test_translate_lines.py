"""`translate` on whatever a file may hold: a line out for every line in, in its order."""

import io
import sys
from types import SimpleNamespace

import flax.linen as nn
import jax
import numpy as np
import pytest

from zoo.cli import main
from zoo.data.batches.base import Seq2SeqBatch
from zoo.data.tokenizers import WordVocabulary
from zoo.decoding.beam import BeamConfig
from zoo.decoding.translator import Translator
from zoo.models import registry

LINES = 10_000
TOO_LONG, NOT_UTF8 = 4_321, (17, 9_000)
# What other programs take for line breaks, characters outside the vocabulary, blanks of every kind.
SORTS = [
    *(f"in {n} days".encode() for n in range(23)),
    *(b"", b" ", "\u3000\t".encode(), "in 5 \U0001f600 days".encode(), "👩‍👩‍👧 👍🏽".encode()),
    *(b"in 2 days\r", "in\u20282\u2029days".encode(), b"in\x0c3\x0bdays\x1c", "in\x857 days".encode(), b"\rin 4 days"),
    *(b"in\x002 days", "\u202ein 3 days\u202c".encode(), b"<pad> </s> <s> <unk>", "i\u0301n 1".encode()),
]  # fmt: skip


def given() -> list[bytes]:
    """10,000 lines of all sorts, each sort at many places among different neighbours."""
    lines = [SORTS[(i * i + i // 7) % len(SORTS)] for i in range(LINES)]
    lines[TOO_LONG - 1] = b"in 3 days " * 2000
    for number in NOT_UTF8:
        lines[number - 1] = b"in \xff\xfe3 days"
    return lines


@pytest.fixture(scope="module")
def translate(workdir):
    """`translate(lines)`: the lines of standard output and of standard error."""

    def run(lines: list[bytes]) -> tuple[list[str], list[str]]:
        out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.StringIO()
        stdin = SimpleNamespace(buffer=io.BytesIO(b"\n".join(lines) + b"\n"), isatty=lambda: False)
        with pytest.MonkeyPatch.context() as patch:
            for name, stream in (("stdin", stdin), ("stdout", out), ("stderr", err)):
                patch.setattr(sys, name, stream)
            assert main(["translate", str(workdir), "--max-length=6", "--beam=1", "--batch-tokens=8192"]) == 0
        text = out.buffer.getvalue().decode()
        assert text.endswith("\n")
        return text[:-1].split("\n"), err.getvalue().splitlines()

    return run


@pytest.fixture(scope="module")
def translated(translate):
    return translate(given())


def test_ten_thousand_lines_in_are_ten_thousand_lines_out(translated):
    assert len(translated[0]) == LINES


def test_equal_lines_have_equal_translations_wherever_they_stand(translated):
    by_line = {}
    for line, translation in zip(given(), translated[0], strict=True):
        by_line.setdefault(line, set()).add(translation)
    assert len(by_line) == len(SORTS) + 2
    assert all(len(translations) == 1 for translations in by_line.values())
    assert len(set.union(*by_line.values())) > 3  # or the order would prove nothing


def test_a_line_is_translated_as_it_is_alone(translate, translated):
    lines, out = given(), dict(zip(given(), translated[0], strict=True))
    for line in (*SORTS[20:], lines[TOO_LONG - 1], lines[NOT_UTF8[0] - 1]):
        assert translate([line])[0] == [out[line]]


def test_blank_lines_stay_empty(translated):
    for line, translation in zip(given(), translated[0], strict=True):
        if not line.decode(errors="replace").strip():
            assert translation == ""


def test_a_carriage_return_at_the_end_changes_nothing(translated):
    out = dict(zip(given(), translated[0], strict=True))
    assert out[b"in 2 days\r"] == out[b"in 2 days"]


def test_what_is_cut_or_cannot_be_read_is_named_by_its_line_and_nothing_else_is_unreadable(translated):
    _, err = translated
    unreadable = [line for line in err if "not UTF-8" in line]
    assert [line.split()[3] for line in unreadable] == [str(number) for number in NOT_UTF8]
    cut = [line for line in err if f"line {TOO_LONG} has" in line]
    assert len(cut) == 1
    assert "only the first 6 are translated" in cut[0]


def test_n_best_holds_only_what_the_beam_has_found():
    """At most one of ten words and <unk>: twelve translations are possible, the empty one among them."""
    words = WordVocabulary([f"w{i}" for i in range(10)])
    config = BeamConfig(beam_size=20, max_length=1, length_penalty=0.0)
    shape = {"layers": 1, "width": 16, "ffn": 16, "heads": 2}
    tiny = registry.build("transformer", "tiny", source_vocabulary=14, target_vocabulary=14, **shape)
    params = nn.unbox(
        jax.jit(tiny.init)(jax.random.key(0), Seq2SeqBatch(*(np.ones((1, 2), np.int32) for _ in range(3))))
    )["params"]
    (best,) = Translator(tiny, params, words, words, config)(["w1"])
    assert len({tuple(translation.tokens) for translation in best}) == len(best) == 12
    assert all(translation.score > -100 for translation in best)
