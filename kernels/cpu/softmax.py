"""Softmax along one axis, of an array seen as (outer, C, inner).

One task computes a block of positions: neighbouring inner ones of one outer index; or, where inner is 1, outer ones,
which are turned first. The loops over C stand outside those over positions, so that neighbouring positions are computed
at once.
"""

import math

import numpy as np

from kernels import checks
from kernels.cpu.channels_last import transpose
from kernels.cpu.memory import empty_like
from kernels.cpu.tasks import run
from kernels.cpu.vector_math import exp
from kernels.jit import jit

#: Positions of a task at most, its numbers (they stay in the cache), and how few positions it has to have even so.
POSITIONS, _NUMBERS, _FEWEST = 1024, 16384, 16


def softmax_forward(x, axis=1):
    """Return ``exp(x) / sum(exp(x))``, the sum taken along one axis.

    Parameters
    ----------
    x : ndarray, any shape, float32 or float64
        Input.
    axis : int
        Axis of the classes.

    Returns
    -------
    ndarray, shape of ``x``
        Values from 0 to 1 that sum to 1 along ``axis``. Where a value is NaN or infinite or all are minus infinity,
        all along ``axis`` are NaN, as in PyTorch.

    Raises
    ------
    TypeError
        If ``x`` is not an array of float32 or float64, or ``axis`` not a whole number.
    ValueError
        If ``x`` has no such axis.
    """
    x = checks.array("x", x)
    tasks, sizes = layout(x.shape, checks.axis(axis, x.ndim))
    y = empty_like(x)
    if x.size:
        run(_softmax_forward_task, tasks, sizes, y, x)
    return y


def softmax_backward(dy, y, axis=1):
    """Return the gradient of the input, ``y * (dy - sum(dy * y))``.

    Parameters
    ----------
    dy : ndarray, shape of ``y``
        Gradient of the output.
    y : ndarray, any shape, float32 or float64
        The output.
    axis : int
        Axis of the classes.

    Returns
    -------
    ndarray, shape of ``y``
        Gradient of the input.

    Raises
    ------
    TypeError
        If an argument is not an array of float32 or float64, the types differ, or ``axis`` is not a whole number.
    ValueError
        If the shapes differ or there is no such axis.
    """
    dy, y = checks.gradient_of(dy, y)
    tasks, sizes = layout(y.shape, checks.axis(axis, y.ndim))
    dx = empty_like(y)
    if y.size:
        run(_softmax_backward_task, tasks, sizes, dx, dy, y)
    return dx


def layout(shape, axis):
    """Return the number of tasks, and what `block_of` makes of theirs: positions, classes, inner and outer ones."""
    classes, outer, inner = shape[axis], math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    positions = min(POSITIONS, max(_FEWEST, _NUMBERS // max(classes, 1) // _FEWEST * _FEWEST))
    tasks = -(-outer // positions) if inner == 1 else outer * -(-inner // positions)
    return tasks, (positions, classes, inner, outer)


@jit
def block_of(sizes, task):
    """Return the index of a task's first number, that of its first position, and how many positions it has."""
    positions, classes, inner, outer = sizes[:4]
    if inner == 1:
        first = task * positions
        return first * classes, first, min(positions, outer - first)
    tasks_per_outer = (inner + positions - 1) // positions
    n, start = task // tasks_per_outer, task % tasks_per_outer * positions
    return n * classes * inner + start, n * inner + start, min(positions, inner - start)


@jit
def turned(a, first, count, classes):
    """Return ``count`` rows of classes, which begin at number ``first``, as one line of positions for each class."""
    lines = np.empty(classes * count, a.dtype)
    transpose(lines, 0, count, a, first, classes, count, classes)
    return lines


@jit
def largest_and_sum(largest, total, terms, x, first, inner, classes):
    """Find the largest x of each position, and add up the ``terms`` exp(x - largest); class c is ``inner`` elements on.

    Parameters
    ----------
    largest, total : ndarray, (positions,)
        Results; ``total`` begins with zeros.
    terms : ndarray
        Where the terms are put, laid out as ``x``; of size 0 if they are not wanted.
    x : ndarray
        The flat input.
    first : int
        Index of the first class of the first position.
    inner, classes : int
        Elements from one class to the next, and number of classes.
    """
    count = largest.size
    for c in range(classes):
        line = x[first + c * inner : first + c * inner + count]
        for p in range(count):
            largest[p] = line[p] if c == 0 or line[p] > largest[p] else largest[p]
    for c in range(classes):
        line = x[first + c * inner : first + c * inner + count]
        kept = terms[first + c * inner : first + c * inner + count]
        for p in range(count):
            term = exp(line[p] - largest[p])
            total[p] += term
            if kept.size:
                kept[p] = term


@jit
def _softmax_forward_task(arrays, sizes, task):
    first, _, count = block_of(sizes, task)
    classes, inner = sizes[1], sizes[2]
    if inner == 1:
        x = turned(arrays.a, first, count, classes)
        y = np.empty_like(x)
        _softmax(y, x, 0, count, count, classes)
        transpose(arrays.out, first, classes, y, 0, count, classes, count)
    else:
        _softmax(arrays.out, arrays.a, first, inner, count, classes)


@jit
def _softmax(y, x, first, inner, count, classes):
    """Compute ``count`` positions; class c begins at number ``first + c * inner``."""
    largest, total = np.empty(count, x.dtype), np.zeros(count, x.dtype)
    largest_and_sum(largest, total, y, x, first, inner, classes)
    for p in range(count):
        total[p] = x.dtype.type(1) / total[p]
    for c in range(classes):
        line = y[first + c * inner : first + c * inner + count]
        for p in range(count):
            line[p] *= total[p]


@jit
def _softmax_backward_task(arrays, sizes, task):
    first, _, count = block_of(sizes, task)
    classes, inner = sizes[1], sizes[2]
    if inner == 1:
        dy, y = turned(arrays.a, first, count, classes), turned(arrays.b, first, count, classes)
        dx = np.empty_like(y)
        _softmax_gradient(dx, dy, y, 0, count, count, classes)
        transpose(arrays.out, first, classes, dx, 0, count, classes, count)
    else:
        _softmax_gradient(arrays.out, arrays.a, arrays.b, first, inner, count, classes)


@jit
def _softmax_gradient(dx, dy, y, first, inner, count, classes):
    """Compute ``count`` positions; class c begins at number ``first + c * inner``."""
    dot = np.zeros(count, y.dtype)
    for c in range(classes):
        line = slice(first + c * inner, first + c * inner + count)
        dy_line, y_line = dy[line], y[line]
        for p in range(count):
            dot[p] += dy_line[p] * y_line[p]
    for c in range(classes):
        line = slice(first + c * inner, first + c * inner + count)
        dx_line, dy_line, y_line = dx[line], dy[line], y[line]
        for p in range(count):
            dx_line[p] = y_line[p] * (dy_line[p] - dot[p])
