"""A kernel made to find the tracer under the name ``cuda``, together with all functions that it calls."""

import builtins
import math
import sys
import types

import numpy as np

_LEFT_ALONE = (math, np, builtins)


def plain_function(kernel):
    """Return the Python function inside what a kernel was made into, None if there is none."""
    for name in ("py_func", "fn"):
        kernel = getattr(kernel, name, kernel)
    return kernel if isinstance(kernel, types.FunctionType) else None


class Rewriter:
    """Makes copies of functions whose ``cuda`` is a `Grid`, and so are all that they call.

    Parameters
    ----------
    cuda : Grid
        What takes the place of ``numba.cuda``.
    """

    def __init__(self, cuda):
        self._cuda = cuda
        self._made: dict = {}
        module = sys.modules.get("numba.cuda")
        self._own_names = {
            id(getattr(module, name)): name
            for name in (*dir(type(cuda)), *vars(cuda))
            if not name.startswith("_") and name != "laneid" and hasattr(module, name)
        }

    def function(self, function):
        """Return the copy of a function."""
        if function in self._made:
            return self._made[function]
        cells = tuple(types.CellType() for _ in function.__closure__ or ())
        copy = types.FunctionType(
            function.__code__, {"__builtins__": builtins, **function.__globals__}, function.__name__,
            function.__defaults__, cells,
        )  # fmt: skip
        copy.__kwdefaults__ = function.__kwdefaults__
        self._made[function] = copy  # before what it refers to: that may refer to it
        for name, cell, given in zip(function.__code__.co_freevars, cells, function.__closure__ or (), strict=True):
            try:
                cell.cell_contents = self.value(given.cell_contents, name)
            except ValueError:  # a variable that is not set
                continue
        for name in _names(function.__code__):
            if name in function.__globals__:
                copy.__globals__[name] = self.value(function.__globals__[name], name)
        copy.__globals__["cuda"] = self._cuda
        copy.__globals__.setdefault("range", self._cuda.range)
        return copy

    def value(self, value, name):
        """Return what takes the place of a value that a function refers to by a name."""
        if isinstance(value, types.FunctionType) and value.__module__ == "numba.cuda.libdevice":
            return getattr(self._cuda.libdevice, value.__name__)
        if isinstance(value, types.ModuleType):
            if value.__name__ == "numba.cuda" or value.__name__.startswith("numba.cuda.simulator"):
                return self._cuda
            return value if value in _LEFT_ALONE else _Module(self, value)
        if id(value) in self._own_names:
            return getattr(self._cuda, self._own_names[id(value)])
        if isinstance(value, np.ndarray):
            return self._cuda.const.traced(value, name)  # Numba compiles its values into the kernel
        inner = plain_function(value)
        return value if inner is None else self.function(inner)


class _Module:
    """A module whose functions are copied when they are asked for."""

    def __init__(self, rewriter, module):
        self._rewriter, self._module = rewriter, module

    def __getattr__(self, name):
        return self._rewriter.value(getattr(self._module, name), name)


def _names(code):
    """Return the global names that a function's code mentions, also inside functions in it."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names(constant)
    return names
