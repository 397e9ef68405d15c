"""The law of every reader: each row of a file comes out as it is, or one line says which file and where is wrong.

Files are drawn at random by a seed: their texts, their packing, and at most one fault. What is no fault (a byte order
mark, the ends of lines, compression, blank lines at the end) must change nothing.
"""

import csv
import gzip
import io
import json
import lzma
import random
import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from zoo.data.examples.documents import documents
from zoo.data.examples.labelled import FORMATS, with_columns
from zoo.data.examples.labelled import read as read_examples
from zoo.data.examples.pairs import parallel
from zoo.data.text.files import bare
from zoo.data.text.tables import Table
from zoo.errors import UserError
from zoo.tasks import zero_shot

ALPHABETS = ("abc deé", "αβγ δ", "日本 語", "a\u2028\x0b\x0c\x85 b", "😀 x", "a'\",|")
COMPRESSED = {"": lambda content: content, ".gz": gzip.compress, ".xz": lzma.compress}
FAULTS = (None, None, "width", "quote", "NUL", "UTF-16", "Latin-1", "cut", "JSON", "bytes")
SEED, FILES = 14, 300


@dataclass(frozen=True)
class Kind:
    """A kind of file: how its rows are written and read, and whether its first line is a header."""

    name: str
    cells: int
    write: Callable[[list[list[str]]], list[str]]
    read: Callable[[str, bool], list]
    header: tuple[str, ...] = ()


def between_tabs(rows: list[list[str]]) -> list[str]:
    return ["\t".join(row) for row in rows]


def between_commas(rows: list[list[str]]) -> list[str]:
    out = []
    for row in rows:
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(row)
        out.append(line.getvalue())
    return out


def objects(rows: list[list[str]]) -> list[str]:
    return [json.dumps({"text": row[0]}, ensure_ascii=len(row[0]) % 2 == 0) for row in rows]


def table(path: str, skip: bool) -> list:
    return [cells for _, cells in Table(path, skip_malformed=skip).rows()]


def examples(path: str, skip: bool) -> list:
    return [
        [e.first, *e.seconds, e.label] for e in read_examples(FORMATS["rte"], path, "train", True, skip_malformed=skip)
    ]


def examples_of_json(path: str, skip: bool) -> list:
    form = with_columns(FORMATS["own"], "text:text,label:text")
    return [[e.first] for e in read_examples(form, path, "train", True, skip_malformed=skip)]


def pairs(path: str, skip: bool) -> list:
    return list(map(list, parallel(path, "a", "b", skip_malformed=skip)))


def rows_of_json(path: str, skip: bool) -> list:
    (found,) = zero_shot._paths(path)
    return [[row.fields["text"]] for row in zero_shot._rows(found)]


def document(path: str, skip: bool) -> list:
    return [list(documents(path, "train"))]


def aligned(path: str, skip: bool) -> list:
    return [[first] for first, _ in parallel(path.partition(".a")[0], "a", "b")]


def plain(rows: list[list[str]]) -> list[str]:
    return [row[0] for row in rows]


KINDS = (
    Kind("a.tsv", 3, between_tabs, table, ("x", "y", "z")),
    Kind("a.csv", 3, between_commas, table, ("x", "y", "z")),
    Kind("rte.tsv", 3, between_tabs, examples, ("sentence1", "sentence2", "label")),
    Kind("pairs.tsv", 2, between_tabs, pairs),
    Kind("a.jsonl", 1, objects, rows_of_json),
    Kind("b.jsonl", 1, objects, examples_of_json),
    Kind("a.txt", 1, plain, document),
    Kind("aligned.a", 1, plain, aligned),
)


def drawn(rng: random.Random, kind: Kind) -> list[list[str]]:
    """Rows of text that no reader may change."""

    def text() -> str:
        found = "".join(rng.choices(rng.choice(ALPHABETS), k=rng.choice((1, 5, 30))))
        return f"{found.strip() or 'x'}{'.' * (rng.random() < 0.1) * 1000}"

    rows = [[text() for _ in range(kind.cells)] for _ in range(rng.randint(1, 12))]
    for row in rows if kind.read is examples else ():
        row[-1] = rng.choice(("entailment", "not_entailment"))
    return rows


def spoiled(rng: random.Random, kind: Kind, lines: list[str], fault: str | None) -> tuple[list[str], int]:
    """The lines with a fault in them, and the number of the one that has it."""
    at = rng.randrange(bool(kind.header), len(lines))
    separator = "," if kind.name.endswith(".csv") else "\t"
    change = {
        "width": lambda line: line + f"{separator}more" if kind.header else line.split(separator)[0],
        "quote": lambda line: f'"{line}',
        "NUL": lambda line: f"{line}\0",
        "JSON": lambda line: rng.choice(('{"text": "a \\udc00"}', "[" * 5000, "{", '{"text": "a"} b', "7")),
    }.get(fault, lambda line: line)
    return [change(line) if i == at else line for i, line in enumerate(lines)], at + 1


@pytest.mark.parametrize("part", range(10))
def test_a_file_is_read_whole_or_one_line_says_what_is_wrong(tmp_path, part):
    rng = random.Random(f"{SEED}-{part}")
    for number in range(FILES // 10):
        folder = tmp_path / str(number)
        folder.mkdir()
        check(rng, folder, rng.choice(KINDS), rng.choice(FAULTS))


def check(rng: random.Random, folder, kind: Kind, fault: str | None) -> None:
    of_table, skip = kind.name.endswith(("sv",)), rng.random() < 0.3
    if (fault == "width" and not of_table) or (fault == "JSON" and not kind.name.endswith("l")):
        fault = None
    rows = drawn(rng, kind)
    lines, at = spoiled(rng, kind, kind.write([list(kind.header)] * bool(kind.header) + rows), fault)
    end = rng.choice(("\n", "\r\n"))
    text = end.join(lines) + end * rng.choice((0, 1, 3) if of_table or kind.name.endswith("l") else (0, 1))
    expected = [[text]] if kind.name == "a.txt" else rows
    content = text.encode("utf-16" if fault == "UTF-16" else "utf-8")
    if fault == "Latin-1":
        content = text.encode("latin-1", errors="replace").replace(b"?", b"\xe9") + b"\xe9" * 9
    if fault is None and rng.random() < 0.3:
        content = b"\xef\xbb\xbf" + content
    ending = rng.choice(tuple(COMPRESSED)) if fault != "cut" else rng.choice((".gz", ".xz"))
    content = COMPRESSED[ending](content)
    if fault == "cut":
        content = content[: rng.randrange(8, len(content))]
    if fault == "bytes":
        content = bytes(rng.choice((byte, rng.randrange(256))) for byte in content)
    path = folder / (kind.name + rng.choice(("", ending)))
    path.write_bytes(content)
    (folder / "aligned.b").write_text("x\n" * len(rows), encoding="utf-8")

    asked = str(path) if rng.random() < 0.7 or kind.name == "aligned.a" else bare(str(path))
    try:
        found = kind.read(asked, skip)
    except UserError as error:
        told = str(error)
        assert "\n" not in told and "\r" not in told.replace("\\r", "")
        assert fault is not None, told
        if fault in ("width", "NUL", "JSON"):
            assert f"{path}:{at}: " in told
        elif fault not in ("bytes", "cut"):
            assert re.search(rf"{re.escape(str(path))}:\d+: ", told), told
        assert str(path).removesuffix(".a") in told
        return
    if fault in ("width", "JSON") and skip:
        assert found == rows[: at - 1 - bool(kind.header)] + rows[at - bool(kind.header) :]
    elif fault == "quote":
        assert len(found) in (len(expected), len(expected) - skip)
    else:
        assert fault in (None, "bytes"), fault
        assert fault or found == expected
