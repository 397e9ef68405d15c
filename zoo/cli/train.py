"""`train`: make a working directory, or resume one."""

import argparse
import logging
import shlex
from typing import TYPE_CHECKING, Any

from zoo import logs
from zoo.cli.arguments import directory, natural, positive

if TYPE_CHECKING:
    from zoo.storage import AnyPath

HELP = "train a model, or resume the training in a working directory"
EXAMPLE = "python train.py --config=zoo/configs/phrases.py:en-de --workdir=runs/en-de --config.train.steps=500"

log = logging.getLogger("zoo")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", metavar="FILE[:ARGS]", help="an experiment of zoo/configs or of your own (default: phrases.py)"
    )
    parser.add_argument(
        "--workdir", type=directory, metavar="DIR", help="where everything is kept (default: runs/NAME of the config)"
    )
    parser.add_argument(
        "--seeds",
        type=positive,
        metavar="N",
        help="train with N seeds, each in DIR/seed-..., and give the mean and the spread of their scores",
    )
    _add_donor(parser)
    _add_processes(parser)
    parser.add_argument(
        "--config.KEY", metavar="VALUE", help="change a key of the config, for example --config.train.steps=500"
    )


def _add_donor(parser: argparse.ArgumentParser) -> None:
    """What a run takes from another one."""
    donor = parser.add_mutually_exclusive_group()
    donor.add_argument(
        "--init_from",
        type=directory,
        metavar="DIR",
        help="begin with the tokenizer and the best parameters of DIR (or those of DIR@STEP, DIR/average)",
    )
    donor.add_argument(
        "--like", type=directory, metavar="DIR", help="take the tokenizer of DIR, but begin with random parameters"
    )
    parser.add_argument(
        "--init_checkpoint", default="", metavar="WHICH", help="with --init_from: best, latest, average or a step"
    )
    parser.add_argument(
        "--init_head",
        action="store_true",
        help="with --init_from: also take the head of a classifier (default: a new one)",
    )
    parser.add_argument(
        "--init_only",
        default="",
        metavar="REGEX",
        help="with --init_from: take only parameters whose path matches (as in encoder); the others start at random",
    )
    parser.add_argument(
        "--init_optimizer",
        action="store_true",
        help="with --init_from: also take the state of the optimizer (default: a new one)",
    )
    parser.add_argument(
        "--new_vocabulary",
        action="store_true",
        help="with --init_from: learn a new tokenizer on this text; pieces that both have keep their embeddings",
    )


def _add_processes(parser: argparse.ArgumentParser) -> None:
    """How the processes of one run find each other."""
    together = parser.add_argument_group(
        "several processes (found automatically under SLURM, Open MPI, TPU and Kubernetes)"
    )
    together.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    together.add_argument("--process_id", type=natural, metavar="I", help="which process this is, from 0")
    together.add_argument("--process_count", type=positive, metavar="N", help="how many there are")
    together.add_argument(
        "--wait", type=positive, metavar="S", default=300, help="seconds to wait for the others (default: 300)"
    )


def run(args: argparse.Namespace) -> None:
    from zoo.parallel.multihost import Processes, connect, ending_together, is_first

    connect(Processes(args.coordinator, args.process_id, args.process_count, args.wait))
    if not is_first():
        logs.only_warnings()
    with ending_together():
        _run(args)


def _run(args: argparse.Namespace) -> None:
    from zoo import runs
    from zoo.donors import Donor, Taking

    taking = Taking(args.init_checkpoint, args.init_head, args.init_only, args.init_optimizer, args.new_vocabulary)
    donor = Donor.chosen(args.init_from, args.like, taking)
    experiment, workdir = runs.described(args.config, args.workdir, args.changes, donor)
    if args.seeds is not None:
        spread = runs.over_seeds(experiment, workdir, args.seeds, donor)
        _show_spread(workdir, args.seeds, spread or {})
        return
    summary = runs.carry_out(experiment, workdir, donor)
    if summary is not None:
        _show(workdir, summary)


def _show_spread(workdir: "AnyPath", count: int, spread: dict[str, Any]) -> None:
    log.info("")
    for name, found in spread.items():
        each = ", ".join(f"{value:.4f}" for value in found["each"])
        log.info("%-20s %9.4f ± %.4f  (%s)", name, found["mean"], found["deviation"], each)
    if spread:
        log.info("mean and standard deviation of %d seeds: %s", count, workdir / "seeds.json")


def _show(workdir: "AnyPath", summary: dict[str, Any]) -> None:
    from zoo.evaluation import table
    from zoo.tasks.registry import kind

    log.info("")
    if summary["scores"]:
        log.info("%s", table(summary["scores"]))
    log.info("parameters  %s", workdir / summary["checkpoint"])
    if (workdir / "attention.png").exists():
        log.info("attention   %s", workdir / "attention.png")
    config, sentence = summary["config"], shlex.quote(summary.get("sentence", "..."))
    places = {"workdir": shlex.quote(str(workdir)), "sentence": sentence}
    places["split"] = "test" if config["data"]["test"] else "valid"
    log.info("next        %s", kind(config["task"]).example.format(**places))
