"""Joining of arrays along one axis: each is copied to its place in one launch.

An array is rows, one for each position before the axis, that lie one after the other; in the result the rows of all
arrays take turns. A block takes part of a row, or several rows where they are short: threads side by side copy
elements side by side, and none divides to find its place.
"""

import math

from numba.types import int64

from kernels import checks
from kernels.cuda.array import empty, on_device
from kernels.cuda.device import cuda, kernel


def concat_forward(arrays, axis=1):
    """Join arrays along an axis.

    Parameters
    ----------
    arrays : list of ndarray or DeviceArray
        Float32 or float64, of one type, and of one shape but for the axis.
    axis : int
        Axis to join along; negative ones count from the end.

    Returns
    -------
    DeviceArray
        The arrays, one after the other.

    Raises
    ------
    TypeError
        If an array has another type than float32 or float64, or not the first one's.
    ValueError
        If there is no array, no such axis, or the other sizes differ.
    """
    arrays, axis = checks.concat(arrays, axis)
    first = arrays[0].shape
    size = sum(array.shape[axis] for array in arrays)
    y = empty((*first[:axis], size, *first[axis + 1 :]), arrays[0].dtype)
    offset = 0
    for array in on_device(*arrays):
        _copy_rows(y, size, offset, array, array.shape[axis], 0, array.shape, axis)
        offset += array.shape[axis]
    return y


def concat_backward(dy, sizes, axis=1):
    """Split the gradient of joined arrays.

    Parameters
    ----------
    dy : ndarray or DeviceArray
        Gradient of the output.
    sizes : list of int
        Size of each array along the axis.
    axis : int
        As given to `concat_forward`.

    Returns
    -------
    list of DeviceArray
        Gradient of each array.

    Raises
    ------
    TypeError, ValueError
        If dy is no array of floats, there is no such axis, or the sizes do not sum to dy's.
    """
    dy, sizes, axis = checks.concat_gradient(dy, sizes, axis)
    (dy,) = on_device(dy)
    gradients, offset = [], 0
    for size in sizes:
        gradient = empty((*dy.shape[:axis], size, *dy.shape[axis + 1 :]), dy.dtype)
        _copy_rows(gradient, size, 0, dy, dy.shape[axis], offset, gradient.shape, axis)
        gradients.append(gradient)
        offset += size
    return gradients


def _copy_rows(to, to_size, to_offset, source, source_size, source_offset, shape, axis):
    """Copy a part of ``shape`` from one array to another: each has its own size along the axis, and an offset there."""
    rows, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    width = shape[axis] * after
    places = to_size * after, to_offset * after, source_size * after, source_offset * after
    _copy_rows_kernel.over_rows(rows, -(-width // 4), to.raw, source.raw, *places, rows, width)


@kernel(lambda T: (T[::1], T[::1], int64, int64, int64, int64, int64, int64))
def _copy_rows_kernel(to, source, to_pitch, to_offset, source_pitch, source_offset, rows, width):
    column, first_row = cuda.grid(2)
    across, down = cuda.gridsize(2)
    for row in range(first_row, rows, down):
        to_start, source_start = row * to_pitch + to_offset, row * source_pitch + source_offset
        i = column
        while i + 3 * across < width:  # four at a time: all are on their way before the first is stored
            a, b = source[source_start + i], source[source_start + i + across]
            c, d = source[source_start + i + 2 * across], source[source_start + i + 3 * across]
            to[to_start + i], to[to_start + i + across] = a, b
            to[to_start + i + 2 * across], to[to_start + i + 3 * across] = c, d
            i += 4 * across
        while i < width:
            to[to_start + i] = source[source_start + i]
            i += across
