"""Translating a file by a trained model, from the start of the command to its last line.

With `--peers` CTranslate2 translates the same file with the same weights. The commands take turns. A first run of the
zoo compiles and keeps its programs for the runs that follow, so it is reported apart.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zoo
from benchmarks.measuring import Result, installed
from zoo.data.phrases.pairs import Phrases
from zoo.errors import UserError

KINDS = {
    "float32": ["--compute-dtype=float32"],
    "bfloat16": ["--compute-dtype=bfloat16"],
    "int8": ["--compute-dtype=bfloat16", "--quantize=int8"],
}
LINES = 2000  # of the phrases, without a file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", default="runs/phrases", help="a trained translator (default: runs/phrases)")
    parser.add_argument("--file", default="", help="what to translate (default: 2,000 phrases of the test split)")
    parser.add_argument("--beam", type=int, default=4, help="hypotheses (default: 4)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="of numbers (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each, of which the median counts (default: 3)")
    parser.add_argument("--peers", action="store_true", help="beside CTranslate2, in turns")


@dataclass
class Pipe:
    """A command that translates its standard input, and what its runs took, the first apart."""

    system: str
    command: list[str]
    first_seconds: float = 0.0
    seconds: list[float] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def run(self, source: Path) -> float:
        start = time.perf_counter()
        with source.open() as lines:
            done = subprocess.run(self.command, stdin=lines, capture_output=True, text=True, env=os.environ)
        if done.returncode:
            raise UserError(f"{self.system} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
        self.lines = done.stdout.splitlines()
        return time.perf_counter() - start


def run(arguments: argparse.Namespace) -> Result:
    workdir = Path(arguments.workdir)
    if not (workdir / "config.json").exists():
        raise UserError(f"--workdir={workdir} holds no trained model: `python train.py` trains one in runs/phrases")
    with tempfile.TemporaryDirectory() as directory:
        source = Path(arguments.file) if arguments.file else _phrases(workdir, Path(directory))
        pipes = _pipes(arguments, workdir, Path(directory))
        for pipe in pipes:
            pipe.first_seconds = pipe.run(source)
        for _ in range(arguments.rounds):
            for pipe in pipes:
                pipe.seconds.append(pipe.run(source))
    return Result("translate-file", [_row(pipe, pipes) for pipe in pipes], unit="sentences")


def _phrases(workdir: Path, directory: Path) -> Path:
    data = zoo.load(workdir).experiment.data
    sources = [source for source, _ in Phrases(data.source, data.target, "test", size=LINES)]
    path = directory / "source.txt"
    path.write_text("".join(f"{line}\n" for line in sources))
    return path


def _pipes(arguments: argparse.Namespace, workdir: Path, directory: Path) -> list[Pipe]:
    beam = f"--beam={arguments.beam}"
    translate = [sys.executable, "-m", "zoo", "translate", str(workdir), beam]
    pipes = [Pipe(f"zoo {kind}", [*translate, *KINDS[kind]]) for kind in arguments.kinds]
    if not arguments.peers:
        return pipes
    if not installed("ctranslate2", "CTranslate2", "hf"):
        return pipes
    run = zoo.load(workdir)
    for kind in ("float32", "int8"):
        folder = directory / kind
        run.save(str(folder), "ctranslate2", kind)
        options = {"folder": str(folder), "type": kind, "beam": arguments.beam}
        options["penalty"] = run.experiment.decoding.length_penalty
        command = [sys.executable, "-m", "benchmarks.ctranslate2_file", json.dumps(options)]
        pipes.append(Pipe(f"CTranslate2 {kind}", command))
    return pipes


def _row(pipe: Pipe, pipes: list[Pipe]) -> dict[str, Any]:
    found = {one.system: one for one in pipes}
    peer = found.get(f"CTranslate2 {'int8' if 'int8' in pipe.system else 'float32'}")
    row = {
        "system": pipe.system,
        "sentences_per_second": len(pipe.lines) / statistics.median(pipe.seconds),
        "slowest_and_fastest": " to ".join(f"{len(pipe.lines) / seconds(pipe.seconds):.0f}" for seconds in (max, min)),
        "seconds": statistics.median(pipe.seconds),
        "first_seconds": pipe.first_seconds,
        "beside": peer.system if peer else pipes[0].system,
    }
    exact = found.get("CTranslate2 float32")
    if exact is not None and pipe is not exact:
        same = sum(one == other for one, other in zip(pipe.lines, exact.lines, strict=True))
        row["same_as_CTranslate2_float32"] = f"{same} of {len(exact.lines)} lines"
    return row
