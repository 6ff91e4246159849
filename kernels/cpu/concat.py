"""Joining along an axis: (outer, size) tables put side by side. One task copies one run of neighbouring elements."""

import math

from kernels import checks
from kernels.cpu.blocks import BLOCK, block_count
from kernels.cpu.memory import empty
from kernels.cpu.tasks import run
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
    y = empty(shape, arrays[0].dtype)
    outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    start = 0
    for a in arrays:
        width = a.shape[axis] * inner
        if a.size:
            sizes = start, shape[axis] * inner, 0, width, width
            run(_copy_columns, outer * block_count(width), sizes, y, a)
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
        da = empty((*dy.shape[:axis], size, *dy.shape[axis + 1 :]), dy.dtype)
        width = size * inner
        if da.size:
            sizes = 0, width, start, dy.shape[axis] * inner, width
            run(_copy_columns, outer * block_count(width), sizes, da, dy)
        gradients.append(da)
        start += width
    return gradients


@jit
def _copy_columns(arrays, sizes, task):
    """Copy one block of ``width`` columns of one row; the columns begin somewhere in rows of some length."""
    to_start, to_length, source_start, source_length, width = sizes[:5]
    blocks = -(-width // BLOCK)
    row, start = task // blocks, task % blocks * BLOCK
    count = min(BLOCK, width - start)
    a, b = row * to_length + to_start + start, row * source_length + source_start + start
    to, source = arrays.out[a : a + count], arrays.a[b : b + count]
    for i in range(count):
        to[i] = source[i]
