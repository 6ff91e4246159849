"""Sum of two arrays, with broadcasting: an axis of size 1, or a missing first axis, is repeated as often as needed.

Arrays of one shape are added as ``elementwise`` says. Otherwise it follows from an element's number where it lies in
either summand: neighbouring axes that are repeated alike count as one, so that most sums have two or three, and the
numbers are of 32 bits where the arrays allow it: a GPU divides those several times faster.

The gradient of a repeated summand is a sum over each run of repeated axes, one after the other: an array of
(before, size, after), summed over the middle. Where the sums are many, each is one thread's, whose neighbours read
neighbours; where they are few and long, several blocks take parts of each, which a second launch adds up.
"""

import math
import operator

import numpy as np
from numba.types import UniTuple, float64, int32, int64

from kernels import checks
from kernels.cuda.array import empty, on_device
from kernels.cuda.device import Kernel, cuda, device_function, kernel
from kernels.cuda.elementwise import Elementwise
from kernels.cuda.reduction import PARTS, SUM_THREADS, block_sum

#: Axes that a kernel takes, after those repeated alike have become one; how long a sum is too long for one thread.
_AXES, _LONG = 6, 64


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
    if y.size:
        _launch(_add_kernels, y, (a, b))
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
    if a.shape == tuple(shape):
        return a
    y = empty(shape, a.dtype)
    if y.size:
        _launch(_expand_kernels, y, (a,))
    return y


# ---- broadcasting ----------------------------------------------------------------------------------------------------


def _launch(kernels, y, arrays):
    """Start the kernel that writes y from arrays that broadcast to it; axes beyond `_AXES` are gone through here."""
    sizes, *steps = _runs(y.shape, *(a.shape for a in arrays))
    outer = max(0, len(sizes) - _AXES)
    inner = math.prod(sizes[outer:])
    kernel = kernels[max(y.size, *(a.size for a in arrays)) >= 1 << 30]
    pad = _AXES - len(sizes[outer:])
    inner_sizes = (1,) * pad + sizes[outer:]
    inner_steps = [(0,) * pad + s[outer:] for s in steps]
    for number, where in enumerate(np.ndindex(sizes[:outer])):
        offsets = [sum(map(operator.mul, where, s)) for s in steps]
        sources = [part for a, o, s in zip(arrays, offsets, inner_steps, strict=True) for part in (a.raw, o, s)]
        kernel.over(inner, y.raw, number * inner, *sources, inner_sizes, inner)


def _runs(shape, *others):
    """Return the sizes of a result whose axes of one kind are joined, and per array its step along each, 0 if repeated.

    An array's kind along an axis is whether it is repeated there.
    """
    padded = [(1,) * (len(shape) - len(other)) + tuple(other) for other in others]
    sizes: list[int] = []
    kinds: list[tuple[bool, ...]] = []
    for axis, size in enumerate(shape):
        kind = tuple(other[axis] == 1 for other in padded)
        if size == 1:
            continue
        if kinds and kinds[-1] == kind:
            sizes[-1] *= size
        else:
            sizes.append(size)
            kinds.append(kind)
    steps = []
    for which in range(len(others)):
        step, own = 1, []
        for size, kind in zip(reversed(sizes), reversed(kinds), strict=True):
            own.append(0 if kind[which] else step)
            step *= 1 if kind[which] else size
        steps.append(tuple(reversed(own)))
    return tuple(sizes), *steps


def _source(integer):
    @device_function
    def source(i, sizes, steps):
        """Return which element of an array lands at element ``i`` of the result."""
        at = integer(0)
        for axis in range(_AXES - 1, -1, -1):
            size = integer(sizes[axis])
            at += i % size * integer(steps[axis])
            i = i // size
        return at

    return source


def _add_source(integer):
    source = _source(integer)

    def broadcast_add_kernel(y, start, a, a_start, a_steps, b, b_start, b_steps, sizes, count):
        for i in range(integer(cuda.grid(1)), integer(count), integer(cuda.gridsize(1))):
            y[start + i] = a[a_start + source(i, sizes, a_steps)] + b[b_start + source(i, sizes, b_steps)]

    return lambda T: broadcast_add_kernel


def _expand_source(integer):
    source = _source(integer)

    def expand_kernel(y, start, a, a_start, a_steps, sizes, count):
        for i in range(integer(cuda.grid(1)), integer(count), integer(cuda.gridsize(1))):
            y[start + i] = a[a_start + source(i, sizes, a_steps)]

    return lambda T: expand_kernel


def _both(make, arrays, name):
    """Return a kernel that counts in 32 bits, and one for very large arrays."""
    steps = UniTuple(int64, _AXES)
    return [
        Kernel(
            make(integer),
            lambda T: (T[::1], int64, *(part for _ in range(arrays) for part in (T[::1], int64, steps)), steps, int64),
            f"add.{name}{bits}",
        )
        for integer, bits in ((int32, 32), (int64, 64))
    ]


_add_kernels = _both(_add_source, 2, "broadcast_add")
_expand_kernels = _both(_expand_source, 1, "expand")


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
    sizes, steps = _runs(dy.shape, shape)
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
