"""Joining along an axis: (outer, size) tables put side by side. One task copies one run of neighbouring elements."""

import math

import numpy as np
from numba import prange

from kernels import checks
from kernels.cpu.blocks import BLOCK, block_count, flat
from kernels.jit import jit


def concat_forward(arrays, axis=1):
    """Return arrays joined along one axis.

    Parameters
    ----------
    arrays : list of ndarray, float32 or float64
        Arrays of one type and of one shape, but for ``axis``.
    axis : int
        Axis along which they follow each other.

    Returns
    -------
    ndarray
        The joined array, as ``numpy.concatenate`` gives it.

    Raises
    ------
    TypeError
        If an element is not an array of float32 or float64, or the types differ.
    ValueError
        If the list is empty, the shapes do not agree, or there is no such axis.
    """
    arrays, axis = checks.concat(arrays, axis)
    shape = list(arrays[0].shape)
    shape[axis] = sum(a.shape[axis] for a in arrays)
    y = np.empty(shape, arrays[0].dtype)
    outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    start = 0
    for a in arrays:
        width = a.shape[axis] * inner
        if a.size:
            layouts = (start, shape[axis] * inner), (0, width)
            _copy_columns_kernel(y.reshape(-1), flat(a), *layouts, width, outer * block_count(width))
        start += width
    return y


def concat_backward(dy, sizes, axis=1):
    """Return the gradients of the joined arrays: ``dy`` cut along one axis.

    Parameters
    ----------
    dy : ndarray, float32 or float64
        Gradient of the output.
    sizes : list of int
        Size of each array along ``axis``.
    axis : int
        Axis along which they were joined.

    Returns
    -------
    list of ndarray
        One gradient for each size.

    Raises
    ------
    TypeError
        If ``dy`` is not an array of float32 or float64, or a size is not a whole number.
    ValueError
        If the sizes do not sum to that of ``dy``, or there is no such axis.
    """
    dy, sizes, axis = checks.concat_gradient(dy, sizes, axis)
    outer, inner = math.prod(dy.shape[:axis]), math.prod(dy.shape[axis + 1 :])
    gradients, start = [], 0
    for size in sizes:
        da = np.empty((*dy.shape[:axis], size, *dy.shape[axis + 1 :]), dy.dtype)
        width = size * inner
        if da.size:
            layouts = (0, width), (start, dy.shape[axis] * inner)
            _copy_columns_kernel(da.reshape(-1), flat(dy), *layouts, width, outer * block_count(width))
        gradients.append(da)
        start += width
    return gradients


@jit(parallel=True)
def _copy_columns_kernel(to, source, to_layout, source_layout, width, tasks):
    for task in prange(tasks):
        _copy_columns(np.int64(task), to, source, to_layout, source_layout, width)


@jit
def _copy_columns(task, to, source, to_layout, source_layout, width):
    """Copy one block of ``width`` columns of one row. A layout is the first column, and the length of a row."""
    blocks = -(-width // BLOCK)
    row, start = task // blocks, task % blocks * BLOCK
    count = min(BLOCK, width - start)
    a = row * to_layout[1] + to_layout[0] + start
    b = row * source_layout[1] + source_layout[0] + start
    to, source = to[a : a + count], source[b : b + count]
    for i in range(count):
        to[i] = source[i]
