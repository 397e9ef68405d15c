"""The text of a compiled program (HLO): its computations, instructions and shapes, and what one of them computes."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_WIDTHS = {"pred": 1, "bf16": 2, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\](\{[^}]*\})?")
_OPENED = {"(": 1, ")": -1}
# Matrix products of one pass of the splash kernels over the table of queries by keys, two FLOPs each: q·k and p·v;
# backward, each kernel computes q·k and the gradient of p again, then one more or two more.
_SPLASH = {"splash_mha_fwd": 2, "splash_mha_dq": 3, "splash_mha_dkv": 4}


@dataclass(frozen=True)
class Array:
    """One array of a shape: its dimensions, bytes, and whether it lies in HBM (not in the chip's fast memory)."""

    dims: tuple[int, ...]
    bytes: int
    in_hbm: bool


def arrays(shape: str) -> list[Array]:
    """The arrays of a shape or of a tuple of shapes, as HLO writes them."""
    found = []
    for dtype, dims, layout in _ARRAY.findall(shape):
        width = _WIDTHS.get(dtype) if dtype in _WIDTHS else max(int(re.search(r"\d+", dtype)[0]) // 8, 1)
        sizes = tuple(int(n) for n in dims.split(",") if n)
        found.append(Array(sizes, math.prod(sizes) * width, "S(" not in layout))
    return found


@dataclass(frozen=True)
class Instruction:
    """`name = shape opcode(operands), attributes`."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str

    def called(self, *keys: str) -> list[str]:
        """The computations that these attributes name."""
        found = []
        for key in keys:
            for group in re.findall(rf"\b{key}=(\{{[^}}]*\}}|%?[\w.\-]+)", self.attributes):
                found += re.findall(r"%?([\w.\-]+)", group)
        return found

    @cached_property
    def hbm_bytes(self) -> int:
        return sum(a.bytes for a in arrays(self.shape) if a.in_hbm)


Computation = dict[str, Instruction]


def parsed(text: str) -> tuple[dict[str, Computation], str]:
    computations, entry, current = {}, "", None
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line):
            current = computations.setdefault(head[2], {})
            entry = head[2] if head[1] else entry
        elif current is not None and " = " in line:
            one = _instruction(line)
            for name in one.operands:
                if "#" in name and name not in current:
                    current[name] = _element(current, name)
            current[one.name] = one
    return computations, entry


def _element(computation: Computation, name: str) -> Instruction:
    """`tuple#2`, as newer compilers write it, as the instruction that older ones have for it."""
    whole, _, index = name.partition("#")
    return Instruction(
        name, _elements(computation[whole].shape)[int(index)], "get-tuple-element", (whole,), f"index={index}"
    )


def _elements(shape: str) -> list[str]:
    """The shapes in a tuple."""
    found, depth = [""], 0
    for letter in shape[1:-1]:
        depth += {**_OPENED, "[": 1, "{": 1, "]": -1, "}": -1}.get(letter, 0)
        if letter == "," and not depth:
            found.append("")
        else:
            found[-1] += letter
    return [re.sub(r"/\*.*?\*/", "", part).strip() for part in found]


def _instruction(line: str) -> Instruction:
    left, _, right = line.strip().partition(" = ")
    end = _closing(right) if right.startswith("(") else right.index(" ")
    shape, right = right[:end], right[end:].lstrip()
    opcode, _, rest = right.partition("(")
    end = _closing(f"({rest}") - 2
    inside, attributes = rest[:end], rest[end + 1 :].lstrip(", ")
    if opcode in ("parameter", "constant"):
        attributes = inside
    return Instruction(
        left.split()[-1].lstrip("%"), shape, opcode, tuple(re.findall(r"%([\w.\-]+(?:#\d+)?)", inside)), attributes
    )


def _closing(text: str) -> int:
    """Behind the parenthesis that closes the first."""
    depth = 0
    for place, letter in enumerate(text):
        depth += _OPENED.get(letter, 0)
        if not depth:
            return place + 1
    raise ValueError(f"a parenthesis is never closed: {text[:80]}")


def replica_groups(attributes: str, devices: int) -> list[list[int]]:
    """The groups of devices of a collective, in each of the forms that HLO writes them in: lists, an iota that is
    reshaped, axes of an unnamed mesh of devices in any order, or nothing for all together.

    Raises ValueError for any other: a message over the wrong axes would look like one that nobody wants.
    """
    found = re.search(r"replica_groups=(.*)", attributes)
    text = found[1] if found else "{}"
    if text.startswith("{}"):
        return [list(range(devices))]
    if named := re.match(r"mesh\[([^\]]*)\](?:,? *device_ids=\(((?:[^()]|\([^)]*\))*)\))? *\{([^}]*)\}", text):
        axes = {name: int(size) for name, size in re.findall(r"'?(\w+)'?=(\d+)", named[1])}
        chosen = [list(axes).index(name) for name in re.findall(r"'?(axis_\d+|\w+)'?", named[3])]
        rest = [i for i in range(len(axes)) if i not in chosen]
        grid = _numbered(named[2] or f"[{devices}]").reshape(tuple(axes.values())).transpose(*rest, *chosen)
        return grid.reshape(-1, math.prod(list(axes.values())[i] for i in chosen)).tolist()
    if iota := re.match(r"\[([\d,]+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", text):
        return _numbered(iota[2]).reshape([int(n) for n in iota[1].split(",")]).tolist()
    if lists := re.match(r"\{(\{[\d,{}\s]*\})\}", text):
        return [[int(n) for n in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", lists[1])]
    raise ValueError(f"groups of devices in a form that is not known: {text[:120]}")


def _numbered(text: str) -> np.ndarray:
    """Devices in the order of an iota, as `[2,4]T(1,0)` is, or of a list."""
    iota = re.match(r"\[([\d,]+)\](?:T\(([\d,]+)\))?$", text)
    if iota is None:
        return np.array([int(n) for n in text.split(",")])
    shape = [int(n) for n in iota[1].split(",")]
    order = [int(n) for n in iota[2].split(",")] if iota[2] else range(len(shape))
    return np.arange(math.prod(shape)).reshape(shape).transpose(order).flatten()


def splash_flops(one: Instruction) -> float:
    products = next((n for name, n in _SPLASH.items() if one.name.startswith(name)), 0)
    if not products:
        return 0.0
    # `[rows, heads, length, size]`, without the first or the second where it is one.
    found = [a.dims for a in arrays(one.shape) if len(a.dims) >= 3]
    rank = max(map(len, found))
    dims = max((d for d in found if len(d) == rank), key=lambda d: (d[0], d[-2]))
    return 2.0 * products * math.prod(dims) * dims[-2]


def product_flops(one: Instruction, left: Sequence[int], right: Sequence[int]) -> float:
    """Two for each multiplication that a dot or a convolution needs; what meets only padding is not counted."""
    result = arrays(one.shape)[0].dims
    if one.opcode == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.attributes)[1]
        return 2.0 * math.prod(result) * math.prod(left[int(n)] for n in contracted.split(",") if n)
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
