"""The scores of a working directory on a split, or on other data."""

from collections.abc import Sequence
from os import PathLike
from typing import Any

from zoo.decoding.alignment import alignment_error_rate, forced_links
from zoo.errors import UserError
from zoo.storage import output, write_output
from zoo.tasks import label_reports, metrics, zero_shot
from zoo.workdirs import Workdir


def score(
    workdir: Workdir,
    split: str = "test",
    location: str = "",
    predictions: str | PathLike | None = None,
    glue: bool = False,
) -> dict[str, Any]:
    """The values of the task's evaluation on `split`, or on the data at `location`, and what they were measured on.

    If the true alignment of the data is known and the model has attention, `alignment_error_rate` is that of the forced
    alignment of the references by attention. It links each target word to one source word, so 0 may be out of reach.

    A classifier also has the scores of `zoo.tasks.label_reports.report`. Its `predictions` are written to a file, a row
    for each row of the data, in its order, labelled or not: see `label_reports.rows`.

    Raises `UserError` where there is no such data or no such checkpoint.
    """
    classifies = workdir.experiment.command == "classify"
    if predictions is not None and not classifies:
        raise UserError(f"--predictions={predictions}: {workdir.path} holds no classifier: leave it out")
    if predictions is not None:
        predictions = output(predictions)  # before the work
    evaluation = workdir.task.evaluate(workdir.model, workdir.params, split, location)
    if predictions is not None:
        write_output(predictions, label_reports.rows(evaluation.predictions, glue).encode())
    measured = {
        "split": split,
        "data": location or getattr(workdir.experiment.data, split),
        "checkpoint": workdir.checkpoint,
        "step": workdir.step,
    }
    beside = _alignment(workdir, split, location)
    if classifies:
        beside = label_reports.report(evaluation.predictions, workdir.experiment.data.format.scores)
    return measured | evaluation.measured | evaluation.values | beside


def score_zero_shot(workdir: Workdir, location: str, form: str = "", stride: int = 0) -> dict[str, Any]:
    """The zero-shot scores of a language model on the data at `location`: `zero_shot.of_rows` for rows, or if `form`
    names their format, else `zero_shot.of_text` with this `stride`.

    Raises `UserError` where there is no such data or no such checkpoint.
    """
    rows = form != zero_shot.TEXT if form else zero_shot.has_rows(location)
    if stride and rows:
        raise UserError(f"stride={stride} is for text, and {location} holds rows: leave it out, or use --format=text")
    documents = None if rows else workdir.task.documents("test", location)
    likelihood = workdir.task.likelihood(workdir.model, workdir.params)
    if documents is None:
        evaluation = zero_shot.of_rows(location, form, likelihood)
    else:
        evaluation = zero_shot.of_text(documents, stride, likelihood)
    return {"data": location, "checkpoint": workdir.checkpoint, "step": workdir.step} | (
        evaluation.measured | evaluation.values
    )


def _alignment(workdir: Workdir, split: str, location: str) -> dict[str, float]:
    if workdir.experiment.command != "translate":
        return {}
    true = workdir.task.alignments(split, location)
    if true is None:
        return {}
    pairs, tokens = list(workdir.task.pairs(split, location)), workdir.experiment.data.batch_tokens
    links = forced_links(workdir.model, workdir.params, pairs, *workdir.task.tokenizers, tokens)
    return {} if links is None else {"alignment_error_rate": alignment_error_rate(links, true)}


def table(scores: dict[str, Any]) -> str:
    """The result of `score` or `score_zero_shot` as text: what was measured in the first line, then a value per line,
    BLEU with its signature."""
    direction = scores.get("direction", "").replace("-", "→", 1)
    counts = [f"{scores[what]:,} {what}" for what in ("sentences", "examples", "documents", "tokens") if what in scores]
    stride = [f"stride {scores['stride']}"] if "stride" in scores else []
    data = f"{scores['split'] if 'split' in scores else scores['format']} ({scores['data']})"
    lines = [", ".join([data, *filter(None, [direction]), *counts, *stride, f"step {scores['step']}"])]
    width = max(20, *map(len, scores))
    for name, value in scores.items():
        if isinstance(value, float):
            signature = scores.get(f"{name}_signature")
            beside = f"  {direction} {signature}" if signature else label_reports.beside(scores, name)
            lines.append(f"  {name:{width}} {value:9.4f}{beside}")
    return "\n".join([*lines, *label_reports.text(scores)])


def by_length(workdirs: Sequence[Workdir], split: str = "test", location: str = "") -> dict[str, Any]:
    """BLEU against the length of the source, after Bahdanau et al. 2015, Figure 2: the `bins`, and for every working
    directory, by its path, the corpus BLEU of each bin.

    Raises `UserError` unless all of them translate the same sentences.
    """
    one, *others = workdirs
    data, pairs = one.experiment.data, list(one.task.pairs(split, location))
    for other in others:
        if _direction(other) != _direction(one):
            raise UserError(
                f"{other.path} translates {_direction(other)} and {one.path} {_direction(one)}: compare those of one "
                "direction"
            )
        if list(other.task.pairs(split, location)) != pairs:
            raise UserError(f"{other.path} has other {split} data than {one.path}: name one for all, --data=PATH")
    bins = metrics.length_bins([source for source, _ in pairs])
    tokenizer = one.task.bleu_tokenizer()
    bleu, signature = {}, ""
    for each in workdirs:
        samples = each.task.translated(each.model, each.params, split, location)
        bleu[str(each.path)], signature = metrics.bleu_of_bins(samples, bins, tokenizer)
    return {
        "split": split,
        "data": location or getattr(data, split),
        "direction": _direction(one),
        "bins": [{"first": b.first, "last": b.last, "sentences": len(b.sentences)} for b in bins],
        "bleu": bleu,
        "bleu_signature": signature,
    }


def _direction(workdir: Workdir) -> str:
    return f"{workdir.experiment.data.source}-{workdir.experiment.data.target}"


def length_table(scores: dict[str, Any]) -> str:
    """The result of `by_length` as text: a line per bin, a column per working directory, and the signature."""
    names = list(scores["bleu"])
    rows = [["words", "sentences", *names]]
    for i, b in enumerate(scores["bins"]):
        words = f"{b['first']}-{b['last']}" if b["last"] > b["first"] else str(b["first"])
        rows.append([words, f"{b['sentences']:,}", *(f"{scores['bleu'][name][i]:.1f}" for name in names)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    direction = scores["direction"].replace("-", "→", 1)
    return "\n".join([*lines, f"BLEU {direction} {scores['split']} ({scores['data']}) {scores['bleu_signature']}"])
