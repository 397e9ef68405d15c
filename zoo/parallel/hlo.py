"""What a compiled program does, read from its HLO text: products, memory traffic and messages, loops counted in full.

`cost_analysis` of JAX counts the body of a loop once; a scanned stack of 96 layers would so look like a single one.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

COLLECTIVES = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")
# Names for values, control flow whose work is counted inside, and beginnings whose end is counted.
_FREE = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "while", "call", "conditional", "after-all"}
_FREE |= {"partition-id", "replica-id", "opt-barrier", "copy-start", "slice-start", "async-start", "async-update"}
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


@dataclass(frozen=True)
class Kernel:
    """What runs `times` times: FLOPs of its matrix products, and bytes that it moves between HBM and the chip."""

    name: str
    flops: float
    bytes: float
    times: int


@dataclass(frozen=True)
class Collective:
    """A message of all with all in `group` devices, `times` times. `bytes` is the whole array of one device: what a
    gather gives, and what all others take. `axes` are those of the mesh that the group spans."""

    kind: str
    bytes: int
    axes: tuple[str, ...]
    group: int
    times: int
    overlapped: bool

    @property
    def seconds_per_bandwidth(self) -> float:
        """Bytes through the slowest link of a ring, once; over the bandwidth it is the time.

        A gather sends all parts but one's own; a reduction to all gathers what it has scattered; all to all goes half
        the ring at most in each direction, so that a part crosses a quarter of the links on average.
        """
        parts = (self.group - 1) / max(self.group, 1) * self.bytes
        factor = {"all-reduce": 2.0, "all-to-all": self.group / 4}
        return self.bytes if self.kind == "collective-permute" else factor.get(self.kind, 1.0) * parts


class Program:
    """A compiled module. `mesh` names the axes and sizes that its devices are numbered by, the last fastest."""

    def __init__(self, text: str, mesh: dict[str, int]):
        self.mesh = mesh
        self.computations, self.entry = _parsed(text)
        self._written: dict[str, int] = {}

    @cached_property
    def kernels(self) -> list[Kernel]:
        found = []
        for computation, times in self._runs():
            for one in computation.values():
                if one.opcode not in _FREE and not _kind(one.opcode):
                    found.append(Kernel(one.name, self._flops(one), self._traffic(one, computation), times))
        return found

    @property
    def flops(self) -> float:
        """Of one device's matrix products."""
        return sum(kernel.flops * kernel.times for kernel in self.kernels)

    @cached_property
    def collectives(self) -> list[Collective]:
        """One for each channel: a message that runs beside several fused kernels is named by all of them."""
        found: dict[str, Collective] = {}
        for computation, times in self._runs():
            for one in computation.values():
                for where, inner in self._inside(one):
                    if _kind(inner.opcode):
                        channel = re.search(r"channel_id=(\d+)", inner.attributes)
                        key = channel[1] if channel else inner.name
                        beside = where.startswith("async") or inner.opcode.endswith("-start")
                        before = found.get(key) or self._collective(inner, where, times)
                        found[key] = replace(before, overlapped=before.overlapped or beside)
        return [message for message in found.values() if message.group > 1]

    def _runs(self) -> Iterator[tuple[Computation, int]]:
        """Every computation that control flow reaches, and how often."""
        waiting = [(self.entry, 1)]
        while waiting:
            name, times = waiting.pop()
            computation = self.computations[name]
            yield computation, times
            for one in computation.values():
                if one.opcode == "while":
                    trips = self._trips(one)
                    waiting += [(body, times * trips) for body in one.called("body")]
                elif one.opcode in ("call", "conditional"):
                    keys = ("to_apply", "branch_computations", "true_computation", "false_computation")
                    waiting += [(called, times) for called in one.called(*keys)]

    def _trips(self, loop: Instruction) -> int:
        """As XLA found it, or the bound that the condition compares the counter with."""
        if known := re.search(r'known_trip_count"?:\{"n":"(\d+)"', loop.attributes):
            return int(known[1])
        bounds = [
            int(re.match(r"-?\d+", one.attributes)[0])
            for name in loop.called("condition")
            for one in self.computations[name].values()
            if one.opcode == "constant" and one.shape.startswith("s32[]")
        ]
        return max(bounds, default=1)

    def _inside(self, one: Instruction, where: str = "") -> Iterator[tuple[str, Instruction]]:
        """`one` and all that is fused into it, each with the name of the computation that holds it."""
        yield where, one
        for called in one.called("calls"):
            for inner in self.computations[called].values():
                yield from self._inside(inner, called)

    def _flops(self, one: Instruction) -> float:
        total = 0.0
        for name, inner in self._inside(one):
            if inner.opcode in ("dot", "convolution"):
                operands = self.computations[name] if name else self._home(inner)
                total += _product_flops(inner, *(arrays(operands[x].shape)[0].dims for x in inner.operands[:2]))
            elif inner.opcode == "custom-call":
                total += _splash_flops(inner)
        return total

    def _home(self, one: Instruction) -> Computation:
        return next(c for c in self.computations.values() if c.get(one.name) is one)

    def _traffic(self, one: Instruction, computation: Computation) -> int:
        if one.opcode.endswith("-done"):
            return sum(a.bytes for a in arrays(one.shape))
        if one.opcode == "fusion":
            called = one.called("calls")[0]
            read = sum(
                min(computation[x].hbm_bytes, self._read(called, i))
                for i, x in enumerate(one.operands)
                if computation[x].hbm_bytes
            )
            return read + min(self._write(called), one.hbm_bytes)
        if one.opcode == "dynamic-update-slice":
            return 2 * computation[one.operands[1]].hbm_bytes
        if one.opcode in ("dynamic-slice", "gather", "slice", "broadcast", "iota"):
            return 2 * one.hbm_bytes
        return one.hbm_bytes + sum(computation[x].hbm_bytes for x in one.operands if x in computation)

    def _read(self, name: str, index: int) -> int:
        """Bytes of its parameter `index` that a fused computation reads: of a stack of layers, one's slice."""
        computation = self.computations[name]
        parameter = next(p for p in computation.values() if p.opcode == "parameter" and p.attributes == str(index))
        return self._read_of(computation, parameter)

    def _read_of(self, computation: Computation, value: Instruction) -> int:
        total = 0
        for user in computation.values():
            for position, operand in enumerate(user.operands):
                if operand == value.name:
                    total += self._read_by(computation, user, position, value)
        return total

    def _read_by(self, computation: Computation, user: Instruction, position: int, value: Instruction) -> int:
        if user.opcode == "fusion":
            return self._read(user.called("calls")[0], position)
        if user.opcode == "bitcast":
            return self._read_of(computation, user)
        if (user.opcode in ("tuple", "dynamic-update-slice") and position == 0) or _kind(user.opcode):
            return 0
        if user.opcode in ("dynamic-slice", "slice", "gather") and position == 0:
            return sum(a.bytes for a in arrays(user.shape))
        return 0 if user.opcode == "tuple" else sum(a.bytes for a in arrays(value.shape))

    def _write(self, name: str) -> int:
        computation = self.computations[name]
        return self._write_of(computation, list(computation.values())[-1])

    def _write_of(self, computation: Computation, one: Instruction) -> int:
        if one.opcode == "tuple":
            return sum(self._write_of(computation, computation[x]) for x in one.operands)
        if one.opcode == "bitcast":
            return self._write_of(computation, computation[one.operands[0]])
        if one.opcode == "dynamic-update-slice":
            return sum(a.bytes for a in arrays(computation[one.operands[1]].shape))
        if one.opcode == "fusion":
            return self._write(one.called("calls")[0])
        return 0 if one.opcode == "parameter" or _kind(one.opcode) else sum(a.bytes for a in arrays(one.shape))

    def _collective(self, one: Instruction, where: str, times: int) -> Collective:
        kind = _kind(one.opcode)
        if "all-reduce-scatter" in where:  # how TPU programs write a reduce-scatter
            kind = "reduce-scatter"
        group = self._group(one)
        results = arrays(one.shape)
        if one.opcode.endswith("-start") and kind != "all-reduce":
            results = results[len(results) // 2 :]
        size = sum(a.bytes for a in results)
        if kind == "reduce-scatter" and _kind(one.opcode) == "reduce-scatter":
            size *= len(group)
        coordinates = np.array(np.unravel_index(group, tuple(self.mesh.values())))
        varying = [len(set(along)) > 1 for along in coordinates.tolist()]
        axes = tuple(axis for axis, varies in zip(self.mesh, varying, strict=True) if varies)
        return Collective(kind, size, axes, len(group), times, overlapped=False)

    def _group(self, one: Instruction) -> list[int]:
        """The devices of the first group, by their numbers in the mesh."""
        if pairs := re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", one.attributes):
            return [int(pairs[1]), int(pairs[2])]
        return replica_groups(one.attributes, math.prod(self.mesh.values()))[0]


def replica_groups(attributes: str, devices: int) -> list[list[int]]:
    """The groups of devices of a collective, in each of the four forms that HLO writes them in: lists, an iota that is
    reshaped (and transposed), axes of an unnamed mesh, or nothing for all together."""
    found = re.search(r"replica_groups=(.*)", attributes)
    text = found[1] if found else ""
    if named := re.match(r"mesh\[([^\]]*)\](?:\s*,?\s*device_ids=\([^)]*\))?\s*\{([^}]*)\}", text):
        axes = {name: int(size) for name, size in re.findall(r"'?(\w+)'?=(\d+)", named[1])}
        chosen = [list(axes).index(name) for name in re.findall(r"'?(axis_\d+|\w+)'?", named[2])]
        rest = [i for i in range(len(axes)) if i not in chosen]
        grid = np.arange(devices).reshape(tuple(axes.values())).transpose(*rest, *chosen)
        return grid.reshape(-1, math.prod(list(axes.values())[i] for i in chosen)).tolist()
    if iota := re.match(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        shape, source = ([int(n) for n in iota[i].split(",")] for i in (1, 2))
        order = [int(n) for n in iota[3].split(",")] if iota[3] else range(len(source))
        return np.arange(math.prod(source)).reshape(source).transpose(order).reshape(shape).tolist()
    lists = re.match(r"\{(\{[\d,{}\s]*\})\}", text)
    if lists:
        return [[int(n) for n in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", lists[1])]
    return [list(range(devices))]


def _kind(opcode: str) -> str:
    """The collective that an instruction begins, or nothing."""
    return next((kind for kind in COLLECTIVES if opcode in (kind, f"{kind}-start")), "")


def _splash_flops(one: Instruction) -> float:
    products = next((n for name, n in _SPLASH.items() if one.name.startswith(name)), 0)
    if not products:
        return 0.0
    rows, heads, length, size = max(
        (a.dims for a in arrays(one.shape) if len(a.dims) == 4), key=lambda d: d[:1] + d[2:3]
    )
    return 2.0 * products * rows * heads * length * length * size


def _product_flops(one: Instruction, left: Sequence[int], right: Sequence[int]) -> float:
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


def _parsed(text: str) -> tuple[dict[str, Computation], str]:
    computations, entry, current = {}, "", None
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line):
            current = computations.setdefault(head[2], {})
            entry = head[2] if head[1] else entry
        elif current is not None and " = " in line:
            one = _instruction(line)
            current[one.name] = one
    return computations, entry


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
        left.split()[-1].lstrip("%"), shape, opcode, tuple(re.findall(r"%([\w.\-]+)", inside)), attributes
    )


def _closing(text: str) -> int:
    """Behind the parenthesis that closes the first."""
    depth = 0
    for place, letter in enumerate(text):
        depth += _OPENED.get(letter, 0)
        if not depth:
            return place + 1
    raise ValueError(f"a parenthesis is never closed: {text[:80]}")
