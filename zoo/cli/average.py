"""`average`: the mean of several checkpoints as one more."""

import argparse
import math
import shlex
from typing import TYPE_CHECKING

from zoo.cli.arguments import directory, positive
from zoo.errors import UserError

if TYPE_CHECKING:
    from zoo.storage import AnyPath

HELP = "average the parameters of several checkpoints"
EXAMPLE = "python -m zoo average runs/phrases --last 3"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", type=directory, metavar="WORKDIR", help="a working directory")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--last", type=positive, metavar="N", help="the last N checkpoints")
    which.add_argument("--best", type=positive, metavar="N", help="the N that scored best on the validation split")


def run(args: argparse.Namespace) -> None:
    from zoo.checkpoints import average_parameters, kept_steps, save_parameters
    from zoo.experiment import from_workdir

    select = from_workdir(args.workdir).train.select
    kept = kept_steps(args.workdir)
    if args.last:
        steps = kept[-args.last :]
    else:
        from zoo.training.progress import LOWER_IS_BETTER

        scores = _scores(args.workdir / "metrics.jsonl", f"valid/{select}")
        scored = sorted((step for step in kept if step in scores), key=scores.__getitem__)
        steps = sorted(scored[: args.best] if select in LOWER_IS_BETTER else scored[-args.best :])
    if len(steps) < (args.last or args.best):
        raise UserError(
            f"{args.workdir} keeps {len(steps)} such checkpoints, of steps {kept}: ask for fewer, or train with "
            f"--config.train.keep={args.last or args.best}"
        )
    save_parameters(args.workdir / "average", steps[-1], average_parameters(args.workdir, steps), {"averaged": steps})
    print(f"{args.workdir / 'average' / str(steps[-1])} is the mean of steps {', '.join(map(str, steps))}")
    print(f"python eval.py --workdir={shlex.quote(str(args.workdir))} --split=valid --checkpoint=average")


def _scores(path: "AnyPath", name: str) -> dict[int, float]:
    """{step: value} of what `metrics.jsonl` reports as `name`."""
    if not path.is_file():
        raise UserError(f"{path} is missing, so the best checkpoints are unknown: use --last")
    from zoo.plotting.curves import read_curves

    split, _, value = name.rpartition("/")
    steps, values = read_curves(path).get(value, {}).get(split, ([], []))
    return {step: score for step, score in zip(steps, values, strict=True) if math.isfinite(score)}
