"""In the simulator: the arguments of every launch have the types that the kernel says it is compiled for.

The simulator has no types. So what is compiled without a GPU (``benchmarks.cuda_code``) is what a GPU is given, but for
integers in the place of floating-point numbers, which Numba compiles such kernels for when they come.
"""

import numpy as np
from numba import from_dtype, typeof, types

from kernels.cuda import device


def install():
    """Have every launch checked."""
    run = device.Kernel.run

    def checked(self, grid, block, *arguments, dtype=None):
        given, declared = tuple(map(_type, arguments)), self.signature(_FLOAT)
        fit = len(given) == len(declared) and all(map(_fits, given, declared))
        assert fit, f"{self!r} is started with {given}, and compiled for {declared}"
        run(self, grid, block, *arguments, dtype=dtype)

    device.Kernel.run = checked


#: Stands for the floating type in what kernels declare.
_FLOAT = types.float16


def _type(argument):
    """Return the type that Numba gives an argument."""
    if isinstance(argument, np.generic | int | float | tuple):
        return typeof(argument)
    return types.Array(from_dtype(argument.dtype), argument.ndim, "C")


def _fits(given, declared):
    """Return whether a type is the declared one, or any number for the floating type, alone or in records."""
    if isinstance(declared, types.Array) and isinstance(given, types.Array):
        both_records = isinstance(declared.dtype, types.Record) and isinstance(given.dtype, types.Record)
        if declared.dtype == _FLOAT or both_records:
            return given.ndim == declared.ndim
    return given == declared or (declared == _FLOAT and isinstance(given, types.Number))
