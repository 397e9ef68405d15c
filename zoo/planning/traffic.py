"""The bytes that each kernel of a compiled program reads from the device's memory and writes to it.

Every array that a kernel reads or writes counts once; caches are ignored. If a kernel reads only slices of an array,
the slices count. An update in place counts what it replaces.
"""

import math
from collections import defaultdict
from functools import cached_property

from zoo.planning.hlo import Computation, Instruction, arrays, collective

_SLICES = ("slice", "dynamic-slice", "gather")
_UPDATES = {"dynamic-update-slice": 1, "scatter": 2}  # and which operand replaces parts of the first
_PIECES = ("broadcast", "concatenate", "pad")  # each element of the result comes from one element of one operand
_LIBRARIES = ("__cublas", "__cudnn")  # the last result of their kernels is scratch


def moved(one: Instruction, computation: Computation, computations: dict[str, Computation]) -> int:
    """Bytes that a kernel of `computation` moves, be it alone, fused or a library's. What runs beside other kernels
    counts where it ends if it is a message or a copy or slice into the chip's fast memory, else where it begins."""
    if one.opcode.endswith("-done"):
        begun = computation.get(one.operands[0]) if one.operands else None
        return 0 if begun and _is_kernel(begun, computations) else one.bytes
    if one.opcode == "async-start":
        return moved(*_wrapped(one, computations), computations) if _is_kernel(one, computations) else 0
    operands = {x: computation[x] for x in one.operands if x in computation}
    result = _results(one, sum(len(arrays(operand.shape)) for operand in operands.values()))
    if one.opcode.startswith("fusion"):
        fused = Fused(computations[one.called("calls")[0]], computations)
        return min(fused.written, result) + sum(
            min(operand.hbm_bytes, sum(fused.read(i) for i, x in enumerate(one.operands) if x == name))
            for name, operand in operands.items()
        )
    if one.opcode in _UPDATES:
        return 2 * computation[one.operands[_UPDATES[one.opcode]]].hbm_bytes
    if one.opcode in _SLICES:
        return 2 * result
    return result + sum(operand.hbm_bytes for operand in operands.values())


def _results(one: Instruction, operands: int) -> int:
    """Bytes that are written: not the `operands` that the beginning of an asynchronous kernel lists before its results,
    nor a library's scratch."""
    found = arrays(one.shape)
    if one.opcode.endswith("-start"):
        found = found[operands:]
    if one.target.startswith(_LIBRARIES) and len(found) > 1:
        found = found[:-1]
    return sum(a.bytes for a in found if a.in_hbm)


def _wrapped(start: Instruction, computations: dict[str, Computation]) -> tuple[Instruction, Computation]:
    """The instruction that runs asynchronously, and its computation."""
    computation = computations[start.called("calls")[0]]
    return list(computation.values())[-1], computation


def _is_kernel(start: Instruction, computations: dict[str, Computation]) -> bool:
    """Whether a beginning is that of a kernel, not of a copy or a message."""
    if start.opcode != "async-start":
        return start.opcode in ("fusion-start", "custom-call-start")
    inner, _ = _wrapped(start, computations)
    return inner.opcode in ("fusion", "custom-call", "dot", "reduce")


class Fused:
    """The bytes that a fused computation reads of each parameter, and those it writes."""

    def __init__(self, computation: Computation, computations: dict[str, Computation]):
        self.computation, self.computations = computation, computations
        self.root = list(computation.values())[-1]
        self.parameters = {int(one.attributes): one for one in computation.values() if one.opcode == "parameter"}

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        found = defaultdict(list)
        for one in self.computation.values():
            for operand in dict.fromkeys(one.operands):
                found[operand].append(one)
        return found

    @cached_property
    def shares(self) -> dict[str, float]:
        """For every value, the share of its elements that the results need."""
        found: dict[str, float] = {}
        for one in reversed(self.computation.values()):
            size = elements(one)
            needed = float(size) if one is self.root else 0.0
            for user in self.users[one.name]:
                needed += self._needed(one, size, user, found[user.name])
            found[one.name] = min(needed / size, 1.0) if size else 0.0
        return found

    def _needed(self, value: Instruction, size: int, user: Instruction, share: float) -> float:
        """Elements of `value` that `user` takes, of whose own elements the results need a `share`."""
        first = user.operands[0] == value.name
        if collective(user.opcode) or (user.opcode == "tuple" and value.opcode == "parameter"):
            return 0.0
        if user.opcode == "fusion" and self._named(user) is not user:
            return size * share
        if user.opcode == "fusion":
            inner = Fused(self.computations[user.called("calls")[0]], self.computations)
            places = [i for i, operand in enumerate(user.operands) if operand == value.name]
            return sum(size * inner.shares[inner.parameters[i].name] for i in places)
        if user.opcode in _UPDATES and first and self._in_place(user):
            return 0.0
        if user.opcode in _SLICES and first:
            return elements(user) * share
        return min(size, elements(user) * share) if user.opcode in _PIECES else size * share

    def read(self, index: int) -> int:
        """Bytes of parameter `index`."""
        parameter = self.parameters[index]
        return round(self.shares[parameter.name] * parameter.bytes)

    @cached_property
    def written(self) -> int:
        """Bytes of all results."""
        return self._written(self.root)

    def _written(self, one: Instruction) -> int:
        if one.opcode == "tuple":
            return sum(self._written(self.computation[x]) for x in one.operands)
        if one.opcode == "fusion":
            return Fused(self.computations[one.called("calls")[0]], self.computations).written
        named = self._named(one)
        if named.opcode == "parameter" or collective(named.opcode):
            return 0
        if named.opcode in _UPDATES and self._in_place(named):
            return self.computation[named.operands[_UPDATES[named.opcode]]].bytes
        return one.bytes

    def _in_place(self, update: Instruction) -> bool:
        """Whether an update replaces parts of a parameter where they lie, which then is a result."""
        return self._named(self.computation[update.operands[0]]).opcode == "parameter" and self._is_result(update)

    def _named(self, one: Instruction) -> Instruction:
        """What `one` is another name of: compilers also fuse copies of an array onto itself."""
        while one.opcode == "bitcast" or (one.opcode == "fusion" and self._copies_onto_itself(one)):
            one = self.computation[one.operands[0]]
        return one

    def _copies_onto_itself(self, one: Instruction) -> bool:
        inner = self.computations[one.called("calls")[0]].values()
        return "aliasing={{}: (0, {})}" in one.attributes and {x.opcode for x in inner} == {"parameter", "copy"}

    def _is_result(self, one: Instruction) -> bool:
        users = self.users[one.name]
        return one is self.root or any(
            user.opcode == "tuple" or (user.opcode == "bitcast" and self._is_result(user)) for user in users
        )


def elements(one: Instruction) -> int:
    return sum(math.prod(a.dims) for a in arrays(one.shape))
