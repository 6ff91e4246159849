"""What a case is, and builders of seeded inputs for the rows of the table in ``cases.py``."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import kernels

#: Widths around the vector widths of 4, 8 and 16 elements, and multiples of them.
WIDTHS = (1, 2, 7, 8, 15, 16, 17, 31, 33, 47, 48, 49)


class Case(NamedTuple):
    """One call of an operator: ``forward(**make(rng, dtype), **parameters)``."""

    operator: str
    name: str
    forward: str
    backward: str | None
    make: Callable[[np.random.Generator, Any], dict]
    parameters: dict
    #: Least magnitude that errors are measured against; see tolerances.py.
    scale: float = 1.0

    def __str__(self):
        return f"{self.forward.removesuffix('_forward')}-{self.name}"

    def inputs(self, dtype):
        """Return the inputs, always the same for one case and type (float32 inputs are the float64 ones, rounded)."""
        return self.make(np.random.default_rng(20), np.dtype(dtype))


def normal(**shapes):
    """Return a builder of normal numbers: one array per name and shape, None for a shape of None."""

    def make(rng, dtype):
        return {
            name: None if shape is None else np.asarray(rng.standard_normal(shape), dtype)
            for name, shape in shapes.items()
        }

    return make


def filled(make, **values):
    """Return a builder that writes ``values[name]``, pairs of index and value, over what ``make`` builds."""

    def changed(rng, dtype):
        inputs = make(rng, dtype)
        for name, places in values.items():
            for index, value in places:
                inputs[name][index] = value
        return inputs

    return changed


def integers(low, high, **shapes):
    """Return a builder of whole numbers as floats, so that ties occur."""
    return lambda rng, dtype: {name: rng.integers(low, high, shape).astype(dtype) for name, shape in shapes.items()}


def case(function, name, make, scale=1.0, **parameters):
    """Return a case of ``function``: of the pair of that name or, where there is no gradient, of one function."""
    for operator, names in kernels.CONTRACT.items():
        if function in names:
            return Case(operator, name, function, None, make, parameters, scale)
    operator = next(file for file, names in kernels.CONTRACT.items() if f"{function}_forward" in names)
    return Case(operator, name, f"{function}_forward", f"{function}_backward", make, parameters, scale)


def loss_inputs(shape, weight=None, pos_weight=None, probability=False, hard=False, edges=None):
    """Return a builder of x or p, target and weights of these shapes; ``edges`` replaces first values of x or p."""
    name = "p" if probability else "x"

    def make(rng, dtype):
        first = rng.uniform(0.05, 0.95, shape) if probability else 2 * rng.standard_normal(shape)
        target = rng.integers(0, 2, shape).astype(float) if hard else rng.uniform(0, 1, shape)
        values = {name: np.asarray(first, dtype), "target": np.asarray(target, dtype)}
        if edges is not None:
            values[name].reshape(-1)[: len(edges)] = edges
        for key, of_shape in (("weight", weight), ("pos_weight", pos_weight)):
            if of_shape is not None:
                values[key] = np.asarray(rng.uniform(0.2, 3, of_shape), dtype)
        return values

    return make
