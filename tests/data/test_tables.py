"""The laws of tables: cells are under the names of the header, and what does not fit is told by file and line."""

import logging

import pytest

from zoo.data.text.tables import Table
from zoo.errors import UserError


@pytest.fixture
def table(tmp_path):
    """`table(text, name)`: the table of a file with this text."""

    def write(text: str, name: str = "x.tsv", **options: object) -> Table:
        (tmp_path / name).write_bytes(text.encode())
        return Table(tmp_path / name, **options)

    return write


def said(rows) -> str:
    with pytest.raises(UserError) as caught:
        list(rows)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_cells_are_found_by_the_names_of_their_columns(table):
    found = table('label\ttext\tmark\n1\t"a\t*\r\n0\tb"\t\n')
    assert list(found.rows(["text", "label"])) == [(2, ['"a', "1"]), (3, ['b"', "0"])]
    assert list(found.rows()) == [(2, ["1", '"a', "*"]), (3, ["0", 'b"', ""])]


def test_a_csv_may_quote_commas_and_line_breaks(table):
    found = table('text,label\n"a, ""b""\nc",1\n\nd,0\n', "x.csv", skip_malformed=True)
    assert list(found.rows()) == [(2, ['a, "b"\nc', "1"]), (5, ["d", "0"])]


@pytest.mark.parametrize("name", ["x.tsv", "x.csv"])
@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\n \n\n", "\r\n\r\n"])
def test_blank_lines_at_the_end_are_not_rows(table, name, end):
    comma = "," if name == "x.csv" else "\t"
    assert list(table(f"a{comma}b\n1{comma}2{end}", name).rows()) == [(2, ["1", "2"])]
    headless = table(f"1{comma}2{end}", name, header=("a", "b"), headless=True)
    assert list(headless.rows()) == [(1, ["1", "2"])]


@pytest.mark.parametrize(
    ("name", "text", "line", "problem"),
    [
        ("x.tsv", "a\tb\n1\t2\n1\t2\t3\n4\t5\n", 3, "3 columns where the header has 2"),
        ("x.tsv", "a\tb\n1\t2\n1\n4\t5\n", 3, "1 column where the header has 2"),
        ("x.tsv", "a\tb\n1\t2\n\n4\t5\n", 3, "1 column where the header has 2"),
        ("x.csv", "a,b\n1,2\n1,2,3\n4,5\n", 3, "3 columns where the header has 2"),
        ("x.csv", 'a,b\n1,2\n"1,2\n4,5\n', 3, "quotes"),
        ("x.csv", 'a,b\n1,2\n"1"2,3\n4,5\n', 3, "quotes"),
        pytest.param("x.csv", 'a,b\n1,2\n"1,2\n' + f"1,{'2' * 400}\n" * 400 + "4,5\n", 3, "quotes", id="a long rest"),
    ],
)
def test_a_row_that_does_not_fit_is_reported_or_skipped_and_counted(
    table, caplog, monkeypatch, name, text, line, problem
):
    told = said(table(text, name).rows())
    assert f"{name}:{line}: " in told and problem in told and "skip_malformed" in told
    monkeypatch.setattr(logging.getLogger("zoo"), "propagate", True)
    rows = list(table(text, name, skip_malformed=True).rows())
    assert rows[0] == (2, ["1", "2"]) and rows[-1][1] == ["4", "5"]
    assert len(rows) == text.count("\n") - 2
    assert f"{name}: malformed rows left out: 1, the first in line {line}" in caplog.text


def test_a_file_that_may_lack_a_header_has_one_if_it_names_a_column(table):
    header = ("source", "label", "mark", "text")
    assert list(table("gj\t1\t\tYes.\n", header=header).rows(["text"])) == [(1, ["Yes."])]
    assert list(table("index\ttext\n0\tYes.\n", header=header).rows(["text"])) == [(2, ["Yes."])]
    assert "x.tsv:1: 2 columns where the header has 4" in said(table("gj\t1\n", header=header).rows())


def test_columns_that_cannot_be_found_are_reported(table):
    assert "no column 'c': it has a, b" in said(table("a\tb\n1\t2\n").rows(["c"]))
    assert "more than one column 'a'" in said(table("a\ta\n1\t2\n").rows(["a"]))
    assert "is empty" in said(table("a\tb\n").rows()) and "is empty" in said(table("\n").rows())
