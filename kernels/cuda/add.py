"""Sum of two arrays, with broadcasting: an axis of size 1, or a missing first axis, is repeated as often as needed.

Arrays of one shape are added as ``elementwise`` says, others as ``strides`` does.

The gradient of a repeated summand is a sum over each run of repeated axes, one after the other: an array of
(before, size, after), summed over the middle. Where the sums are many, each is one thread's, whose neighbours read
neighbours; where they are few and long, several blocks take parts of each, which a second launch adds up.
"""

import math

import numpy as np
from numba.types import float64, int64

from kernels import checks
from kernels.cuda.arithmetic import OPERATIONS
from kernels.cuda.array import empty, on_device
from kernels.cuda.device import cuda, device_function, kernel
from kernels.cuda.elementwise import Elementwise
from kernels.cuda.reduction import PARTS, SUM_THREADS, block_sum
from kernels.cuda.strides import joined, steps_of, whole

#: How long a sum is too long for one thread.
_LONG = 64


def add_forward(a, b):
    """Add two arrays.

    Parameters
    ----------
    a, b : ndarray or DeviceArray
        Float32 or float64, of one type; their shapes broadcast as in NumPy.

    Returns
    -------
    DeviceArray
        The sum, of the common shape.

    Raises
    ------
    TypeError
        If an array has another type than float32 or float64, or b not a's.
    ValueError
        If the shapes do not broadcast.
    """
    a, b, shape = checks.add(a, b)
    a, b = on_device(a, b)
    if a.shape == b.shape:
        return _add(a, b)
    y = empty(shape, a.dtype)
    OPERATIONS[np.add].run(whole(y), whole(a).repeated(shape), whole(b).repeated(shape))
    return y


def add_backward(dy, a_shape, b_shape):
    """Return the gradients of a sum.

    Parameters
    ----------
    dy : ndarray or DeviceArray
        Gradient of the sum.
    a_shape, b_shape : tuple of int
        Shapes of what was added.

    Returns
    -------
    da, db : DeviceArray
        Gradients, of the shapes given.

    Raises
    ------
    TypeError, ValueError
        If dy is not an array of the shape that the two broadcast to.
    """
    dy, a_shape, b_shape = checks.add_gradient(dy, a_shape, b_shape)
    (dy,) = on_device(dy)
    return sum_to(dy, a_shape), sum_to(dy, b_shape)


def expanded(a, shape):
    """Return a device array repeated along axes as often as ``shape``, to which it broadcasts, needs it."""
    return a if a.shape == tuple(shape) else whole(a).repeated(shape).copied()


@device_function
def _plus(a, b):
    return a + b


_add = Elementwise("add.add_kernel", 2, lambda T: _plus)


# ---- sums over repeated axes -----------------------------------------------------------------------------------------


def sum_to(dy, shape):
    """Return ``dy`` summed to ``shape``, always a new array."""
    if not math.prod(shape) or not dy.size:
        da = empty(shape, dy.dtype)
        _sum_kernel.over(da.size, da.raw, dy.raw, 0, 1, da.size)  # of nothing
        return da
    sizes, (steps, _) = joined(dy.shape, [steps_of(shape, repeated_to=dy.shape), steps_of(dy.shape)])
    if all(steps):  # no axis is repeated; one thread's sum of a single element is a copy
        da = empty(shape, dy.dtype)
        _sum_kernel.over(dy.size, da.raw, dy.raw, 1, dy.size, dy.size)
        return da
    for axis in [axis for axis, step in enumerate(steps) if step == 0]:
        before, after = math.prod(sizes[:axis]), math.prod(sizes[axis + 1 :])
        dy = _sum_middle(dy, before, sizes[axis], after)
        sizes = (*sizes[:axis], 1, *sizes[axis + 1 :])
    return dy.reshape(shape)


def _sum_middle(a, before, size, after):
    """Return the sums of an array of (before, size, after) over its middle axis, in the type of the array."""
    y = empty((before * after,), a.dtype)
    if size <= _LONG or (after > 1 and y.size >= PARTS * SUM_THREADS):
        _sum_kernel.over(y.size, y.raw, a.raw, size, after, y.size)
        return y
    # as many parts as keep the GPU busy, however few the sums are
    parts = max(1, min(PARTS // y.size, size // (SUM_THREADS * 4)))
    partials = empty((y.size * parts,), np.float64)
    _partial_sums_kernel.run(
        min(y.size * parts, 1 << 20), SUM_THREADS, partials.raw, a.raw, size, after, parts, y.size, dtype=a.dtype
    )
    _add_parts_kernel.over(y.size, y.raw, partials.raw, parts, y.size)
    return y


@kernel(lambda T: (T[::1], T[::1], int64, int64, int64))
def _sum_kernel(y, a, size, after, count):
    for i in range(cuda.grid(1), count, cuda.gridsize(1)):
        start = i // after * size * after + i % after
        total = float64(0)
        for k in range(size):
            total += a[start + k * after]
        y[i] = total


@kernel(lambda T: (float64[::1], T[::1], int64, int64, int64, int64))
def _partial_sums_kernel(partials, a, size, after, parts, count):
    length = (size + parts - 1) // parts
    for task in range(cuda.blockIdx.x, count * parts, cuda.gridDim.x):
        i, part = task // parts, task % parts
        start = i // after * size * after + i % after
        total = float64(0)
        for k in range(part * length + cuda.threadIdx.x, min((part + 1) * length, size), SUM_THREADS):
            total += a[start + k * after]
        total = block_sum(total)
        if cuda.threadIdx.x == 0:
            partials[task] = total


@kernel(lambda T: (T[::1], float64[::1], int64, int64))
def _add_parts_kernel(y, partials, parts, count):
    for i in range(cuda.grid(1), count, cuda.gridsize(1)):
        total = float64(0)
        for part in range(parts):
            total += partials[i * parts + part]
        y[i] = total
