"""What the zoo reaches on the accelerator at hand, within a budget: `python -m benchmarks accelerator --peers`.

Each part runs in its own process, so a failure costs only its row. The most important parts run first; parts that do
not fit the budget are skipped and listed. Nothing needs data or a tokenizer. On a CPU the sizes are tiny: that shows
that the parts run, not how fast.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LEAST_SECONDS = 15  # to start a process and compile: a part that has less left is not begun


@dataclass(frozen=True)
class Part:
    """`work` is a function of `benchmarks.accelerator_parts` or of `accelerator_peers`, with its sizes: on an
    accelerator, and on a CPU."""

    name: str
    work: str
    sizes: dict[str, Any]
    small: dict[str, Any]


_GPT = {"model": "gpt1", "rows": 64, "length": 512}
_TINY_GPT = {"model": "gpt1", "rows": 2, "length": 16, "changes": {"layers": 1, "width": 24, "heads": 2, "ffn": 32}}
_BIG = {"model": "transformer_big", "rows": 256, "length": 64}
_TINY_BIG = {"model": "transformer_big", "rows": 2, "length": 8} | {
    "changes": {"layers": 1, "width": 16, "heads": 2, "ffn": 32}
}
_CHARACTERS = {"model": "characters", "rows": 64, "length": 256, "dropout": 0.2}
_TINY_CHARACTERS, _TEN = _TINY_GPT | {"dropout": 0.2}, {"steps_per_call": 10}
_TINY_DECODE = {"length": 4, "changes": {"layers": 1, "width": 16, "heads": 2, "ffn": 32}}
PARTS = (
    Part("card", "parts.card", {"size": 8192, "on_cpu": 256}, {"size": 256, "on_cpu": 256}),
    Part("zoo gpt1, dropout 0.1", "parts.train", _GPT | {"dropout": 0.1}, _TINY_GPT | {"dropout": 0.1}),
    Part("nanoGPT gpt1, dropout 0.1", "peers.nanogpt", _GPT | {"dropout": 0.1}, _TINY_GPT | {"dropout": 0.1}),
    Part("zoo transformer big", "parts.train", _BIG | {"dropout": 0.1}, _TINY_BIG | {"dropout": 0.1}),
    Part("Marian transformer big", "peers.marian", _BIG | {"dropout": 0.1}, _TINY_BIG | {"dropout": 0.1}),
    Part("zoo gpt1, dropout 0", "parts.train", _GPT | {"dropout": 0.0}, _TINY_GPT | {"dropout": 0.0}),
    Part("nanoGPT gpt1, dropout 0", "peers.nanogpt", _GPT | {"dropout": 0.0}, _TINY_GPT | {"dropout": 0.0}),
    Part("zoo beam 4, 64 sentences", "parts.decode", {"rows": 64, "length": 64}, {"rows": 2} | _TINY_DECODE),
    Part("zoo beam 4, 1 sentence", "parts.decode", {"rows": 1, "length": 64}, {"rows": 1} | _TINY_DECODE),
    Part("zoo characters, 10.7 million parameters", "parts.train", _CHARACTERS, _TINY_CHARACTERS),
    Part("zoo characters, 10 steps a call", "parts.train", _CHARACTERS | _TEN, _TINY_CHARACTERS | _TEN),
)
# A peer's row is what the zoo's, which stands before it, is compared with.
PEERS = {"peers.nanogpt": "nanoGPT", "peers.marian": "Marian"}


@dataclass
class Measured:
    """The rows that were reached, and what was left out."""

    device: str
    rows: list[dict[str, Any]]
    ceiling: dict[str, float]
    left_out: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {"name": "accelerator", **vars(self)}

    def text(self) -> str:
        lines = [f"accelerator on {self.device}"]
        lines += [f"  {name:34}{_figure(name, value)}" for name, value in self.ceiling.items()]
        for row in self.rows:
            lines.append(row["system"])
            lines += [f"    {name:32}{_figure(name, value)}" for name, value in row.items() if name != "system"]
        return "\n".join([*lines, *(f"left out: {name}: {why}" for name, why in self.left_out.items())])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--budget", type=int, default=480, metavar="SECONDS", help="for all parts (default: 480)")
    parser.add_argument("--peers", action="store_true", help="also run PyTorch's models, if they can be imported")
    parser.add_argument("--nanogpt", default="", metavar="DIR", help="a checkout of nanoGPT, with its model.py")
    parser.add_argument("--tiny", action="store_true", help="use a CPU's sizes on any device")


def run(arguments: argparse.Namespace) -> Measured:
    end = time.monotonic() + arguments.budget
    small = arguments.tiny
    measured = Measured("nothing", [], {})
    for part in PARTS:
        if why := _missing(part, arguments):
            measured.left_out[part.name] = why
            continue
        left = end - time.monotonic()
        if left < LEAST_SECONDS:
            measured.left_out[part.name] = f"the budget of {arguments.budget} s was spent"
            continue
        print(f"{part.name}, {left:.0f} s left", file=sys.stderr, flush=True)
        sizes = part.small if small else part.sizes
        found = _in_own_process(part.work, sizes | {"nanogpt": arguments.nanogpt} | measured.ceiling, left)
        if "error" in found:
            measured.left_out[part.name] = found["error"]
        elif part.name == "card":
            measured.device, measured.ceiling = found.pop("device"), found
            small = small or bool(found.pop("is_cpu"))
        else:
            measured.rows.append({"system": part.name} | found)
    _compare(measured.rows)
    return measured


def _missing(part: Part, arguments: argparse.Namespace) -> str:
    """Why a part cannot be run, or nothing."""
    if part.work not in PEERS:
        return ""
    if not arguments.peers:
        return "no --peers"
    needed = ("torch", "transformers") if part.work == "peers.marian" else ("torch",)
    if lacking := [name for name in needed if importlib.util.find_spec(name) is None]:
        return f"{' and '.join(lacking)} cannot be imported"
    return "" if part.work == "peers.marian" or arguments.nanogpt else "no --nanogpt=DIR"


def _in_own_process(work: str, sizes: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What the part measured, or its `error`."""
    module, _, function = work.partition(".")
    command = [sys.executable, "-m", f"benchmarks.accelerator_{module}", function, json.dumps(sizes)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, env=_environment())
    except subprocess.TimeoutExpired:
        return {"error": f"not done when the budget was spent, after {seconds:.0f} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1][:300]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def _environment() -> dict[str, str]:
    """Programs that an earlier run has kept would hide what a first step takes."""
    return os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false", "PYTHONPATH": str(ROOT)}


def _compare(rows: list[dict[str, Any]]) -> None:
    """Give each of the zoo's rows its ratio over the peer's of the same work."""
    speeds = {row["system"].partition(" ")[2]: row["tokens_per_second"] for row in rows if _is_peer(row["system"])}
    for row in rows:
        name = row["system"].partition(" ")[2]
        if not _is_peer(row["system"]) and name in speeds:
            row["ratio"] = row["tokens_per_second"] / speeds[name]


def _is_peer(system: str) -> bool:
    return system.startswith(tuple(PEERS.values()))


def _figure(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    for part, unit, symbol in (
        ("bytes_per_second", 1e12, "TB/s"),
        ("flops_per_second", 1e12, "TFLOP/s"),
        ("bytes", 2**30, "GiB"),
    ):
        if part in name:
            return f"{value / unit:,.3g} {symbol}"
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
