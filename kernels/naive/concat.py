"""Joining of arrays along one axis, such as the channels of two pictures.

    y[.., offset + k, ..] = array[.., k, ..]

where ``offset`` is the size of all arrays before this one along the axis.

Gradient. Values are copied, so each array gets its part of dy.
"""

import math

import numpy as np

from kernels import checks
from kernels.jit import jit


def concat_forward(arrays, axis=1):
    """Join arrays along an axis.

    Parameters
    ----------
    arrays : list of ndarray
        Float32 or float64, of one type, and of one shape but for the axis.
    axis : int
        Axis to join along; negative ones count from the end.

    Returns
    -------
    ndarray
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
    y = np.empty((*first[:axis], size, *first[axis + 1 :]), arrays[0].dtype)
    offset = 0
    for array in arrays:
        _copy_in_kernel(y.reshape(_around_axis(y.shape, axis)), array.reshape(_around_axis(array.shape, axis)), offset)
        offset += array.shape[axis]
    return y


def concat_backward(dy, sizes, axis=1):
    """Split the gradient of joined arrays.

    Parameters
    ----------
    dy : ndarray
        Gradient of the output.
    sizes : list of int
        Size of each array along the axis.
    axis : int
        As given to `concat_forward`.

    Returns
    -------
    list of ndarray
        Gradient of each array.

    Raises
    ------
    TypeError, ValueError
        If dy is no array of floats, there is no such axis, or the sizes do not sum to dy's.
    """
    dy, sizes, axis = checks.concat_gradient(dy, sizes, axis)
    gradients, offset = [], 0
    for size in sizes:
        gradient = np.empty((*dy.shape[:axis], size, *dy.shape[axis + 1 :]), dy.dtype)
        _copy_out_kernel(
            gradient.reshape(_around_axis(gradient.shape, axis)), dy.reshape(_around_axis(dy.shape, axis)), offset
        )
        gradients.append(gradient)
        offset += size
    return gradients


def _around_axis(shape, axis):
    """Return a shape as three sizes: all axes before ``axis``, itself, and all after."""
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])


@jit
def _copy_in_kernel(y, array, offset):
    """Copy one array to its place."""
    before, size, after = array.shape
    for i in range(before):
        for k in range(size):
            for j in range(after):
                y[i, offset + k, j] = array[i, k, j]


@jit
def _copy_out_kernel(gradient, dy, offset):
    """Copy one array's part of dy."""
    before, size, after = gradient.shape
    for i in range(before):
        for k in range(size):
            for j in range(after):
                gradient[i, k, j] = dy[i, offset + k, j]
