"""Three claims made for the Transformer, tested on this machine: it trains in parallel, reaches far back, and scales.

    python -m benchmarks claims --text tinyshakespeare.txt --report docs/claims.md

Each figure is saved in `--out`, and the same command resumes where it stopped. After `--minutes` no new measurement
starts, and the report covers what has been measured. `--part` runs the parts one by one.
"""

import argparse
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from benchmarks.claims import lengths, parallelism, recall, report, scaling
from benchmarks.claims.points import Points, TimeIsUp
from zoo.errors import UserError

MODULES = {"parallelism": parallelism, "recall": recall, "lengths": lengths, "scaling": scaling}

log = logging.getLogger("zoo")


@dataclass
class Claims:
    """The points of each part, by its name."""

    parts: dict[str, Points]
    machine: str

    def as_dict(self) -> dict[str, Any]:
        measured = {name: {"settings": p.settings, "points": p.values} for name, p in self.parts.items()}
        return {"name": "claims", "machine": self.machine, "parts": measured}

    def text(self) -> str:
        return report.markdown(self.parts, MODULES, self.machine)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--part", nargs="+", choices=MODULES, default=list(MODULES), help="what to measure (default: all)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/claims"), metavar="DIR", help="the folder of what was measured so far"
    )
    parser.add_argument(
        "--minutes", type=float, default=0, metavar="M", help="start nothing after so many minutes (0: no limit)"
    )
    parser.add_argument("--text", type=Path, metavar="FILE", help="for scaling (default: the manual of Python)")
    parser.add_argument("--report", type=Path, metavar="FILE.md", help="write a report, with pictures in figures/")
    parser.add_argument("--machine", metavar="TEXT", help="its name in the report (default: JAX's name)")


def run(args: argparse.Namespace) -> Claims:
    """Measure what is not measured yet, within the time."""
    if args.text is not None and not args.text.is_file():
        raise UserError(f"--text={args.text}: no such file")
    deadline = time.monotonic() + 60 * args.minutes if args.minutes else float("inf")
    jax.config.update("jax_compilation_cache_dir", str(args.out / "compiled"))  # one for all parts and calls
    parts = {}
    for name, module in MODULES.items():
        limit = deadline if name in args.part else float("-inf")  # of the others, only what was measured
        settings = scaling.settings_for(args.text) if module is scaling else module.SETTINGS
        parts[name] = Points(args.out / name, settings, limit)
        try:
            module.measure(parts[name], args.text) if module is scaling else module.measure(parts[name])
        except TimeIsUp:
            if name in args.part:
                log.warning("%s: the %g minutes are over: the same command resumes", name, args.minutes)
    claims = Claims(parts, args.machine or f"{jax.device_count()} x {jax.devices()[0].device_kind}")
    if args.report is not None:
        report.write(args.report, claims.parts, MODULES, claims.machine)
    return claims
