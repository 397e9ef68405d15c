"""What pretraining is worth: GLUE tasks with and without it, over seeds (Radford et al. 2018, section 5, table 5).

    python -m benchmarks finetune --donor runs/books --data GLUE --tasks rte,stsb,cola,sst2 --scratch --seeds 5

GLUE holds the tasks' folders as GLUE names them (RTE, STS-B, CoLA, SST-2, ...). Each run is a working directory in
`--out`; the same command resumes where it stopped. No run is begun once `--minutes` are over: seeds take turns, so that
what is there by then is a whole comparison of fewer seeds. Each score is the best epoch's on the dev split, and the
paper's are of the test split, of a model of 117 million parameters.
"""

import argparse
import json
import logging
import statistics
import time
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import jax

import zoo
from zoo.errors import UserError, nearest
from zoo.experiment import from_file

FOLDERS = {
    "cola": "CoLA",
    "sst2": "SST-2",
    "stsb": "STS-B",
    "mrpc": "MRPC",
    "qqp": "QQP",
    "mnli": "MNLI",
    "qnli": "QNLI",
    "rte": "RTE",
    "wnli": "WNLI",
}
# Radford et al. 2018, table 5, in hundredths: with pretraining, and without.
PAPER = {
    "cola": (45.4, 18.9),
    "sst2": (91.3, 84.0),
    "stsb": (82.0, 30.9),
    "mrpc": (82.3, 79.4),
    "qqp": (70.3, 65.5),
    "mnli": (81.8, 75.7),
    "qnli": (88.1, 71.2),
    "rte": (56.0, 53.8),
}
PRETRAINED, SCRATCH = "pretrained", "not pretrained"

log = logging.getLogger("zoo")


@dataclass
class Comparison:
    """A row for each task and beginning: mean and standard deviation over `seeds`, in hundredths."""

    rows: list[dict[str, Any]]
    name: str = "finetune"
    ceiling: dict[str, float] = field(default_factory=dict)
    device: str = field(default_factory=lambda: f"{jax.device_count()} x {jax.devices()[0].device_kind}")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--donor", required=True, metavar="DIR", help="the pretrained GPT (or DIR@STEP)")
    parser.add_argument("--data", type=Path, required=True, metavar="GLUE", help="the folder of GLUE's folders")
    parser.add_argument("--tasks", default="rte,stsb,cola,sst2", help="between commas (default: rte,stsb,cola,sst2)")
    parser.add_argument("--scratch", action="store_true", help="also without pretraining, same sizes and tokenizer")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="runs of each (default: 5)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/finetune"), metavar="DIR", help="the working directories"
    )
    parser.add_argument("--minutes", type=float, default=0, metavar="M", help="begin no run after so many (0: all)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="[TASK:]KEY=VALUE", help="a key of every config, or of a task's"
    )
    parser.add_argument(
        "--set-scratch", action="append", default=[], metavar="KEY=VALUE", help="a key where nothing is pretrained"
    )


def run(args: argparse.Namespace) -> Comparison:
    """Train what is not trained yet, while the time lasts, and compare what there is."""
    tasks = args.tasks.split(",")
    for task in tasks:
        if task not in FOLDERS:
            raise UserError(f"--tasks={args.tasks}: {task!r}: {nearest(task, FOLDERS)}")
    jax.config.update("jax_compilation_cache_dir", str(args.out / "compiled"))  # one for all seeds
    begun, scores = time.monotonic(), {}
    beginnings = [PRETRAINED, SCRATCH] if args.scratch else [PRETRAINED]
    for seed, task, beginning in product(range(args.seeds), tasks, beginnings):
        if args.minutes and time.monotonic() - begun > 60 * args.minutes:
            log.warning("%g minutes are over: the same command goes on with seed %d, %s", args.minutes, seed, task)
            break
        scores.setdefault((task, beginning), []).append(_score(args, task, beginning, seed))
    return Comparison([_row(*key, found) for key, found in scores.items()])


def _score(args: argparse.Namespace, task: str, beginning: str, seed: int) -> float:
    """The best dev score of one run, which is trained unless it is there."""
    given = _settings(args.set, task) | (_settings(args.set_scratch, task) if beginning == SCRATCH else {})
    changes = {"data.path": str(args.data / FOLDERS[task]), "data.test": "", "seed": str(seed)} | given
    donor = {"init_from" if beginning == PRETRAINED else "like": args.donor}
    if beginning == SCRATCH:
        donor["like"] = args.donor.rpartition("@")[0] or args.donor
    workdir = args.out / f"{task}-{beginning.replace(' ', '-')}-{seed}"
    trained = zoo.train(f"gpt1_finetune:{task}", workdir, **donor, **changes)
    summary = json.loads((workdir / "summary.json").read_text(encoding="utf-8"))
    return 100 * summary["scores"][trained.experiment.train.select]


def _settings(words: list[str], task: str) -> dict[str, str]:
    """{key: value} of those `[TASK:]KEY=VALUE` that are for every task or for this one."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        of, _, key = name.rpartition(":")
        if not equals or (of and of not in FOLDERS):
            raise UserError(f"--set={word}: write KEY=VALUE, or TASK:KEY=VALUE with TASK one of {', '.join(FOLDERS)}")
        if of in ("", task):
            found[key] = value
    return found


def _row(task: str, beginning: str, scores: list[float]) -> dict[str, Any]:
    paper = PAPER.get(task)
    published = "not given" if paper is None else f"{paper[beginning == SCRATCH]:.1f}"
    select = from_file(f"gpt1_finetune:{task}").train.select
    spread = statistics.stdev(scores) if len(scores) > 1 else float("nan")
    return {
        "system": f"{task}, {beginning}",
        f"{select}": f"{statistics.mean(scores):.1f} ± {spread:.1f}",
        "seeds": ", ".join(f"{score:.1f}" for score in scores),
        "paper": published,
    }
