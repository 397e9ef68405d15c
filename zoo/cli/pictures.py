"""What `plot` draws of a model's vectors and heads, and of the sizes of several models."""

import argparse
import math
from typing import TYPE_CHECKING, Any

from zoo.errors import UserError

if TYPE_CHECKING:
    from zoo.storage import AnyPath

POSITIONS = 128  # drawn of a model that has as many
NEIGHBOURS = 10


def only(args: argparse.Namespace, option: str) -> "AnyPath":
    """The one working directory that this picture is of."""
    workdir, *others = args.workdirs
    if others:
        raise UserError(f"{option} draws one working directory, not {len(args.workdirs)}: name one")
    return workdir


def positions(args: argparse.Namespace, out: "AnyPath") -> None:
    from zoo.models import vectors
    from zoo.plotting.vectors import draw_positions
    from zoo.workdirs import load

    opened = load(only(args, "--positions"), args.checkpoint)
    table = vectors.positions(opened.model.config, opened.params, POSITIONS)
    draw_positions(table, str(opened.path), out)


def neighbours(args: argparse.Namespace, out: "AnyPath") -> None:
    from zoo.data.specials import SPECIALS
    from zoo.decoding.inspection import name_of
    from zoo.models import vectors
    from zoo.plotting.vectors import draw_neighbours, nearest
    from zoo.workdirs import load

    opened = load(only(args, "--neighbours"), args.checkpoint)
    tokenizer = opened.task.tokenizers[0] if opened.experiment.command == "translate" else opened.task.tokenizer
    table = vectors.embeddings(opened.params)
    found: dict[str, Any] = {}
    for word in args.neighbours:
        ids = [int(i) for i in tokenizer.encode([word])[0]]
        if not ids:
            raise UserError(f"--neighbours {word!r}: not in the vocabulary: name another word")
        near = nearest(table, table[ids].mean(axis=0), NEIGHBOURS, [*range(len(SPECIALS)), *ids])
        found[word] = [(name_of(tokenizer, row), cosine) for row, cosine in near]
    draw_neighbours(found, str(opened.path), out)


def entropy(args: argparse.Namespace, out: "AnyPath") -> None:
    from zoo.plotting.entropy import draw_entropy
    from zoo.workdirs import load

    opened = load(only(args, "--entropy"), args.checkpoint)
    draw_entropy(opened.attention(args.text), args.text, out)


def by_size(args: argparse.Namespace, out: "AnyPath") -> None:
    import jax

    from zoo.plotting.curves import read_curves
    from zoo.plotting.sizes import draw_by_size
    from zoo.workdirs import load

    runs = {}
    for workdir in args.workdirs:
        _, losses = read_curves(workdir / "metrics.jsonl").get("loss", {}).get("valid", ([], []))
        losses = [loss for loss in losses if math.isfinite(loss)]
        if not losses:
            raise UserError(f"{workdir} has no validation loss yet: train it to its first evaluation")
        parameters = sum(leaf.size for leaf in jax.tree.leaves(load(workdir, args.checkpoint).params))
        runs[str(workdir)] = parameters, min(losses)
    draw_by_size(runs, out)
