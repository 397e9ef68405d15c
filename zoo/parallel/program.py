"""What a compiled program does: products, memory traffic and messages, loops counted in full.

`cost_analysis` of JAX counts the body of a loop once; a scanned stack of 96 layers would so look like a single one.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from zoo.parallel.hlo import Computation, Instruction, arrays, parsed, product_flops, replica_groups, splash_flops

COLLECTIVES = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")
# Names for values, control flow whose work is counted inside, and beginnings whose end is counted.
_FREE = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "while", "call", "conditional", "after-all"}
_FREE |= {"partition-id", "replica-id", "opt-barrier", "copy-start", "slice-start", "async-start", "async-update"}
_FREE |= {"send", "send-done", "recv"}


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
    gather gives, and what all others take. `axes` are those of the mesh that the group spans; `dcn_*`, of slices."""

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
    """A compiled module. `mesh` names the axes and sizes that the devices of a slice are numbered by, the last fastest;
    `across`, the `dcn_*` axes of more than one slice."""

    def __init__(self, text: str, mesh: dict[str, int], across: dict[str, int] | None = None):
        self.mesh, self.across = mesh, across or {}
        self.computations, self.entry = parsed(text)

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
        """One for each channel: a message that runs beside several fused kernels is named by all of them.

        What passes between slices is sent and received through the hosts, by as many chips as have a part of it.
        """
        found: dict[str, Collective] = {}
        for computation, times in self._runs():
            for one in computation.values():
                if one.opcode == "send" and "_xla_megascale_transfer_type" in one.attributes:
                    found[one.name] = self._between_slices(one, times)
                for where, inner in self._inside(one):
                    if kind := _kind(inner.opcode):
                        channel = re.search(r"channel_id=(\d+)", inner.attributes)
                        key = f"{kind} {channel[1] if channel else inner.name}"
                        beside = where.startswith("async") or "-start" in inner.opcode + one.opcode
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
        """As XLA found it; else how often the body's step takes a counter from zero to the bound in the condition."""
        if known := re.search(r'known_trip_count"?:\{"n":"(\d+)"', loop.attributes):
            return int(known[1])
        condition, body = (self.computations[loop.called(key)[0]] for key in ("condition", "body"))
        bound = max((n for one in condition.values() if (n := _scalar(one)) is not None), default=1)
        return -(-bound // self._step(condition, body))

    def _step(self, condition: Computation, body: Computation) -> int:
        """What a turn adds to the counter: two where XLA has unrolled a product that gathers as it goes."""
        read = [one for one in condition.values() if one.opcode == "get-tuple-element" and "[]" in one.shape]
        places = [re.search(r"index=(\d+)", one.attributes)[1] for one in read]
        root = list(body.values())[-1]
        if len(places) != 1 or root.opcode != "tuple":
            return 1
        added = body[root.operands[int(places[0])]]
        return max((n for x in added.operands if (n := _scalar(body[x])) is not None), default=1)

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
                total += product_flops(inner, *(arrays(operands[x].shape)[0].dims for x in inner.operands[:2]))
            elif inner.opcode == "custom-call":
                total += splash_flops(inner)
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
            results = [a for a in results if a.dims]  # without the counters of a permutation
            results = results[len(results) // 2 :]
        size = sum(a.bytes for a in results)
        if kind == "reduce-scatter" and _kind(one.opcode) == "reduce-scatter":
            size *= len(group)
        coordinates = np.array(np.unravel_index(group, tuple(self.mesh.values())))
        varying = [len(set(along)) > 1 for along in coordinates.tolist()]
        axes = tuple(axis for axis, varies in zip(self.mesh, varying, strict=True) if varies)
        return Collective(kind, size, axes, len(group), times, overlapped=False)

    def _between_slices(self, one: Instruction, times: int) -> Collective:
        kind = re.search(r'_xla_megascale_transfer_type="(\w+)"', one.attributes)[1].lower().replace("_", "-")
        size, slices = arrays(one.shape)[0].bytes, math.prod(self.across.values())
        whole = size * slices if kind == "all-gather" else size
        return Collective(kind, whole, tuple(self.across), slices, times, overlapped=False)

    def _group(self, one: Instruction) -> list[int]:
        """The devices of the first group, by their numbers in the mesh."""
        if pairs := re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", one.attributes):
            return [int(pairs[1]), int(pairs[2])]
        return replica_groups(one.attributes, math.prod(self.mesh.values()))[0]


def _scalar(one: Instruction) -> int | None:
    """The value of a whole number that is constant."""
    constant = one.opcode == "constant" and re.match(r"[su]\d+\[\]", one.shape)
    return int(re.match(r"-?\d+", one.attributes)[0]) if constant else None


def _kind(opcode: str) -> str:
    """The collective that an instruction begins, or nothing."""
    return next((kind for kind in COLLECTIVES if opcode in (kind, f"{kind}-start")), "")
