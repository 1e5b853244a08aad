"""How many operations the matrix products of a computation take."""

from __future__ import annotations

import math

import jax.extend


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
