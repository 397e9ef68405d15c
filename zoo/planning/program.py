"""The work of a compiled program: products, memory traffic and messages, with all turns of its loops.

JAX's `cost_analysis` counts the body of a loop once, so a scanned stack of 96 layers would look like one layer.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from zoo.planning.hlo import Computation, Instruction, arrays, collective, parsed, replica_groups
from zoo.planning.products import Product, product
from zoo.planning.traffic import moved

# Names for values, control flow whose work is counted inside, and beginnings whose end is counted.
_FREE = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "while", "call", "conditional", "after-all"}
_FREE |= {"partition-id", "replica-id", "opt-barrier", "optimization-barrier", "domain"}
_FREE |= {"copy-start", "slice-start", "async-update", "send", "send-done", "recv"}


@dataclass(frozen=True)
class Kernel:
    """A kernel that runs `times` times: its matrix products, and the bytes that it moves between HBM and the chip.
    `kind` is its opcode, or the library's function that it calls; `labels` say where in the traced function it comes
    from, its own result first."""

    name: str
    kind: str
    labels: tuple[str, ...]
    products: tuple[Product, ...]
    bytes: int
    times: int

    @property
    def flops(self) -> float:
        return sum(p.flops for p in self.products)


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
        return [kernel for run in self._runs() for kernel in self._kernels(*run)]

    @property
    def bytes(self) -> int:
        """Bytes that the kernels of one device move."""
        return sum(kernel.bytes * kernel.times for kernel in self.kernels)

    @property
    def flops(self) -> float:
        """FLOPs of one device's matrix products."""
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
                    if kind := collective(inner.opcode):
                        channel = re.search(r"channel_id=(\d+)", inner.attributes)
                        key = f"{kind} {channel[1] if channel else inner.name}"
                        beside = where.startswith("async") or self._beside_kernels(one, computation)
                        before = found.get(key) or self._collective(inner, where, times)
                        found[key] = replace(before, overlapped=before.overlapped or beside)
        return [message for message in found.values() if message.group > 1]

    def _beside_kernels(self, begun: Instruction, computation: Computation) -> bool:
        """Whether kernels lie between the beginning of a message and its end, in the order that they run in."""
        if not begun.opcode.endswith("-start") or '"is_sync":true' in begun.attributes:
            return False
        behind = iter(computation.values())
        for one in behind:
            if one is begun:
                break
        for one in behind:
            if begun.name in one.operands and one.opcode.endswith("-done"):
                return False
            if one.opcode not in _FREE and not collective(one.opcode) and not one.opcode.endswith("-done"):
                return True
        return False

    def _runs(self, start: str = "") -> Iterator[tuple[Computation, int]]:
        """Every computation that control flow reaches from `start` (default: the program's entry), and how often. Of a
        conditional's branches, the one that moves the most bytes counts."""
        waiting = [(start or self.entry, 1)]
        while waiting:
            name, times = waiting.pop()
            computation = self.computations[name]
            yield computation, times
            for one in computation.values():
                if one.opcode == "while":
                    trips = self._trips(one)
                    waiting += [(body, times * trips) for body in one.called("body")]
                elif one.opcode == "call":
                    waiting += [(called, times) for called in one.called("to_apply")]
                elif one.opcode == "conditional":
                    branches = one.called("branch_computations", "true_computation", "false_computation")
                    waiting.append((max(branches, key=self._moved_from), times))

    def _moved_from(self, start: str) -> int:
        runs = self._runs(start)
        return sum(kernel.bytes * kernel.times for run in runs for kernel in self._kernels(*run))

    def _trips(self, loop: Instruction) -> int:
        """The trip count from XLA, or else from the counter's step in the body and its bound in the condition."""
        if known := re.search(r'known_trip_count"?:\{"n":"(\d+)"', loop.attributes):
            return int(known[1])
        condition, body = (self.computations[loop.called(key)[0]] for key in ("condition", "body"))
        bound = max((n for one in condition.values() if (n := _scalar(one)) is not None), default=1)
        return -(-bound // self._step(condition, body))

    def _step(self, condition: Computation, body: Computation) -> int:
        """The counter's increment per turn: 2 if XLA has unrolled a product that gathers along the way."""
        read = [one for one in condition.values() if one.opcode == "get-tuple-element" and "[]" in one.shape]
        places = [re.search(r"index=(\d+)", one.attributes)[1] for one in read]
        root = list(body.values())[-1]
        if len(places) != 1 or root.opcode != "tuple":
            return 1
        added = body[root.operands[int(places[0])]]
        return max((n for x in added.operands if (n := _scalar(body[x])) is not None), default=1)

    def _inside(self, one: Instruction, where: str = "") -> Iterator[tuple[str, Instruction]]:
        """`one` and everything fused into it, each with the name of its computation."""
        yield where, one
        for called in one.called("calls"):
            for inner in self.computations[called].values():
                yield from self._inside(inner, called)

    def _kernels(self, computation: Computation, times: int) -> Iterator[Kernel]:
        for one in computation.values():
            if one.opcode not in _FREE and one.target != "AllocateBuffer" and not collective(one.opcode):
                kernel = self._kernel(one, computation, times)
                if kernel.bytes or kernel.products:
                    yield kernel

    def _kernel(self, one: Instruction, computation: Computation, times: int) -> Kernel:
        products, labels, targets = [], [one.label], [one.target]
        for where, inner in self._inside(one):
            home = self.computations[where] if where else computation
            if found := product(inner, [a for x in inner.operands if x in home for a in arrays(home[x].shape)]):
                products.append(found)
            targets.append(inner.target)
        inside = [inner.label for _, inner in self._inside(one)]
        kind = next(filter(None, targets), one.opcode.removesuffix("-start"))
        size = moved(one, computation, self.computations)
        return Kernel(one.name, kind, tuple(filter(None, labels + inside[::-1])), tuple(products), size, times)

    def _collective(self, one: Instruction, where: str, times: int) -> Collective:
        kind = collective(one.opcode)
        if "all-reduce-scatter" in where:  # how TPU programs write a reduce-scatter
            kind = "reduce-scatter"
        group = self._group(one)
        results = arrays(one.shape)
        if one.opcode.endswith("-start") and kind != "all-reduce":
            results = [a for a in results if a.dims]  # without the counters of a permutation
            results = results[len(results) // 2 :]
        size = sum(a.bytes for a in results)
        if kind == "reduce-scatter" and collective(one.opcode) == "reduce-scatter":
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
