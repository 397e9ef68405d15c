"""`train`: make a working directory, or go on with one."""

import argparse
import logging
import shlex
from typing import TYPE_CHECKING, Any

from zoo import logs
from zoo.cli.arguments import directory, natural, positive

if TYPE_CHECKING:
    from zoo.storage import AnyPath

HELP = "train a model, or go on with the one in a working directory"
EXAMPLE = "python train.py --config=zoo/configs/phrases.py:en-de --workdir=runs/en-de --config.train.steps=500"

log = logging.getLogger("zoo")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", metavar="FILE[:ARGS]", help="an experiment of zoo/configs or of your own (default: phrases.py)"
    )
    parser.add_argument(
        "--workdir", type=directory, metavar="DIR", help="where all is kept (default: runs/NAME of the config)"
    )
    donor = parser.add_mutually_exclusive_group()
    donor.add_argument(
        "--init_from", type=directory, metavar="DIR", help="begin with the best parameters and the tokenizer of DIR"
    )
    donor.add_argument(
        "--like", type=directory, metavar="DIR", help="take the tokenizer of DIR, but begin with parameters at random"
    )
    together = parser.add_argument_group("several processes (SLURM, Open MPI, TPU and Kubernetes tell by themselves)")
    together.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    together.add_argument("--process_id", type=natural, metavar="I", help="which process this is, from 0")
    together.add_argument("--process_count", type=positive, metavar="N", help="how many there are")
    together.add_argument(
        "--wait", type=positive, metavar="S", default=300, help="seconds to wait for the others (default: 300)"
    )
    parser.add_argument("--config.KEY", metavar="VALUE", help="change a key of the config, as --config.train.steps=500")


def run(args: argparse.Namespace) -> None:
    from zoo.parallel.multihost import Processes, connect, ending_together, is_first

    connect(Processes(args.coordinator, args.process_id, args.process_count, args.wait))
    if not is_first():
        logs.only_warnings()
    with ending_together():
        _run(args)


def _run(args: argparse.Namespace) -> None:
    from zoo import runs

    source = args.init_from or args.like
    donor = None if source is None else runs.Donor(source, args.init_from is not None)
    experiment, workdir = runs.described(args.config, args.workdir, args.changes, donor)
    summary = runs.carry_out(experiment, workdir, donor)
    if summary is not None:
        _show(workdir, summary)


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
