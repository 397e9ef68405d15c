"""The matrix products of a compiled program: the operations of each, and the types of its numbers."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo.planning.hlo import Array, Instruction, arrays

# Matrix products of a pass over the table of queries by keys. Forward: q·k and p·v. Backward: q·k again, the gradient
# of p, and those of q, k and v, which splash divides among two kernels.
_SPLASH = {"splash_mha_fwd": 2, "splash_mha_dq": 3, "splash_mha_dkv": 4}
_CUDNN = {"__cudnn$fmhaSoftmaxBackward": 5, "__cudnn$fmhaSoftmax": 2}


@dataclass(frozen=True)
class Product:
    """`types` are those of operands and result, as in `bf16 x bf16 -> f32`; `flops` are two for each multiplication."""

    types: str
    flops: float


def product(one: Instruction, operands: Sequence[Array]) -> Product | None:
    """The products that an instruction computes, by itself or in a library's kernel; `None` if there are none."""
    flops = _flops(one, operands)
    if not flops:
        return None
    types = [a.dtype for a in operands]
    floats = [dtype for dtype in types if dtype.startswith(("f", "bf"))]  # a kernel of attention also has masks
    left, right, *_ = floats if len(floats) > 1 else types
    return Product(f"{left} x {right} -> {arrays(one.shape)[0].dtype}", flops)


def _flops(one: Instruction, operands: Sequence[Array]) -> float:
    if one.opcode == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.attributes)[1]
        return _dot_flops(one, operands[0], contracted.split(","))
    if one.opcode == "convolution":
        return convolution_flops(one, operands[0].dims, operands[1].dims)
    if one.opcode != "custom-call":
        return 0.0
    if one.target.startswith("__cublas"):
        contracted = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', one.attributes)[1]
        return _dot_flops(one, operands[0], re.findall(r"\d+", contracted))
    return cudnn_flops(one) or splash_flops(one) or _stated_flops(one)


def _dot_flops(one: Instruction, left: Array, contracted: Sequence[str]) -> float:
    return 2.0 * math.prod(arrays(one.shape)[0].dims) * math.prod(left.dims[int(n)] for n in contracted if n)


def cudnn_flops(one: Instruction) -> float:
    """FLOPs of cuDNN's attention, which gives the shape `[B, H, T, S]` of its table; whole, whatever the mask hides."""
    if one.target not in _CUDNN:
        return 0.0
    config = json.loads(re.search(r"backend_config=(\{.*\})", one.attributes)[1])
    table = config["cudnn_fmha_backend_config"]["intermediate_tensor_shape"]["dimensions"]
    return 2.0 * _CUDNN[one.target] * math.prod(map(int, table)) * arrays(one.shape)[0].dims[-1]


def splash_flops(one: Instruction) -> float:
    """FLOPs of TPU's splash attention, with whole tables."""
    products = next((n for name, n in _SPLASH.items() if one.name.startswith(name)), 0)
    if not products:
        return 0.0
    # `[rows, heads, length, size]`, without the first or the second where it is one.
    found = [a.dims for a in arrays(one.shape) if len(a.dims) >= 3]
    rank = max(map(len, found))
    dims = max((d for d in found if len(d) == rank), key=lambda d: (d[0], d[-2]))
    return 2.0 * products * math.prod(dims) * dims[-2]


def _stated_flops(one: Instruction) -> float:
    """FLOPs that a Pallas kernel declares: on GPU with `metadata={"flops": "..."}`, on TPU with its `cost_estimate`."""
    found = re.search(r"""flops(?:\\22|"): ?(?:\\22|")?(\d+)""", one.attributes)  # MLIR writes quotes as \\22
    return float(found[1]) if found else 0.0


def convolution_flops(one: Instruction, left: Sequence[int], right: Sequence[int]) -> float:
    """What meets only padding is not counted."""
    result = arrays(one.shape)[0].dims
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", one.attributes)
    inputs, kernel, outputs = (labels[i] for i in (1, 2, 3))
    window = re.search(r"window=\{([^}]*)\}", one.attributes)
    given = dict(re.findall(r"(\w+)=(\S+)", window[1])) if window else {}
    spatial = [label for label in kernel if label.isdigit()]
    taps = 1
    for label in spatial:
        at = int(label)
        taps *= _taps(
            *(dims[names.index(label)] for dims, names in ((left, inputs), (right, kernel), (result, outputs))),
            **{key: value.split("x")[at] for key, value in given.items()},
        )
    outer = math.prod(size for size, label in zip(result, outputs, strict=True) if not label.isdigit())
    return 2.0 * outer * taps * right[kernel.index("i")]


def _taps(extent: int, taps: int, places: int, **window: str) -> int:
    """How many pairs of a window's place and an output's place meet an element of the input, along one dimension."""
    stride, spread, dilation = (int(window.get(key, 1)) for key in ("stride", "rhs_dilate", "lhs_dilate"))
    padding = int(window.get("pad", "0_0").split("_")[0])
    place = np.arange(places)[:, None] * stride + np.arange(taps)[None, :] * spread - padding
    return int(((place >= 0) & (place <= (extent - 1) * dilation) & (place % dilation == 0)).sum())
