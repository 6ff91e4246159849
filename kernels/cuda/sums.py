"""Sums and largest values along axes of device arrays, in a fixed order.

The axes that stay go to the front, and what is left is one run per result. Sums are those of ``add``'s gradient. The
largest of a long run is found in a few launches: those of its parts first, then that of these.
"""

import math

from numba.types import int64

from kernels.cuda.add import sum_to
from kernels.cuda.array import empty
from kernels.cuda.device import cuda, kernel
from kernels.cuda.strides import full, whole

#: How long a run is too long for one thread, and into how many parts it is cut then.
_LONG, _PARTS = 256, 1024


def _kept(shape, axes):
    return tuple(1 if axis in axes else size for axis, size in enumerate(shape))


def sum_along(a, axes, keepdims):
    """Return the sums over axes.

    Parameters
    ----------
    a : DeviceArray
        Float32 or float64.
    axes : tuple of int
        From 0 to the number of axes less 1.
    keepdims : bool
        Keep the axes, with size 1.

    Returns
    -------
    DeviceArray
        Of the type of the array.
    """
    kept = _kept(a.shape, axes)
    y = full(kept, 0, a.dtype) if not a.size else sum_to(a, kept)
    return y if keepdims else y.reshape(tuple(size for axis, size in enumerate(a.shape) if axis not in axes))


def largest_along(a, axes, keepdims):
    """Return the largest values over axes; NaN if there is one.

    Parameters
    ----------
    a : DeviceArray
        Any number type.
    axes : tuple of int
        From 0 to the number of axes less 1.
    keepdims : bool
        Keep the axes, with size 1.

    Returns
    -------
    DeviceArray
        Of the type of the array.

    Raises
    ------
    ValueError
        If there is nothing to choose from.
    """
    staying = tuple(axis for axis in range(a.ndim) if axis not in axes)
    size, count = (math.prod(a.shape[axis] for axis in some) for some in (axes, staying))
    if count and not size:
        raise ValueError(f"max of a device array of shape {a.shape} over axes {tuple(axes)}, which hold nothing")
    y = whole(a).turned((*staying, *axes)).copied() if staying != tuple(range(len(staying))) else a
    while count and size > 1:
        parts = 1 if size <= _LONG else min(_PARTS, -(-size // _LONG))
        found = empty((count, parts), a.dtype)
        _largest_kernel.over(found.size, found.raw, y.raw, size, parts, found.size)
        y, size = found, parts
    if y is a:
        y = a.copy()
    return y.reshape(_kept(a.shape, axes) if keepdims else tuple(a.shape[axis] for axis in staying))


@kernel(lambda T: (T[::1], T[::1], int64, int64, int64))
def _largest_kernel(y, a, size, parts, count):
    """A thread: one part of a run, every ``parts``-th element of it, as its neighbours read the neighbours."""
    for i in range(cuda.grid(1), count, cuda.gridsize(1)):
        start = i // parts * size
        best = a[start + i % parts]
        for k in range(start + i % parts + parts, start + size, parts):
            if not (best >= a[k]) and best == best:  # a NaN takes over, and stays
                best = a[k]
        y[i] = best
