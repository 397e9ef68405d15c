"""The work of a traced function: the operations of its matrix products, and how many of these products have to wait for
each other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal


@dataclass(frozen=True)
class Work:
    """`flops` count two for each multiplication of a matrix product. `steps` are the products on the longest path from
    an input to an output: however many processors there are, these run one after the other."""

    flops: float
    steps: int


def work_of(function: Callable, *arguments: Any) -> Work:
    """The work of `function(*arguments)`, loops counted in full; nothing is computed.

    Raises `ValueError` for a product inside a loop whose length is not known beforehand.
    """
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    flops, depths = _through(jaxpr, [0] * len(jaxpr.invars))
    return Work(flops, max(depths))


def _through(jaxpr: Jaxpr, depths: Sequence[int]) -> tuple[float, list[int]]:
    """Operations of `jaxpr`, and the depth of each output, from the depths of its inputs."""
    depth = dict(zip(jaxpr.invars, depths, strict=True))
    total = 0.0
    for equation in jaxpr.eqns:
        inputs = [0 if isinstance(v, Literal) else depth.get(v, 0) for v in equation.invars]
        flops, outputs = _of_equation(equation, inputs)
        total += flops
        depth.update(zip(equation.outvars, outputs, strict=True))
    return total, [0 if isinstance(v, Literal) else depth.get(v, 0) for v in jaxpr.outvars]


def _of_equation(equation: Any, inputs: list[int]) -> tuple[float, list[int]]:
    name, parameters = equation.primitive.name, equation.params
    if name == "scan":
        return _of_scan(parameters, inputs)
    flops, deepest = 0.0, max(inputs, default=0)
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        left = equation.invars[0].aval.shape
        size = prod(equation.outvars[0].aval.shape) * prod(left[axis] for axis in contracted)
        return 2.0 * size, [deepest + 1]
    inner = [_open(j) for value in parameters.values() for j in _jaxprs(value)]
    if name == "while" and any(_through(j, [0] * len(j.invars))[0] for j in inner):
        raise ValueError("a while loop with matrix products: how often it runs is not known")
    if len(inner) == 1 and len(inner[0].invars) == len(inputs):
        flops, outputs = _through(inner[0], inputs)
        return flops, outputs
    branches = [_through(one, [deepest] * len(one.invars)) for one in inner]
    flops = max((more for more, _ in branches), default=0.0)  # one of them runs: the largest is counted
    return flops, [max([deepest, *(d for _, outputs in branches for d in outputs)])] * len(equation.outvars)


def _of_scan(parameters: dict[str, Any], inputs: list[int]) -> tuple[float, list[int]]:
    constants, carried = parameters["num_consts"], parameters["num_carry"]
    body = _open(parameters["jaxpr"])
    fixed, carry, read = inputs[:constants], inputs[constants : constants + carried], inputs[constants + carried :]
    flops, written = 0.0, [0] * (len(body.outvars) - carried)
    for _ in range(parameters["length"]):
        more, outputs = _through(body, [*fixed, *carry, *read])
        flops += more
        carry = outputs[:carried]
        written = [max(pair) for pair in zip(written, outputs[carried:], strict=True)]
    return flops, [*carry, *written]


def _jaxprs(value: Any) -> list[Any]:
    if isinstance(value, ClosedJaxpr | Jaxpr):
        return [value]
    return [j for item in value for j in _jaxprs(item)] if isinstance(value, tuple | list) else []


def _open(jaxpr: Any) -> Jaxpr:
    return jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
