"""Softmax: scores of classes to probabilities that sum to 1.

An array is (before, classes, after), for the axes before and after that of the classes. Two ways to share the work:

- where neighbouring positions lie side by side, a thread takes one position: it goes through the classes for the
  largest score, for the sum and for the quotients, and its neighbours read beside it;
- where the classes of a position lie side by side, as many threads as it has classes, up to a whole block, take one
  position: they go through the classes together, and find the largest score and the sum in pairs, in shared memory.

NaN in one of the scores makes the sum NaN, and so all quotients; it never wins as the largest score.
"""

import math

from numba.types import int64

from kernels import checks
from kernels.cuda.array import empty, on_device
from kernels.cuda.device import cuda, device_function, tile, typed_kernel

#: Threads of a block that takes positions whose classes lie side by side; blocks at most.
_THREADS, _BLOCKS = tile(128, 4), tile(65536, 3)


def softmax_forward(x, axis=1):
    """Turn scores along an axis into probabilities.

    Parameters
    ----------
    x : ndarray or DeviceArray
        Scores, float32 or float64.
    axis : int
        Axis of the classes; negative ones count from the end.

    Returns
    -------
    DeviceArray
        Of x's shape and type. NaN among the scores of one position makes all its probabilities NaN.

    Raises
    ------
    TypeError
        If x is not an array of float32 or float64, or axis is no whole number.
    ValueError
        If x has no such axis.

    Notes
    -----
    Follows ``torch.softmax``.
    """
    x = checks.array("x", x)
    shape = _around_axis(x.shape, checks.axis(axis, x.ndim))
    (x,) = on_device(x)
    y = empty(x.shape, x.dtype)
    _launch(_softmax_kernel, _softmax_rows_kernel, shape, y.raw, x.raw)
    return y


def softmax_backward(dy, y, axis=1):
    """Return the gradient of `softmax_forward`.

    Parameters
    ----------
    dy : ndarray or DeviceArray
        Gradient of the output.
    y : ndarray or DeviceArray
        The output.
    axis : int
        As given to `softmax_forward`.

    Returns
    -------
    DeviceArray
        Gradient of the scores, of y's shape and type.

    Raises
    ------
    TypeError, ValueError
        If dy has not the shape and type of y, or there is no such axis.
    """
    dy, y = checks.gradient_of(dy, y)
    shape = _around_axis(y.shape, checks.axis(axis, y.ndim))
    dy, y = on_device(dy, y)
    dx = empty(y.shape, y.dtype)
    _launch(_softmax_gradient_kernel, _softmax_rows_gradient_kernel, shape, dx.raw, dy.raw, y.raw)
    return dx


def _around_axis(shape, axis):
    """Return a shape as three sizes: all axes before ``axis``, itself, and all after."""
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])


def _launch(of_positions, of_rows, shape, *arrays):
    """Start one of two kernels for arrays of a shape (before, classes, after), if there is anything to do."""
    before, classes, after = shape
    if not before * classes * after:
        return
    if after == 1:
        across = min(_THREADS, 1 << (classes - 1).bit_length())  # halves of it are added up
        down = _THREADS // across
        of_rows.run(min(-(-before // down), _BLOCKS), (across, down), *arrays, classes, before)
    else:
        of_positions.over(before * after, *arrays, classes, after, before * after)


@typed_kernel(lambda T: (T[::1], T[::1], int64, int64, int64))
def _softmax_kernel(T):
    def softmax_kernel(y, x, classes, after, count):
        for i in range(cuda.grid(1), count, cuda.gridsize(1)):
            start = i // after * classes * after + i % after
            stop = start + classes * after
            largest = x[start]
            for k in range(start + after, stop, after):
                if x[k] > largest:
                    largest = x[k]
            total = T(0)
            for k in range(start, stop, after):
                total += T(math.exp(x[k] - largest))
            for k in range(start, stop, after):
                y[k] = T(math.exp(x[k] - largest)) / total

    return softmax_kernel


@typed_kernel(lambda T: (T[::1], T[::1], T[::1], int64, int64, int64))
def _softmax_gradient_kernel(T):
    def softmax_gradient_kernel(dx, dy, y, classes, after, count):
        for i in range(cuda.grid(1), count, cuda.gridsize(1)):
            start = i // after * classes * after + i % after
            stop = start + classes * after
            total = T(0)
            for k in range(start, stop, after):
                total += dy[k] * y[k]
            for k in range(start, stop, after):
                dx[k] = y[k] * (dy[k] - total)

    return softmax_gradient_kernel


def _over_row(T, together):
    """Return a function that combines a value of each thread of a row of a block; all of the block must call it."""

    @device_function
    def over_row(value):
        values = cuda.shared.array(_THREADS, T)
        lane, start = cuda.threadIdx.x, cuda.threadIdx.y * cuda.blockDim.x
        values[start + lane] = value
        cuda.syncthreads()
        half = cuda.blockDim.x // 2
        while half > 0:
            if lane < half:
                values[start + lane] = together(values[start + lane], values[start + lane + half])
            cuda.syncthreads()
            half //= 2
        result = values[start]
        cuda.syncthreads()  # the next call may only now overwrite it
        return result

    return over_row


@device_function
def _larger(a, b):
    return b if b > a else a


@device_function
def _plus(a, b):
    return a + b


@typed_kernel(lambda T: (T[::1], T[::1], int64, int64), threads=_THREADS)
def _softmax_rows_kernel(T):
    over_row_largest, over_row_sum = _over_row(T, _larger), _over_row(T, _plus)

    def softmax_rows_kernel(y, x, classes, rows):
        for first in range(cuda.blockIdx.x * cuda.blockDim.y, rows, cuda.gridDim.x * cuda.blockDim.y):
            # behind the last row there is nothing, but threads come along: all of a block wait for each other
            start = min(first + cuda.threadIdx.y, rows) * classes
            stop = min(start + classes, rows * classes)
            largest = T(-math.inf)
            for k in range(start + cuda.threadIdx.x, stop, cuda.blockDim.x):
                largest = _larger(largest, x[k])
            largest = over_row_largest(largest)
            total = T(0)
            for k in range(start + cuda.threadIdx.x, stop, cuda.blockDim.x):
                total += T(math.exp(x[k] - largest))
            total = over_row_sum(total)
            for k in range(start + cuda.threadIdx.x, stop, cuda.blockDim.x):
                y[k] = T(math.exp(x[k] - largest)) / total

    return softmax_rows_kernel


@typed_kernel(lambda T: (T[::1], T[::1], T[::1], int64, int64), threads=_THREADS)
def _softmax_rows_gradient_kernel(T):
    over_row_sum = _over_row(T, _plus)

    def softmax_rows_gradient_kernel(dx, dy, y, classes, rows):
        for first in range(cuda.blockIdx.x * cuda.blockDim.y, rows, cuda.gridDim.x * cuda.blockDim.y):
            # behind the last row there is nothing, but threads come along: all of a block wait for each other
            start = min(first + cuda.threadIdx.y, rows) * classes
            stop = min(start + classes, rows * classes)
            total = T(0)
            for k in range(start + cuda.threadIdx.x, stop, cuda.blockDim.x):
                total += dy[k] * y[k]
            total = over_row_sum(total)
            for k in range(start + cuda.threadIdx.x, stop, cuda.blockDim.x):
                dx[k] = y[k] * (dy[k] - total)

    return softmax_rows_gradient_kernel
