"""The laws of labelled examples: files read by the names of their columns, and mistakes told by file and line."""

import json

import numpy as np
import pytest

from zoo.data.examples.labelled import FORMATS, Example, TfdsExamples, read, with_columns
from zoo.errors import UserError

RTE = "index\tsentence1\tsentence2\tlabel\n"


def table(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_cola_has_no_header_but_for_its_test_file(tmp_path):
    train = table(tmp_path / "train.tsv", "gj04\t1\t\tWe yelled.\ngj04\t0\t*\tUs yelled.\n")
    test = table(tmp_path / "test.tsv", "index\tsentence\n0\tWe yelled.\n")
    assert list(read(FORMATS["cola"], train, "train", True)) == [
        Example("We yelled.", (), "1"),
        Example("Us yelled.", (), "0"),
    ]
    assert list(read(FORMATS["cola"], test, "test", False)) == [Example("We yelled.")]


def test_columns_are_found_by_their_names_and_quotes_are_text(tmp_path):
    path = table(tmp_path / "x.tsv", 'label\tindex\tsentence2\tsentence1\nentailment\t0\t"b\t"a" said\n')
    assert list(read(FORMATS["rte"], path, "train", True)) == [Example('"a" said', ('"b',), "entailment")]


@pytest.mark.parametrize("nothing", ["-", "", "-1"])
def test_examples_without_a_label_stay_in_their_place(tmp_path, nothing):
    path = table(tmp_path / "x.tsv", f"sentence1\tsentence2\tgold_label\na\tb\t{nothing}\nc\td\tneutral\n")
    assert list(read(FORMATS["snli"], path, "train", True)) == [Example("a", ("b",)), Example("c", ("d",), "neutral")]


def test_a_story_is_a_context_of_four_sentences_and_two_endings(tmp_path):
    header = [f"InputSentence{n}" for n in (1, 2, 3, 4)]
    header += ["RandomFifthSentenceQuiz1", "RandomFifthSentenceQuiz2", "AnswerRightEnding"]
    path = table(tmp_path / "x.csv", ",".join(header) + '\n"One, two.",B.,C.,D.,E.,"F ""g"".",2\n')
    assert list(read(FORMATS["storycloze"], path, "train", True)) == [
        Example("One, two. B. C. D.", ("E.", 'F "g".'), "2")
    ]


@pytest.mark.parametrize("task", FORMATS)
def test_a_file_with_the_columns_of_a_task_is_read(tmp_path, task):
    form = FORMATS[task]
    columns = form.header or (*form.first, *form.seconds, form.label)
    path = table(tmp_path / "x.tsv", "\t".join(columns) + "\n" + "\t".join(f"<{c}>" for c in columns) + "\n")
    (example,) = read(FORMATS[task], path, "train", True)
    assert example.first == " ".join(f"<{c}>" for c in form.first)
    assert example.seconds == tuple(f"<{c}>" for c in form.seconds)
    assert example.label == f"<{form.label}>"
    assert example.place == f"{path}:2"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("index\tsentence1\tlabel\n0\ta\tentailment\n", r"x.tsv has no column 'sentence2': it has index, sentence1"),
        ("sentence1\tsentence2\na\tb\n", r"x.tsv has no column 'label': it has sentence1, sentence2"),
        (RTE + "0\ta\tb\tentailment\n1\ta\n", r"x.tsv:3: 2 columns where the header has 4"),
        (RTE, r"x.tsv is empty"),
        ("", r"x.tsv is empty"),
    ],
)
def test_a_wrong_table_is_reported_with_its_name_and_line(tmp_path, text, told):
    path = table(tmp_path / "x.tsv", text)
    with pytest.raises(UserError, match=told):
        list(read(FORMATS["rte"], path, "train", True))


def test_a_missing_file_is_reported_with_what_there_is(tmp_path):
    table(tmp_path / "train.tsv", RTE)
    with pytest.raises(UserError, match=r"no file .*dev.tsv.*: beside it are train.tsv"):
        read(FORMATS["rte"], str(tmp_path / "dev.tsv"), "validation", True)


def of_tfds(task, *rows):
    """The examples of rows as TFDS gives them."""
    examples = TfdsExamples.__new__(TfdsExamples)
    form = FORMATS[task]
    examples.form, examples._rows = form, rows
    examples.columns = [form.tfds.get(c, c) for c in (*form.first, *form.seconds, form.label)]
    return list(examples)


def test_the_numbers_of_tfds_are_the_labels_of_the_tables():
    texts = {"premise": b"a", "hypothesis": b"b"}
    rows = [texts | {"label": np.int64(label)} for label in (0, 2, -1)]
    assert [example.label for example in of_tfds("mnli", *rows)] == ["entailment", "contradiction", None]
    assert of_tfds("mnli", rows[0])[0] == Example("a", ("b",), "entailment")
    scores = [{"sentence1": b"a", "sentence2": b"b", "label": np.float32(value)} for value in (2.5, -1.0)]
    assert [example.label for example in of_tfds("stsb", *scores)] == ["2.5", None]


def test_an_article_has_several_questions():
    row = {"article": b"Text.", "questions": [b"Who?", b"Why?"], "answers": [b"B", b"A"]}
    row["options"] = [[b"w", b"x", b"y", b"z"], [b"1", b"2", b"3", b"4"]]
    expected = [Example("Text. Who?", ("w", "x", "y", "z"), "B"), Example("Text. Why?", ("1", "2", "3", "4"), "A")]
    assert of_tfds("race", row) == expected


OWN = [("fine, really", "no", "3"), ("dull", "", "")]


def written(directory, ending):
    """The same rows in each layout: columns a, b and stars."""
    path = directory / f"x{ending}"
    if ending == ".jsonl":
        rows = [json.dumps({"stars": int(c) if c else None, "a": a, "b": b}) for a, b, c in OWN]
        path.write_text("\n".join(rows) + "\n\n")
    else:
        path.write_text("\n".join(["b,stars,a", *(f'{b},{c},"{a}"' for a, b, c in OWN)]) + "\n")
    return str(path)


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_own_columns_are_read_from_every_layout(tmp_path, ending):
    form = with_columns(FORMATS["own"], "text:a,text2:b,number:stars")
    assert (form.kind, form.regression, form.scores) == ("entailment", True, ("pearson", "spearman"))
    expected = [Example("fine, really", ("no",), "3"), Example("dull", ("",))]
    assert list(read(form, written(tmp_path, ending), "train", True)) == expected


def test_a_task_may_have_other_columns():
    form = with_columns(FORMATS["rte"], "text:p,text2:h,label:gold")
    assert (form.first, form.seconds, form.label, form.names) == (("p",), ("h",), "gold", FORMATS["rte"].names)


@pytest.mark.parametrize(
    ("task", "columns", "told"),
    [
        ("own", "text:a", "either label or number"),
        ("own", "text:a,label:b,number:c", "either label or number"),
        ("own", "txt:a,label:b", "write ROLE:COLUMN"),
        ("own", "text:a,text:b,label:c", "each of .* once"),
        ("rte", "text:a,label:b", "which reads text, text2, label"),
        ("stsb", "text:a,text2:b,label:c", "which reads text, text2, number"),
    ],
)
def test_columns_that_do_not_fit_are_reported(task, columns, told):
    with pytest.raises(UserError, match=told):
        with_columns(FORMATS[task], columns)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "no JSON"),
        ("[]", "no object"),
        ('{"text": "a"}', "no key 'label'"),
        ('{"text": [1], "label": 1}', "no text"),
    ],
)
def test_json_lines_that_do_not_fit_are_reported_or_left_out(tmp_path, line, told):
    path = table(tmp_path / "x.jsonl", '{"text": "a", "label": true}\n' + line + "\n")
    with pytest.raises(UserError, match=rf"x.jsonl:2: .*{told}"):
        list(read(FORMATS["own"], path, "train", True))
    assert list(read(FORMATS["own"], path, "train", True, skip_malformed=True)) == [Example("a", (), "true")]
