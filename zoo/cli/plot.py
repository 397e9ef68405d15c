"""`plot`: pictures of working directories."""

import argparse
import json
from typing import TYPE_CHECKING

from zoo.cli import pictures
from zoo.cli.arguments import (
    DECODING,
    add_bleu,
    add_checkpoint,
    add_decoding,
    decoding_changes,
    directory,
    evaluation_changes,
    output,
    positive,
)
from zoo.errors import UserError

if TYPE_CHECKING:
    from zoo.storage import AnyPath

HELP = "draw learning curves, scores against length or size, attention, embeddings and positions"
EXAMPLE = """python -m zoo plot runs/phrases --text "Thursday, March 3, 2022" --layer 1 --head 2
  python -m zoo plot runs/rnnsearch runs/cho --by-length --split=test
  python -m zoo plot runs/phrases --neighbours March July"""

# The options that apply to a picture, by the option that asks for it; learning curves have none.
OPTIONS: dict[str, tuple[str, ...]] = {
    "html": ("text", "checkpoint", *DECODING),
    "entropy": ("text", "checkpoint"),
    "text": ("layer", "head", "checkpoint", *DECODING),
    "by_length": ("split", "data", "json", "batch_tokens", "bleu_tokenizer", "checkpoint", *DECODING),
    "confusion": ("split", "data", "checkpoint"),
    "by_size": ("checkpoint",),
    "positions": ("checkpoint",),
    "neighbours": ("checkpoint",),
}


DRAWINGS = ("entropy", "by_size", "positions", "neighbours")  # functions of `zoo.cli.pictures`


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "workdirs", nargs="+", type=directory, metavar="WORKDIR", help="working directories, in one picture"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--text", metavar="TEXT", help="the attention while translating this sentence")
    what.add_argument("--by-length", action="store_true", help="BLEU against the length of the source")
    what.add_argument("--confusion", action="store_true", help="the confusion matrix of a classifier")
    what.add_argument("--by-size", action="store_true", help="validation loss against the number of parameters")
    what.add_argument("--positions", action="store_true", help="the vectors of positions, and how alike they are")
    what.add_argument("--neighbours", nargs="+", metavar="WORD", help="the pieces whose embeddings are nearest")
    parser.add_argument(
        "--out",
        type=output,
        metavar="FILE",
        help="the picture: .png, .pdf, .svg (default: a .png in the first WORKDIR)",
    )
    parser.add_argument(
        "--html",
        type=output,
        metavar="FILE.html",
        help="with --text: a page to explore every attention, instead of a picture",
    )
    parser.add_argument("--entropy", action="store_true", help="with --text: how widely each head looks, in bits")
    parser.add_argument("--layer", type=positive, metavar="L", help="with --text: only this layer (1: the lowest)")
    parser.add_argument("--head", type=positive, metavar="H", help="with --text: only this head, counted from 1")
    parser.add_argument("--split", choices=("valid", "test"), help="with --by-length and --confusion (default: test)")
    parser.add_argument(
        "--data", metavar="PATH", help="with --by-length and --confusion: other data (a prefix, a .tsv or tfds:NAME)"
    )
    parser.add_argument("--json", action="store_true", help="with --by-length: one JSON object on standard output")
    add_checkpoint(parser)
    add_decoding(parser)
    add_bleu(parser)


def run(args: argparse.Namespace) -> None:
    _check_options(args)
    if args.out:
        from zoo.plotting.pictures import format_of

        format_of(args.out)
    if len(set(args.workdirs)) < len(args.workdirs):
        raise UserError(f"{' '.join(map(str, args.workdirs))}: name each working directory only once")
    if args.html is not None and args.text is None:
        raise UserError(f"--html={args.html} shows the attention on a text: add --text")
    if args.entropy and args.text is None:
        raise UserError("--entropy needs a text: add --text")
    drawing = next((name for name in DRAWINGS if getattr(args, name)), None)
    if drawing is not None:
        out = _place(args, f"{drawing}.png")
        getattr(pictures, drawing)(args, out)
        print(out)
    elif args.html is not None:
        _explore(args)
    elif args.text is not None:
        _attention(args)
    elif args.by_length:
        _by_length(args)
    elif args.confusion:
        _confusion(args)
    else:
        _curves(args)


def _check_options(args: argparse.Namespace) -> None:
    """Refuse options that do not apply to the picture."""
    picture = next((picture for picture in OPTIONS if _given(args, picture)), None)
    apply = () if picture is None else (picture, *OPTIONS[picture])
    for name in dict.fromkeys(name for of_picture in OPTIONS.values() for name in of_picture):
        if name not in apply and _given(args, name):
            asked = "learning curves" if picture is None else _option(picture)
            others = " or ".join(_option(other) for other, names in OPTIONS.items() if name in names)
            raise UserError(f"{_option(name)} has no effect on {asked}: remove it, or draw {others}")


def _given(args: argparse.Namespace, name: str) -> bool:
    return getattr(args, name) not in (None, False, "best")


def _option(name: str) -> str:
    return "--" + {"forbid_unknown": "no-unk"}.get(name, name).replace("_", "-")


def _check_translates(args: argparse.Namespace, option: str) -> None:
    from zoo.experiment import from_workdir

    for path in args.workdirs:
        if from_workdir(path).command != "translate":
            raise UserError(
                f"{option}: the model of {path} does not translate: leave it out to draw its learning curves"
            )


def _place(args: argparse.Namespace, name: str) -> "AnyPath":
    return args.out or args.workdirs[0] / name


def _confusion(args: argparse.Namespace) -> None:
    from zoo.evaluation import score
    from zoo.plotting.confusion import draw_confusion
    from zoo.workdirs import load

    workdir, *others = args.workdirs
    if others:
        raise UserError(f"--confusion draws one classifier, not {len(args.workdirs)}: name one")
    scores = score(load(workdir, args.checkpoint, command="classify"), args.split or "test", args.data or "")
    if "confusion" not in scores:
        raise UserError(f"{scores['data']} has no labels, or the task predicts numbers: there is no confusion matrix")
    out = _place(args, "confusion.png")
    draw_confusion(scores["confusion"], scores["labels"], f"{scores['split']} ({scores['data']})", out)
    print(out)


def _curves(args: argparse.Namespace) -> None:
    from zoo.plotting.curves import draw_curves

    out = _place(args, "curves.png" if len(args.workdirs) == 1 else "curves_compared.png")
    draw_curves({str(workdir): workdir / "metrics.jsonl" for workdir in args.workdirs}, out)
    print(out)


def _by_length(args: argparse.Namespace) -> None:
    from zoo.evaluation import by_length, length_table
    from zoo.plotting.lengths import draw_by_length
    from zoo.workdirs import load

    _check_translates(args, "--by-length")
    workdirs = [load(path, args.checkpoint, evaluation_changes(args)) for path in args.workdirs]
    scores = by_length(workdirs, args.split or "test", args.data or "")
    out = _place(args, "bleu_by_length.png")
    bins = [(b["first"], b["last"], b["sentences"]) for b in scores["bins"]]
    title = f"{scores['direction'].replace('-', '→', 1)}, {scores['split']} ({scores['data']})"
    draw_by_length(bins, scores["bleu"], title, f"BLEU {scores['bleu_signature']}", out)
    print(json.dumps(scores | {"picture": str(out)}, ensure_ascii=False) if args.json else length_table(scores))
    if not args.json:
        print(out)


def _explore(args: argparse.Namespace) -> None:
    from zoo.workdirs import load

    load(_only(args), args.checkpoint, decoding_changes(args)).explore(args.text).save(args.html)
    print(args.html)


def _only(args: argparse.Namespace) -> "AnyPath":
    workdir, *others = args.workdirs
    if others:
        raise UserError(f"--text draws the attention of one working directory, not of {len(args.workdirs)}: name one")
    return workdir


def _attention(args: argparse.Namespace) -> None:
    from zoo.plotting.attention import draw_attention
    from zoo.workdirs import load

    workdir = _only(args)
    _check_translates(args, "--text")
    opened = load(workdir, args.checkpoint, decoding_changes(args))
    attention = opened.cross_attention(args.text)
    if attention is None:
        raise UserError(f"the model of {workdir} has no attention to its source: nothing to draw")
    layers, heads = attention.weights.shape[:2]
    layers = _chosen("layer", args.layer, layers)
    heads = _chosen("head", args.head, heads)
    weights = attention.weights[layers][:, heads]
    title = f"{args.text} → {attention.text}"
    several = attention.weights[..., 0, 0].size > 1
    numbers = ([layer + 1 for layer in layers], [head + 1 for head in heads]) if several else ()
    out = _place(args, "attention_heads.png")
    draw_attention(weights, attention.source, attention.target, title, out, *numbers)
    print(out)


def _chosen(name: str, number: int | None, count: int) -> list[int]:
    if number is None:
        return list(range(count))
    if number > count:
        raise UserError(f"--{name}={number}: this model has {count}, counted from 1")
    return [number - 1]
