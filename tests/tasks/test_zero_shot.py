"""The formats of zero-shot evaluation: what is right is what is likelier, and a mistake names its line."""

import gzip
import json
import lzma
import math

import numpy as np
import pytest

from zoo.decoding.likelihood import Likelihood, Predicted
from zoo.errors import UserError
from zoo.tasks import zero_shot


class Strict(Likelihood):
    """Three bytes are a token, and each costs 1 nat, or 4 with a "?" among them; the most likely are those without."""

    def __init__(self):
        self.context = 64

    def continuations(self, pairs, names):
        assert len(pairs) == len(names)
        self.asked = list(pairs)
        texts = [text.encode() for _, text in pairs]
        tokens = [[text[i : i + 3] for i in range(0, len(text), 3)] for text in texts]
        return [
            Predicted(
                np.array([-4.0 if b"?" in token else -1.0 for token in row]), np.array([b"?" not in t for t in row])
            )
            for row in tokens
        ]


@pytest.fixture
def measured(tmp_path):
    """What rows, the contents of files by their names, measure."""

    def run(name="", where="", **files):
        for stem, rows in files.items():
            (tmp_path / f"{stem}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        model = Strict()
        found = zero_shot.of_rows(str(tmp_path / where), name, model)
        return found.values, found.measured, model.asked

    return run


def test_the_last_word_is_right_where_all_its_tokens_are_the_most_likely(measured):
    rows = [{"text": "one two  three\n"}, {"text": "one fo?ur"}, {"text": "a 12345?"}, {"text": "a b"}]
    values, counts, asked = measured(rows=rows)
    assert asked == [("one two", "  three"), ("one", " fo?ur"), ("a", " 12345?"), ("a", " b")]
    assert values["accuracy"] == 0.5
    assert values["perplexity"] == pytest.approx(math.exp((3 + 5 + 6 + 1) / 4))
    assert counts == {"format": "lambada", "examples": 4}


def test_passages_may_be_lines_of_plain_text(measured, tmp_path):
    (tmp_path / "passages.txt").write_text("one two\n\nthree four\n", encoding="utf-8")
    assert measured("lambada", "passages.txt")[1:] == (
        {"format": "lambada", "examples": 2},
        [("one", " two"), ("three", " four")],
    )


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_compressed_rows_measure_the_same(measured, tmp_path, pack):
    rows = [{"text": "one two"}, {"text": "one fo?ur"}]
    plain = measured(rows=rows)
    packed = pack((tmp_path / "rows.jsonl").read_bytes())
    (tmp_path / "rows.jsonl").unlink()
    for name in ("rows.jsonl.gz", "rows.jsonl.xz", "rows.jsonl"):
        (tmp_path / name).write_bytes(packed)
        assert measured() == measured("", name) == plain
        (tmp_path / name).unlink()


@pytest.mark.parametrize("line", ['{"text": "a \\ud83d b"}', "[" * 100_000, '{"text": ' + "9" * 10_000 + "}"])
def test_json_that_is_not_text_is_reported_with_its_line(measured, tmp_path, line):
    (tmp_path / "rows.jsonl").write_text(f'{{"text": "a b"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"rows.jsonl:2: ") as caught:
        measured()
    assert "\n" not in str(caught.value)


def test_files_of_one_name_and_different_endings_are_both_measured(tmp_path):
    (tmp_path / "a.txt").write_text("one two\n")
    (tmp_path / "a.jsonl").write_text('{"text": "three four"}\n{"text": "five six"}\n')
    assert zero_shot.of_rows(f"{tmp_path}/a.*", "lambada", Strict()).measured["examples"] == 3


def test_a_minimal_pair_is_right_where_the_good_sentence_is_likelier_and_files_weigh_the_same(measured):
    def pair(good, bad):
        return {"sentence_good": good, "sentence_bad": bad}

    one = [pair("ok", "no?"), pair("no?", "ok"), pair("same", "same"), pair("ok", "longer")]
    values, counts, asked = measured(one=one, two=[pair("ok", "no?")])
    assert values == {"accuracy": 0.75, "accuracy/one": 0.5, "accuracy/two": 1.0}
    assert counts == {"format": "blimp", "examples": 5}
    assert asked[:2] == [("", "ok"), ("", "no?")]
    assert measured("", "two.jsonl")[0] == {"accuracy": 1.0}


def test_a_choice_is_right_in_all_by_token_and_by_byte(measured):
    rows = [
        {"context": "a", "choices": ["bcdef", "gh"], "answer": 1},  # 2 and 1 nats, of 2 and 1 tokens, 5 and 2 bytes
        {"context": "a ", "choices": ["b?", "c?defghi"], "answer": 1},  # 4 and 6 nats, 1 and 3 tokens, 2 and 8 bytes
        {"context": "a ", "choices": ["b", "cdefg?"], "answer": 1},  # 1 and 5 nats, 1 and 2 tokens, 1 and 6 bytes
    ]
    values, counts, asked = measured(rows=rows)
    expected = {"accuracy": 1 / 3, "accuracy_per_token": 1 / 3, "accuracy_per_byte": 2 / 3}
    assert values == pytest.approx(expected)
    assert asked[:4] == [("a", " bcdef"), ("a", " gh"), ("a ", "b?"), ("a ", "c?defghi")]
    assert counts["format"] == "choice"


PAIR = {"sentence_good": "a", "sentence_bad": "b"}
CHOICE = {"context": "a", "choices": ["b", "c"], "answer": 0}
MISTAKES = {
    "a field that is not there": ("blimp", [PAIR, {"sentence_good": "a", "good": 1}], r":2: no .*'sentence_bad'.*good"),
    "fields of no format": ("", [{"premise": "a"}], r":1: its fields, premise,.*blimp: sentence_good"),
    "a type": ("", [PAIR | {"sentence_good": 3}], r":1: sentence_good=3 is not of type str"),
    "an answer": ("", [CHOICE, CHOICE | {"answer": 2}], r":2: answer=2: .* from 0 to 1"),
    "one choice": ("", [CHOICE | {"choices": ["b"]}], r":1: choices=\['b'\]: give two"),
    "a word alone": ("", [{"text": "alone "}], r":1: 'alone' has no word before its last"),
    "no object": ("", [[1, 2]], r":1: \[1, 2\] is no object"),
    "nothing": ("", [], r"rows.jsonl is empty"),
}


@pytest.mark.parametrize(("name", "rows", "told"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_its_line_and_what_there_is(measured, name, rows, told):
    with pytest.raises(UserError, match=told):
        measured(name, rows=rows)


def test_a_line_that_is_not_json_and_a_missing_file_are_reported(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "a b"}\n\n{"text": \n', encoding="utf-8")
    with pytest.raises(UserError, match=r"rows.jsonl:3: no JSON, Expecting value at character 10"):
        zero_shot.of_rows(str(tmp_path), "", Strict())
    with pytest.raises(UserError, match=r"no file .*nowhere\.jsonl"):
        zero_shot.of_rows(str(tmp_path / "nowhere.jsonl"), "", Strict())


def test_a_text_is_measured_by_token_word_and_byte():
    class Sliding(Strict):
        def documents(self, documents, stride):
            self.stride = stride
            return [Predicted(np.array([-1.0, -3.0]), np.array([True, False])) for _ in documents]

    model = Sliding()
    found = zero_shot.of_text(["ab cd", " \n", "efg"], 0, model)
    assert model.stride == 32
    assert found.measured == {"format": "text", "stride": 32, "documents": 2, "tokens": 4}
    assert found.values["loss"] == 2 and found.values["accuracy"] == 0.5
    assert found.values["perplexity"] == pytest.approx(math.exp(2))
    assert found.values["bits_per_byte"] == pytest.approx(8 / math.log(2) / 8)
    assert found.values["word_perplexity"] == pytest.approx(math.exp(8 / 3))
    with pytest.raises(UserError, match="no text"):
        zero_shot.of_text(["\n"], 0, model)
