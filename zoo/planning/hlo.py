"""The text of a compiled program (HLO): its computations, instructions and shapes."""

import math
import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_WIDTHS = {"pred": 1, "bf16": 2, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\](\{[^}]*\})?")
_OPENED = {"(": 1, ")": -1}
COLLECTIVES = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")


@dataclass(frozen=True)
class Array:
    """One array of a shape: its dimensions, bytes, whether it lies in HBM (not in the chip's fast memory), and the type
    of its elements."""

    dims: tuple[int, ...]
    bytes: int
    in_hbm: bool
    dtype: str


def arrays(shape: str) -> list[Array]:
    """The arrays of a shape or of a tuple of shapes, as HLO writes them."""
    found = []
    for dtype, dims, layout in _ARRAY.findall(shape):
        width = _WIDTHS.get(dtype) if dtype in _WIDTHS else max(int(re.search(r"\d+", dtype)[0]) // 8, 1)
        sizes = tuple(int(n) for n in dims.split(",") if n)
        found.append(Array(sizes, math.prod(sizes) * width, "S(" not in layout, dtype))
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

    @cached_property
    def bytes(self) -> int:
        """Wherever they lie."""
        return sum(a.bytes for a in arrays(self.shape))

    @cached_property
    def target(self) -> str:
        """The kernel that a custom call names."""
        found = re.search(r'custom_call_target="([^"]+)"', self.attributes)
        return found[1] if found else ""

    @cached_property
    def label(self) -> str:
        """Where in the traced function the instruction comes from: scopes and the primitive, joined by slashes."""
        found = re.search(r'op_name="([^"]+)"', self.attributes)
        return found[1] if found else ""


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


def collective(opcode: str) -> str:
    """The collective that an instruction begins, or nothing."""
    return next((kind for kind in COLLECTIVES if opcode in (kind, f"{kind}-start")), "")


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
