"""Softmax along one axis, of an array seen as (outer, C, inner).

One task computes a block of inner positions of one outer index; the loops over C stand outside those over positions, so
that neighbouring positions are computed at once.
"""

import math

import numpy as np

from kernels import checks
from kernels.cpu.memory import empty_like
from kernels.cpu.tasks import run
from kernels.cpu.vector_math import exp
from kernels.jit import jit

#: Inner positions per task: few enough for C of them to stay in the cache.
POSITIONS = 1024


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
    classes, inner, tasks = _layout(x.shape, checks.axis(axis, x.ndim))
    y = empty_like(x)
    if x.size:
        run(_softmax_forward_task, tasks, (classes, inner), y, x)
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
    classes, inner, tasks = _layout(y.shape, checks.axis(axis, y.ndim))
    dx = empty_like(y)
    if y.size:
        run(_softmax_backward_task, tasks, (classes, inner), dx, dy, y)
    return dx


def _layout(shape, axis):
    """Return the number of classes, of inner positions, and of tasks."""
    outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    return shape[axis], inner, outer * -(-inner // POSITIONS)


@jit
def _task_bounds(task, classes, inner):
    """Return the index of a task's first element, and its number of positions."""
    tasks_per_outer = -(-inner // POSITIONS)
    start = task % tasks_per_outer * POSITIONS
    return task // tasks_per_outer * classes * inner + start, min(POSITIONS, inner - start)


@jit
def _softmax_forward_task(arrays, sizes, task):
    y, x, classes, inner = arrays.out, arrays.a, sizes[0], sizes[1]
    first, count = _task_bounds(task, classes, inner)
    largest, total = np.empty(count, x.dtype), np.zeros(count, x.dtype)
    largest_and_sum(largest, total, y, x, first, inner, classes)
    for c in range(classes):
        line = y[first + c * inner : first + c * inner + count]
        for p in range(count):
            line[p] /= total[p]


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
def _softmax_backward_task(arrays, sizes, task):
    dx, dy, y, classes, inner = arrays.out, arrays.a, arrays.b, sizes[0], sizes[1]
    first, count = _task_bounds(task, classes, inner)
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
