"""Functions of one or two arrays, element by element, which take as long as memory does.

A thread takes four elements at a time: it asks for all four before it needs the first, so that more of memory's answers
are on their way at once. Elements that neighbours take lie side by side, and its own four a whole grid apart.
"""

import functools

from numba.types import int64

from kernels.cuda.array import empty
from kernels.cuda.device import Kernel, cuda

#: Elements that a thread takes at a time.
_AT_ONCE = 4


class Elementwise:
    """A function of every element of one array, or of two of one shape.

    Parameters
    ----------
    name : str
        File and function: ``"sigmoid.sigmoid_kernel"``.
    inputs : int
        How many arrays: 1 or 2.
    function : callable
        Takes a floating type T and returns a `device_function` of one or two numbers of that type.
    """

    def __init__(self, name, inputs, function):
        make = _of_one if inputs == 1 else _of_two
        self._kernel = Kernel(
            functools.cache(lambda T: make(function(T))), lambda T: ((T[::1],) * (1 + inputs)) + (int64,), name
        )

    def __call__(self, *arrays):
        """Return a new device array of the function's values."""
        first = arrays[0]
        y = empty(first.shape, first.dtype)
        self._kernel.over(-(-first.size // _AT_ONCE), y.raw, *(a.raw for a in arrays), first.size)
        return y


def _of_one(function):
    def kernel(y, a, count):
        i, step = cuda.grid(1), cuda.gridsize(1)
        while i + 3 * step < count:
            a0, a1, a2, a3 = a[i], a[i + step], a[i + 2 * step], a[i + 3 * step]
            y[i], y[i + step] = function(a0), function(a1)
            y[i + 2 * step], y[i + 3 * step] = function(a2), function(a3)
            i += 4 * step
        while i < count:
            y[i] = function(a[i])
            i += step

    return kernel


def _of_two(function):
    def kernel(y, a, b, count):
        i, step = cuda.grid(1), cuda.gridsize(1)
        while i + 3 * step < count:
            a0, a1, a2, a3 = a[i], a[i + step], a[i + 2 * step], a[i + 3 * step]
            b0, b1, b2, b3 = b[i], b[i + step], b[i + 2 * step], b[i + 3 * step]
            y[i], y[i + step] = function(a0, b0), function(a1, b1)
            y[i + 2 * step], y[i + 3 * step] = function(a2, b2), function(a3, b3)
            i += 4 * step
        while i < count:
            y[i] = function(a[i], b[i])
            i += step

    return kernel
