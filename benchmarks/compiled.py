"""The training step as compiled for a GPU or TPU that is not here: what its kernels move and compute, and how long.

GPUs need JAX's CUDA plugin (pip install 'seqzoo[gpu]') and TPUs need libtpu (pip install 'seqzoo[tpu]'), but no
device. The predicted time is that of `zoo plan`: docs/pods.md says what it leaves out.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import UserError
from zoo.planning.absent import GPU_OPTIONS, describe
from zoo.planning.gpus import topology
from zoo.planning.places import bytes_by_place
from zoo.planning.prediction import kernel_seconds
from zoo.planning.program import Program

ROOT = Path(__file__).parent.parent
TARGETS = {"h100": "h100:1", "h200": "h200:1", "a100": "a100:1", "v5e": "v5e:2x2", "v5p": "v5p:2x2x1"}
TRANSFORMER = {"family": "transformer", "smoothing": 0.1}
GPT = {"family": "gpt", "smoothing": 0.0}
# Rows, length and model, as in the papers' batches on one device; Multi30k as its config has it.
MODELS: dict[str, dict[str, Any]] = {
    "gpt1": GPT | {"size": "gpt1", "rows": 64, "length": 512, "changes": {"vocabulary": 40478}, "dropout": 0.1},
    "transformer_big": TRANSFORMER
    | {"size": "big", "rows": 256, "length": 64, "dropout": 0.3}
    | {"changes": {"source_vocabulary": 37000, "target_vocabulary": 37000}},
    "multi30k": TRANSFORMER
    | {"size": "small", "rows": 64, "length": 64, "dropout": 0.3}
    | {"changes": {"source_vocabulary": 6000, "target_vocabulary": 6000, "ffn": 512}},
    "gpt2_1558m": GPT
    | {"size": "gpt2_1558m", "rows": 16, "length": 1024, "dropout": 0.1}
    | {"changes": {"vocabulary": 50257, "remat": True}},
}
# Milliseconds of a step on one card under JAX 0.11.2, and the commit measured, by device, model, rows and dropout.
MEASURED = {
    ("h100", "gpt1", 64, 0.1): (194.7, "03bb4d5"),
    ("h100", "gpt1", 64, 0.0): (113.2, "03bb4d5"),
    ("h200", "gpt1", 64, 0.1): (56.5, "d665212"),
    ("h200", "gpt1", 64, 0.0): (56.3, "d665212"),
    ("h200", "transformer_big", 256, 0.1): (42.2, "d665212"),
}


@dataclass(frozen=True)
class Compiled:
    """A row for each state of the code."""

    target: str
    rows: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        return {"name": "compiled", "device": f"one {self.target} that is not here", "rows": self.rows, "ceiling": {}}

    def text(self) -> str:
        """The rows side by side."""
        return "\n".join([f"compiled for {self.as_dict()['device']}", *_lines(self.rows)])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", choices=TARGETS, default="h100", help="the device to compile for (default: h100)")
    parser.add_argument("--model", choices=MODELS, default="gpt1", help="the model to train (default: gpt1)")
    parser.add_argument("--rows", type=int, default=0, help="rows of the batch (default: those of the paper's)")
    parser.add_argument("--dropout", type=float, default=-1.0, help="rate everywhere (default: that of the paper)")
    parser.add_argument("--against", default="", metavar="GIT_REF", help="compare with another state of the code")


def run(arguments: argparse.Namespace) -> Compiled:
    spec = _spec(arguments)
    rows = []
    if arguments.against:
        with checked_out(arguments.against) as state:
            rows.append(_row(arguments, arguments.against, spec, state))
    rows.append(_row(arguments, "this code", spec, ROOT))
    return Compiled(arguments.target, rows)


def _spec(arguments: argparse.Namespace) -> dict[str, Any]:
    spec, devices = dict(MODELS[arguments.model]), topology(TARGETS[arguments.target])
    dropout = spec["dropout"] if arguments.dropout < 0 else arguments.dropout
    rates = {"dropout": dropout} | ({"attention_dropout": dropout} if spec["family"] == "gpt" else {})
    spec |= {"changes": spec["changes"] | rates | {"dtype": "bfloat16"}, "dropout": dropout}
    spec["rows"] = arguments.rows or spec["rows"]
    options = GPU_OPTIONS if arguments.target in ("h100", "h200", "a100") else {}
    return spec | {"devices": describe(devices), "options": options}


@contextmanager
def checked_out(ref: str) -> Iterator[Path]:
    """The files of another state of this repository, for as long as they are needed."""
    with tempfile.TemporaryDirectory() as directory:
        made = subprocess.run(
            ["git", "archive", "--format=tar", "--output", f"{directory}/state.tar", ref, "zoo"],
            **{"cwd": ROOT, "capture_output": True, "text": True},
        )
        if made.returncode:
            raise UserError(f"--against={ref!r}: git cannot give that state of the code: {made.stderr.strip()}")
        subprocess.run(["tar", "-xf", "state.tar"], cwd=directory, check=True)
        yield Path(directory)


def compile_state(spec: dict[str, Any], state: Path) -> tuple[Program, dict[str, Any]]:
    """The program of the step that the code in `state` has, and its memory; in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(state), "JAX_PLATFORMS": "cpu"}
    environment |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-16"}
    environment |= {"TPU_WORKER_HOSTNAMES": "localhost", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-P", str(ROOT / "benchmarks/compiled_program.py"), json.dumps(spec), directory]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.strip(" -") and "JAX_TRACEBACK" not in line]
            raise UserError(
                f"the step of {state} does not compile for this target: {(said or ['nothing was said'])[-1]}"
            )
        text = (Path(directory) / "program.txt").read_text(encoding="utf-8")
        memory = json.loads((Path(directory) / "memory.json").read_text(encoding="utf-8"))
    return Program(text, {"data": 1}), memory


def _row(arguments: argparse.Namespace, name: str, spec: dict[str, Any], state: Path) -> dict[str, Any]:
    program, memory = compile_state(spec, state)
    chip = topology(TARGETS[arguments.target]).chip
    seconds = kernel_seconds(program, chip)
    measured, commit = MEASURED.get((arguments.target, arguments.model, spec["rows"], spec["dropout"]), (0, ""))
    kinds, products = Counter(), Counter()
    for kernel in program.kernels:
        kinds[kernel.kind] += kernel.bytes * kernel.times
        for product in kernel.products:
            products[product.types] += product.flops * kernel.times
    return {
        "system": f"{arguments.model} {spec['rows']} x {spec['length']}, dropout {spec['dropout']:g}, {name}",
        "tokens_per_second": spec["rows"] * spec["length"] / seconds,
        "predicted_step_seconds": seconds,
        **({f"measured_step_seconds_of_{commit}": measured / 1e3} if measured else {}),
        "kernels": sum(kernel.times for kernel in program.kernels),
        "bytes": program.bytes,
        "bytes_by_place": bytes_by_place(program.kernels),
        "bytes_by_kind": dict(kinds.most_common()),
        "product_flops": program.flops,
        "product_flops_by_types": dict(products.most_common()),
        "argument_bytes": memory["arguments"],
        "temporary_bytes": memory["temporaries"],
        "parameters": memory["parameters"],
        "compile_seconds": memory["compile_seconds"],
    }


UNITS = {"bytes": (1e9, "GB"), "flops": (1e12, "TFLOP"), "seconds": (1e-3, "ms")}


def _lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each figure, in the units of its name; those of a figure's parts below it."""
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(key, 0) for row in rows]
        name = key.replace("_", " ")
        if isinstance(rows[-1].get(key), dict):
            yield name
            parts = dict.fromkeys(part for row in rows for part in row[key])
            yield from (f"  {part:42}" + "".join(_figure(key, row[key].get(part, 0)) for row in rows) for part in parts)
        elif isinstance(values[-1], str):
            yield f"{name:44}" + "".join(f"  {value}" for value in values)
        else:
            yield f"{name:44}" + "".join(_figure(key, value) for value in values)


def _figure(key: str, value: float) -> str:
    if key == "compile_seconds":
        return f"{value:14,.1f} s"
    for name, (unit, symbol) in UNITS.items():
        if name in key and "per" not in key:
            return f"{value / unit:14,.2f} {symbol}"
    return f"{value:14,.0f}"
