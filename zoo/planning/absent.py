"""Devices that are not here, and the compilers that know them: libtpu's for TPUs, XLA's own for NVIDIA GPUs."""

import importlib.util
import os
import re
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from zoo.errors import UserError
from zoo.planning.chips import Topology
from zoo.planning.gpus import Hosts

GPU_PLUGINS = ("jax_plugins.xla_cuda12", "jax_plugins.xla_cuda13")
# Autotuning needs the card, and Triton's products need autotuning.
GPU_OPTIONS = {"xla_gpu_autotune_level": "0", "xla_gpu_enable_triton_gemm": False}


def absent_devices(topology: Topology | Hosts) -> list[Any]:
    """The devices of all slices or hosts, to compile for. Raises `UserError` if their compiler is not installed."""
    from jax.experimental import topologies

    description = describe(topology)
    # Otherwise libtpu asks a server of Google Cloud for the machine's type, and waits.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-16")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # two plans at a time do not fight over chips
    return list(topologies.get_topology_desc(**description).devices)


def describe(topology: Topology | Hosts) -> dict[str, Any]:
    """The arguments of JAX's `get_topology_desc`. Raises `UserError` if the compiler is not installed."""
    if isinstance(topology, Hosts):
        if not has_gpu_compiler():
            raise UserError(
                "compiling for a GPU needs JAX's CUDA plugin, which is not installed: pip install 'seqzoo[gpu]'"
            )
        shape = f"1x{topology.hosts}x{topology.gpus}"
        return {"topology_name": topology.name, "platform": "cuda"} | {
            "topology": shape,
            "target_config": topology.card.target(),
        }
    if not _is_installed("libtpu"):
        raise UserError("compiling for a TPU needs libtpu, which is not installed: pip install 'seqzoo[tpu]'")
    return {"topology_name": topology.slice, "platform": "tpu", "num_slices": topology.slices}


def has_gpu_compiler() -> bool:
    return any(map(_is_installed, GPU_PLUGINS))


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it is in
        return False


def compiler(topology: Topology | Hosts) -> str:
    """The compiler for these devices, and its version."""
    return f"jaxlib {version('jaxlib')}" if isinstance(topology, Hosts) else f"libtpu {version('libtpu')}"


def compiled(lowered: jax.stages.Lowered, topology: Topology | Hosts) -> tuple[jax.stages.Compiled, str]:
    """The program, and its text."""
    options = GPU_OPTIONS if isinstance(topology, Hosts) else {}
    with tempfile.TemporaryDirectory() as directory:
        # Take the compiler's own text: `as_text` fails if a newer libtpu fuses messages in ways that JAX's XLA cannot
        # read.
        program = lowered.compile(compiler_options={**options, "xla_dump_to": directory, "xla_dump_hlo_as_text": True})
        (file,) = Path(directory).glob("*after_optimizations.txt")
        return program, file.read_text(encoding="utf-8")


def needed_bytes(error: jax.errors.JaxRuntimeError) -> tuple[int, bool]:
    """The memory that a program would have needed, from the compiler's error, and whether that includes its arguments.
    Any other error is a defect."""
    said = re.search(r"(Used|HLO temporaries) \(?([\d.]+)([KMGT])", str(error))
    if said is None:
        raise error
    return int(float(said[2]) * 2 ** (10 * (1 + "KMGT".index(said[3])))), said[1] == "Used"
