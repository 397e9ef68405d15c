"""Labelled examples: the tables of GLUE, Story Cloze's, and TensorFlow datasets, read by the names of their columns.

The tasks are those of Radford et al. 2018, table 1, and of GLUE (Wang et al. 2018, table 1), whose scores they take.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zoo.data.examples.tfds import TfdsRows
from zoo.data.text import files
from zoo.data.text.objects import Objects
from zoo.data.text.tables import Table
from zoo.errors import UserError


@dataclass(frozen=True)
class Example:
    """`first` is a text, a premise or a context; `seconds` is empty, a second text, or the answers to choose from.
    `label` is `None` if there is none. `place` is the file and line of the example."""

    first: str
    seconds: tuple[str, ...] = ()
    label: str | None = None
    place: str = field(default="", compare=False)


# "-": SNLI and MNLI, where annotators did not agree; "-1": what TFDS and the Hub write into GLUE's test files.
NO_LABEL = ("-", "", "-1")


@dataclass(frozen=True)
class Format:
    """How the examples of a task are written, and by what they are scored.

    `kind` is one of `zoo.data.ids.transformations.TRANSFORMATIONS`. `first` and `seconds` are columns of text, those of
    `first` joined by spaces. `header` is for files without one. `names` are the labels in the order of TFDS's numbers;
    without names, the labels are those of the data, or `numbers` to predict. `unlabelled` is what files write for a
    missing label. `tfds` renames the columns that have other names in TFDS.
    """

    kind: str
    first: tuple[str, ...]
    seconds: tuple[str, ...]
    label: str
    names: tuple[str, ...]
    scores: tuple[str, ...] = ("accuracy",)
    header: tuple[str, ...] = ()
    numbers: bool = False
    unlabelled: tuple[str, ...] = NO_LABEL
    tfds: Mapping[str, str] = field(default_factory=dict)

    @property
    def regression(self) -> bool:
        return self.numbers

    @property
    def answers(self) -> int:
        """How many sequences are compared."""
        return len(self.names) if self.kind == "multiple_choice" else 1

    @property
    def orders(self) -> int:
        """In how many orders each sequence is read."""
        return 2 if self.kind == "similarity" else 1

    @property
    def outputs_per_answer(self) -> int:
        """The outputs for each answer or text: 1 to compare answers by, or for a regression; 0 stands for one per
        label."""
        return 1 if self.regression or self.kind == "multiple_choice" else 0


BINARY, ENTAILMENT = ("0", "1"), ("entailment", "not_entailment")
THREE_WAY = ("entailment", "neutral", "contradiction")
SENTENCES = (("sentence1",), ("sentence2",))
PREMISE = {"sentence1": "premise", "sentence2": "hypothesis", "gold_label": "label"}
BOTH, CORRELATIONS = ("accuracy", "f1"), ("pearson", "spearman")
CONTEXT = ("InputSentence1", "InputSentence2", "InputSentence3", "InputSentence4")
ENDINGS = ("RandomFifthSentenceQuiz1", "RandomFifthSentenceQuiz2")

FORMATS: dict[str, Format] = {
    "cola": Format(
        "classification",
        ("sentence",),
        (),
        "label",
        BINARY,
        ("matthews",),
        header=("source", "label", "mark", "sentence"),
    ),
    "sst2": Format("classification", ("sentence",), (), "label", BINARY),
    "stsb": Format("similarity", *SENTENCES, "score", (), CORRELATIONS, numbers=True, tfds={"score": "label"}),
    "mrpc": Format(
        "similarity",
        ("#1 String",),
        ("#2 String",),
        "Quality",
        BINARY,
        BOTH,
        tfds={"#1 String": "sentence1", "#2 String": "sentence2", "Quality": "label"},
    ),
    "qqp": Format(
        "similarity", ("question1",), ("question2",), "is_duplicate", BINARY, BOTH, tfds={"is_duplicate": "label"}
    ),
    "mnli": Format("entailment", *SENTENCES, "gold_label", THREE_WAY, tfds=PREMISE),
    "snli": Format("entailment", *SENTENCES, "gold_label", THREE_WAY, tfds=PREMISE),
    "qnli": Format("entailment", ("question",), ("sentence",), "label", ENTAILMENT),
    "rte": Format("entailment", *SENTENCES, "label", ENTAILMENT),
    "wnli": Format("entailment", *SENTENCES, "label", BINARY),
    "race": Format("multiple_choice", ("article", "questions"), ("options",), "answers", ("A", "B", "C", "D")),
    "storycloze": Format("multiple_choice", CONTEXT, ENDINGS, "AnswerRightEnding", ("1", "2")),
    # Your own data: data.columns names its columns, and its labels are those of the training split.
    "own": Format("classification", ("text",), (), "label", (), unlabelled=("",)),
}
ROLES = ("text", "text2", "label", "number")


def with_columns(form: Format, columns: str) -> Format:
    """The format with its texts and label in other columns: `text:NAME,label:NAME`, with `text2:NAME` for pairs;
    `number:NAME` instead of a label makes the task a regression.

    Raises `UserError` for an unknown or missing role, and for one that does not fit the task.
    """
    roles = {}
    for part in filter(None, columns.split(",")):
        role, colon, name = part.partition(":")
        if not colon or not name or role not in ROLES or role in roles:
            raise UserError(f"data.columns={columns!r}: write ROLE:COLUMN,..., each of {', '.join(ROLES)} at most once")
        roles[role] = name
    if "text" not in roles or ("label" in roles) == ("number" in roles):
        raise UserError(f"data.columns={columns!r}: name the columns of text and of either label or number")
    seconds = (roles["text2"],) if "text2" in roles else ()
    changed = replace(form, first=(roles["text"],), seconds=seconds, header=(), tfds={})
    if form.names or form.numbers:
        if len(seconds) != len(form.seconds) or ("number" in roles) != form.numbers:
            raise UserError(f"data.columns={columns!r} does not fit the task, which reads {_expected(form)}")
        return replace(changed, label=roles.get("label", roles.get("number")))
    kind = "entailment" if seconds else "classification"
    if "number" in roles:
        return replace(changed, kind=kind, label=roles["number"], numbers=True, scores=CORRELATIONS)
    return replace(changed, kind=kind, label=roles["label"])


def _expected(form: Format) -> str:
    return ", ".join(["text", *["text2"] * len(form.seconds), "number" if form.numbers else "label"])


def read(
    form: Format, location: str, split: str, labelled: bool, download: bool = False, skip_malformed: bool = False
) -> Iterable[Example]:
    """The examples of a format at `location`: a table with tabs, a `.csv`, a `.jsonl` of objects, `tfds:NAME` or
    `tfds:DIRECTORY` (these also read `split`). With `labelled`, the column of the label must exist; single examples may
    still have no label. With `skip_malformed`, rows that do not fit the header are left out and counted.

    Raises `UserError` if there is no such data.
    """
    if location.startswith("tfds:"):
        return TfdsExamples(form, location.removeprefix("tfds:"), split, download)
    return TableExamples(form, location, labelled, skip_malformed)


class TableExamples:
    """The examples of a table, one per row."""

    def __init__(self, form: Format, path: str | Path, labelled: bool, skip_malformed: bool = False):
        """Raises `UserError` if there is no such file."""
        self.form, self.labelled = form, labelled
        jsonl = files.bare(str(path)).endswith(".jsonl")
        self._table: Table | Objects = (
            Objects(path, skip_malformed) if jsonl else Table(path, form.header, skip_malformed=skip_malformed)
        )

    def __iter__(self) -> Iterator[Example]:
        """Raises `UserError` as `Table.rows` does."""
        form = self.form
        has_label = self.labelled or form.label in self._table.columns()
        texts, count = (*form.first, *form.seconds), len(form.first)
        for number, cells in self._table.rows((*texts, form.label) if has_label else texts):
            label = cells.pop().strip() if has_label else None
            label = None if label in form.unlabelled else label
            yield Example(" ".join(cells[:count]), tuple(cells[count:]), label, f"{self._table.path}:{number}")


class TfdsExamples:
    """The examples of a prepared TensorFlow dataset."""

    def __init__(self, form: Format, location: str, split: str, download: bool):
        """Raises `UserError` as `TfdsRows` does."""
        self.form = form
        self.columns = [form.tfds.get(c, c) for c in (*form.first, *form.seconds, form.label)]
        self._rows = TfdsRows(location, self.columns, split, download=download)

    def __iter__(self) -> Iterator[Example]:
        *texts, label = self.columns
        count = len(self.form.first)
        for number, row in enumerate(self._rows):
            if self.form.kind == "multiple_choice":
                yield from _questions(*(row[column] for column in self.columns))
            else:
                first, seconds = (tuple(_text(row[c]) for c in part) for part in (texts[:count], texts[count:]))
                yield Example(" ".join(first), seconds, self._label(row[label]), f"example {number} of the dataset")

    def _label(self, value: Any) -> str | None:
        """-1 stands for a hidden label."""
        if value < 0:
            return None
        return f"{value:g}" if self.form.regression else self.form.names[int(value)]


def _questions(article: bytes, questions: Any, options: Any, answers: Any) -> Iterator[Example]:
    """RACE (Lai et al. 2017): several questions about one article, each with four answers."""
    for question, choices, answer in zip(questions, options, answers, strict=True):
        yield Example(f"{_text(article)} {_text(question)}", tuple(map(_text, choices)), _text(answer))


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
