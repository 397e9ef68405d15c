"""`plot`: pictures of a working directory."""

import argparse
from pathlib import Path

from zoo.cli.arguments import add_checkpoint, positive
from zoo.errors import UserError

HELP = "draw the attention of a translation, or the learning curves of a run"
EXAMPLE = 'python -m zoo plot runs/phrases --text "Thursday, March 3, 2022" --layer 1 --head 2'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", type=Path, metavar="WORKDIR", help="a working directory")
    parser.add_argument("--text", metavar="TEXT", help="the sentence to translate (without it: learning curves)")
    parser.add_argument("--out", type=Path, metavar="FILE.png", help="the picture (default: in WORKDIR)")
    parser.add_argument("--layer", type=positive, metavar="L", help="only this layer, 1 the lowest")
    parser.add_argument("--head", type=positive, metavar="H", help="only this head, from 1 on")
    add_checkpoint(parser)


def run(args: argparse.Namespace) -> None:
    out = args.out or args.workdir / ("curves.png" if args.text is None else "attention_heads.png")
    if args.out and not args.out.absolute().parent.is_dir():
        raise UserError(f"--out={args.out}: there is no directory {args.out.parent}")
    if args.text is None:
        from zoo.plotting.curves import draw_curves

        draw_curves(args.workdir / "metrics.jsonl", out, str(args.workdir))
    else:
        _attention(args, out)
    print(out)


def _attention(args: argparse.Namespace, out: Path) -> None:
    from zoo.plotting.attention import draw_attention
    from zoo.workdirs import load

    attention = load(args.workdir, args.checkpoint).cross_attention(args.text)
    if attention is None:
        raise UserError(f"the model of {args.workdir} has no attention to its source: nothing to draw")
    layers, heads = attention.weights.shape[:2]
    layers = _chosen("layer", args.layer, layers)
    heads = _chosen("head", args.head, heads)
    weights = attention.weights[layers][:, heads]
    title = f"{args.text} → {attention.text}"
    numbers = [layer + 1 for layer in layers], [head + 1 for head in heads]
    draw_attention(weights, attention.source, attention.target, title, out, *numbers)


def _chosen(name: str, number: int | None, count: int) -> list[int]:
    if number is None:
        return list(range(count))
    if number > count:
        raise UserError(f"--{name}={number}: this model has {count}, counted from 1")
    return [number - 1]
