"""The peak rate of the devices at hand, and the number format that they compute in."""

from pathlib import Path

import jax

# Dense bfloat16 FLOP/s of one chip, from the makers' data sheets, by JAX's name of the device.
PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}


def peak_flops() -> float | None:
    """The peak FLOP/s of all devices together; `None` if there is no figure, as for a CPU."""
    kind = jax.devices()[0].device_kind
    known = [name for name in PEAK_FLOPS if kind.startswith(name)]
    return PEAK_FLOPS[max(known, key=len)] * jax.device_count() if known else None


COMPUTE_DTYPES = ("auto", "float32", "bfloat16")
CPU_INFO = Path("/proc/cpuinfo")


def compute_dtype(name: str) -> str:
    """`name`, with `auto` resolved: bfloat16 if the device multiplies it in hardware, else float32.

    These are all TPUs, NVIDIA GPUs from Ampere on, and CPUs with AMX or AVX-512 BF16. Other CPUs convert every operand,
    and bfloat16 takes half as long again as float32.
    """
    if name != "auto":
        return name
    if jax.default_backend() == "cpu":
        flags = CPU_INFO.read_text().split() if CPU_INFO.exists() else ()
        return "bfloat16" if {"amx_bf16", "avx512_bf16"} & set(flags) else "float32"
    capability = getattr(jax.devices()[0], "compute_capability", None)  # of a GPU, such as "9.0"
    return "float32" if capability is not None and float(capability) < 8 else "bfloat16"
