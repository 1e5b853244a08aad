"""What a computation takes: operations of its matrix products, bytes of its collectives."""

from __future__ import annotations

import math
import re
from collections import Counter

import jax.extend

# Bytes of an element, for the types that a step has.
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8}
_OPERATION = re.compile(
    r"= (?P<shapes>\(.*?\)|\S+) "
    r"(?P<name>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)
_SHAPE = re.compile(r"(?P<type>[a-z]+\d*)\[(?P<sizes>[\d,]*)\]")


def count_products(jaxpr) -> int:
    """Of a jaxpr without loops: 2 × the sizes of the result and of what is summed over."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (summed, _), _ = equation.params["dimension_numbers"]
            operand = equation.invars[0].aval.shape
            total += 2 * equation.outvars[0].aval.size * math.prod(operand[i] for i in summed)
        total += sum(map(count_products, jax.extend.core.jaxprs_in_params(equation.params)))
    return total


def collective_bytes(program: str) -> dict[str, int]:
    """Bytes of the results of a compiled program's collective operations, by their name."""
    total: Counter[str] = Counter()
    for found in _OPERATION.finditer(program):
        for shape in _SHAPE.finditer(found["shapes"]):
            count = math.prod(int(n) for n in shape["sizes"].split(",") if n)
            total[found["name"]] += count * _BYTES[shape["type"]]
    return dict(total)
