"""Plans of published models on TPUs and GPUs that are not here: memory, predicted speed, and the time to compile.

The rows are those of docs/pods.md; `--only` runs some of them. Those on TPUs need libtpu (pip install 'seqzoo[tpu]'),
those on GPUs, whose names end with the card, JAX's CUDA plugin (pip install 'seqzoo[gpu]').
"""

import argparse
from dataclasses import dataclass
from typing import Any

import jax

from zoo.experiment import from_file
from zoo.planning.absent import absent_devices
from zoo.planning.chips import GIB
from zoo.planning.compilation import Plan, plan
from zoo.planning.gpus import topology as parse

# No dropout where there is more text than will be read; rows of a batch are near those of the papers.
# The vocabulary is the next multiple of 128, so that `tensor` can cut it.
LARGE = {
    "data.vocabulary": "50304",
    "model.remat": "true",
    "model.dropout": "0",
    "model.attention_dropout": "0",
    "optimizer.peak": "1e-4",
}
GPT1 = {"model.attention_dropout": "0"}
ROWS: dict[str, tuple[str, str, dict[str, str]]] = {
    "gpt1": ("gpt.py:gpt1", "v5e:4x4", {"mesh.data": "2", "mesh.fsdp": "8", "data.batch_rows": "256"} | GPT1),
    "transformer-big": (
        "wmt14.py:en-de,big",
        "v5e:4x4",
        {"mesh.data": "2", "mesh.fsdp": "8", "data.batch_tokens": "65536"},
    ),
    "gpt2-1.5b": (
        "gpt.py:gpt2_1558m",
        "v5e:16x16",
        {"mesh.data": "16", "mesh.fsdp": "16", "data.length": "1024", "data.batch_rows": "2048"} | LARGE,
    ),
    "gpt3-13b": (
        "gpt.py:gpt3_13b",
        "v5p:4x4x8",
        {"mesh.data": "16", "mesh.fsdp": "8", "data.length": "2048", "data.batch_rows": "512"} | LARGE,
    ),
    "gpt3-175b": (
        "gpt.py:gpt3_175b",
        "v5p:8x16x16",
        {"mesh.data": "4", "mesh.fsdp": "256", "mesh.tensor": "2", "data.length": "2048", "data.batch_rows": "2048"}
        | LARGE,
    ),
}
# Weak scaling of GPT-1, 16 rows on every chip: the slice, and `data` and `fsdp` of its mesh. On 16 it is `gpt1`.
SCALING = {1: ("v5e:2x2", 1, 1), 64: ("v5e:8x8", 4, 16), 256: ("v5e:16x16", 16, 16)}
ROWS |= {
    f"gpt1-on-{chips}": (
        "gpt.py:gpt1",
        slice_,
        {"mesh.data": str(data), "mesh.fsdp": str(fsdp), "data.batch_rows": str(16 * chips)} | GPT1,
    )
    for chips, (slice_, data, fsdp) in SCALING.items()
}
# Hosts of eight GPUs: rows of a batch as they fit, with all that is trained kept, but for GPT-3 by parts on all hosts.
_STREAM = {"data.packing": "stream"}
ROWS |= {
    "gpt1-h100": ("gpt.py:gpt1", "h100:1", _STREAM),
    "gpt1-8-h100": ("gpt.py:gpt1", "h100:8", {"data.batch_rows": "512"} | _STREAM),
    "transformer-big-8-h100": ("wmt14.py:en-de,big", "h100:8", {"data.batch_tokens": "131072"}),
    "gpt2-1.5b-8-h100": (
        "gpt.py:gpt2_1558m",
        "h100:8",
        {"mesh.fsdp": "8", "data.length": "1024", "data.batch_rows": "128"} | LARGE | _STREAM,
    ),
    "gpt3-13b-32-h100": (
        "gpt.py:gpt3_13b",
        "h100:4x8",
        {"mesh.data": "4", "mesh.fsdp": "8", "data.length": "2048", "data.batch_rows": "128"} | LARGE | _STREAM,
    ),
    "gpt3-13b-32-h200": (
        "gpt.py:gpt3_13b",
        "h200:4x8",
        {"mesh.data": "4", "mesh.fsdp": "8", "data.length": "2048", "data.batch_rows": "256"} | LARGE | _STREAM,
    ),
    "gpt1-8-a100": ("gpt.py:gpt1", "a100:8", {"data.batch_rows": "512"} | _STREAM),
}


@dataclass(frozen=True)
class Plans:
    """What stands in docs/pods.md."""

    rows: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        return {"name": "pods", "device": "chips that are not here", "rows": self.rows, "ceiling": {}}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), help="rows to compile (default: all)")


def run(arguments: argparse.Namespace) -> Plans:
    jax.config.update("jax_platforms", "cpu")  # libtpu would else look for chips
    rows = []
    for name in arguments.only:
        config, slice_, changes = ROWS[name]
        topology = parse(slice_)
        experiment = from_file(config, tuple(changes.items()))
        devices = absent_devices(topology)
        chips = int(name.rpartition("-on-")[2]) if "-on-" in name else len(devices)
        rows.append(row(name, plan(experiment, topology, devices[:chips])))
    return Plans(rows)


def row(name: str, found: Plan) -> dict[str, Any]:
    """What docs/pods.md shows of a plan."""
    predicted = found.prediction
    speed = (
        {}
        if predicted is None
        else {
            "step_seconds": predicted.step_seconds,
            "mfu": predicted.mfu,
            "flops_by_formula": predicted.flops_by_formula,
        }
    )
    return {
        "system": name,
        "slice": str(found.topology),
        "parameters": found.parameters,
        "tokens": found.tokens,
        "gib_a_chip": found.memory.peak / GIB,
        "fits": str(found.fits),
        **speed,
        "compiler": found.compiler,
        "compile_seconds": found.compile_seconds,
        "processor_seconds": found.processor_seconds,
    }
