"""Zero-shot tests of a language model, in the formats of the public test sets: the last word of a passage, minimal
pairs, the likeliest of several choices, and the perplexity of any text."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath

from zoo.data.text import files
from zoo.data.text.objects import json_object
from zoo.decoding.likelihood import Likelihood
from zoo.errors import UserError
from zoo.storage import expanded
from zoo.tasks import metrics

ROWS = ".jsonl"


@dataclass(frozen=True)
class Row:
    """A line of a file: its place, as FILE:NUMBER, and its fields."""

    place: str
    fields: dict[str, Any]


Files = dict[str, list[Row]]  # by their names without ending
Values = dict[str, float]


def last_words(by_name: Files, likelihood: Likelihood) -> Values:
    """LAMBADA (Paperno et al. 2016): the share of passages whose last word is the greedy continuation of the rest, and
    the perplexity of the last words."""
    pairs = [_last_word(row) for row in _all(by_name)]
    words = likelihood.continuations(pairs, [row.place for row in _all(by_name)])
    loss = -np.mean([word.log_probability for word in words])
    return {
        "accuracy": float(np.mean([word.most_likely.all() for word in words])),
        "perplexity": float(np.exp(min(loss, 700.0))),
    }


def _last_word(row: Row) -> tuple[str, str]:
    text = row.fields["text"].rstrip()
    words = text.split()
    if len(words) < 2:
        raise UserError(f"{row.place}: {text[:40]!r} has no word before its last: write whole passages")
    before = text[: -len(words[-1])].rstrip()
    return before, text[len(before) :]


def minimal_pairs(by_name: Files, likelihood: Likelihood) -> Values:
    """BLiMP (Warstadt et al. 2020): the share of pairs whose good sentence is more likely than the bad one; with
    several files, the share of each and the mean over them."""
    rows = list(_all(by_name))
    sentences = [("", row.fields[field]) for row in rows for field in FORMATS["blimp"].fields]
    scored = likelihood.continuations(sentences, [row.place for row in rows for _ in range(2)])
    right = iter([good.log_probability > bad.log_probability for good, bad in zip(*[iter(scored)] * 2, strict=True)])
    shares = {name: float(np.mean([next(right) for _ in rows])) for name, rows in by_name.items()}
    each = {f"accuracy/{name}": share for name, share in shares.items()} if len(by_name) > 1 else {}
    return {"accuracy": float(np.mean(list(shares.values())))} | each


def choices(by_name: Files, likelihood: Likelihood) -> Values:
    """The share of rows whose `answer`, an index from 0, is the likeliest of the `choices` after the `context`: by the
    choice's log-probability, the same per token, and per UTF-8 byte. A space joins context and choice unless one of
    them has white space there.
    """
    rows = list(_all(by_name))
    pairs = [(row.fields["context"], choice) for row in rows for choice in _choices(row)]
    scored = iter(
        likelihood.continuations(
            [(context, _apart(context, choice)) for context, choice in pairs],
            [row.place for row in rows for _ in row.fields["choices"]],
        )
    )
    right = []
    for row in rows:
        sizes = [len(choice.encode()) for choice in row.fields["choices"]]
        predicted = [next(scored) for _ in sizes]
        total = np.array([each.log_probability for each in predicted])
        tokens = np.array([max(1, len(each.log_probabilities)) for each in predicted])
        right.append([np.argmax(total / by) == row.fields["answer"] for by in (1, tokens, np.array(sizes))])
    shares = np.mean(right, axis=0).tolist()
    return dict(zip(("accuracy", "accuracy_per_token", "accuracy_per_byte"), shares, strict=True))


def _choices(row: Row) -> list[str]:
    found, answer = row.fields["choices"], row.fields["answer"]
    if len(found) < 2 or not all(isinstance(choice, str) and choice.strip() for choice in found):
        raise UserError(f"{row.place}: choices={found}: give two texts or more, none of them empty")
    if not 0 <= answer < len(found):
        raise UserError(f"{row.place}: answer={answer}: give the index of a choice, from 0 to {len(found) - 1}")
    return found


def _apart(context: str, choice: str) -> str:
    joined = not context or context[-1].isspace() or choice[0].isspace()
    return choice if joined else f" {choice}"


@dataclass(frozen=True)
class Format:
    """The fields of a row with their types, and the measurement."""

    fields: dict[str, type]
    measure: Callable[[Files, Likelihood], Values]


TEXT = "text"  # the format without rows
FORMATS = {
    "lambada": Format({"text": str}, last_words),
    "blimp": Format({"sentence_good": str, "sentence_bad": str}, minimal_pairs),
    "choice": Format({"context": str, "choices": list, "answer": int}, choices),
}


def of_rows(location: str, name: str, likelihood: Likelihood) -> metrics.Evaluation:
    """Evaluate the rows at `location`: a .jsonl file, a folder or a pattern of such files, or passages of plain text
    for LAMBADA, one per line. Without a `name`, the fields of the first row decide the format.

    Raises `UserError`, with the number of the line, for a file that does not fit.
    """
    paths = _paths(location)
    stems = [epath.Path(files.bare(path.name)).stem for path in paths]
    names = (path.name if stems.count(stem) > 1 else stem for path, stem in zip(paths, stems, strict=True))
    rows = {each: _rows(path) for each, path in zip(names, paths, strict=True)}
    name = name or _recognised(next(_all(rows)))
    for row in _all(rows):
        _check(row, name)
    counts = {"format": name, "examples": sum(map(len, rows.values()))}
    return metrics.Evaluation(FORMATS[name].measure(rows, likelihood), [], measured=counts)


def of_text(documents: Iterable[str], stride: int, likelihood: Likelihood) -> metrics.Evaluation:
    """The perplexity of `documents` per token and per word, and their bits per byte. The window moves by `stride`
    tokens (0: half of it): every token is predicted once, from at least all but `stride` tokens of the window.

    Raises `UserError` if there is no text.
    """
    stride = stride or max(1, likelihood.context // 2)
    documents = [document for document in documents if document.strip()]
    if not documents:
        raise UserError("there is no text in it: name another file")
    parts = likelihood.documents(documents, stride)
    tokens, loss = sum(len(part.log_probabilities) for part in parts), -sum(part.log_probability for part in parts)
    values = {
        "loss": loss / tokens,
        "perplexity": float(np.exp(min(loss / tokens, 700.0))),
        "accuracy": sum(int(part.most_likely.sum()) for part in parts) / tokens,
    }
    counts = {"format": TEXT, "stride": stride, "documents": len(documents), "tokens": tokens}
    return metrics.Evaluation(values | metrics.language(loss, documents), [], measured=counts)


def has_rows(location: str) -> bool:
    """Whether `location` names files of rows, and not text."""
    path = epath.Path(expanded(location))
    return _of_rows(path) or (path.is_dir() and any(map(_of_rows, path.iterdir())))


def _of_rows(path: epath.Path) -> bool:
    return files.bare(path.name).endswith(ROWS)


def _paths(location: str) -> Sequence[epath.Path]:
    path = epath.Path(expanded(location))
    if path.is_dir():
        found = sorted(filter(_of_rows, path.iterdir()))
    else:
        found = [file] if (file := files.find(path)) else sorted(path.parent.glob(path.name))
    if not found:
        raise UserError(f"no file {location}: name a {ROWS} file, a folder or a pattern of such, or a text")
    return found


def _rows(path: epath.Path) -> list[Row]:
    places = ((f"{path}:{number}", line) for number, line in enumerate(files.lines(path), 1) if line.strip())
    rows = [Row(place, json_object(place, line) if _of_rows(path) else {"text": line}) for place, line in places]
    if not rows:
        raise UserError(f"{path} is empty: name a file with a row on each line")
    return rows


def _recognised(row: Row) -> str:
    for name, form in FORMATS.items():
        if form.fields.keys() <= row.fields.keys():
            return name
    known = "; ".join(f"{name}: {', '.join(form.fields)}" for name, form in FORMATS.items())
    raise UserError(f"{row.place}: its fields, {', '.join(row.fields)}, fit no known format ({known})")


def _check(row: Row, name: str) -> None:
    for field, kind in FORMATS[name].fields.items():
        if field not in row.fields:
            raise UserError(f"{row.place}: no field {field!r} for {name}; there are: {', '.join(row.fields)}")
        if type(row.fields[field]) is not kind:
            raise UserError(f"{row.place}: {field}={row.fields[field]!r} is not of type {kind.__name__}")


def _all(by_name: Files) -> Iterator[Row]:
    return (row for rows in by_name.values() for row in rows)
