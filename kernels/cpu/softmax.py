"""Softmax along one axis, of an array seen as (outer, C, inner).

One task computes a block of inner positions of one outer index; the loops over C stand outside those over positions, so
that neighbouring positions are computed at once.
"""

import math

import numpy as np
from numba import prange

from kernels import checks
from kernels.cpu.blocks import flat
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
    y = np.empty_like(x)
    if x.size:
        _softmax_forward_kernel(y.reshape(-1), flat(x), classes, inner, tasks)
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
    dx = np.empty_like(y)
    if y.size:
        _softmax_backward_kernel(dx.reshape(-1), flat(dy), flat(y), classes, inner, tasks)
    return dx


def _layout(shape, axis):
    """Return the number of classes, of inner positions, and of tasks."""
    outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    return shape[axis], inner, outer * -(-inner // POSITIONS)


@jit
def _task_bounds(task, classes, inner):
    """Return the index of a task's first element, and its number of positions."""
    tasks_per_outer = -(-inner // POSITIONS)
    outer, part = np.int64(task) // tasks_per_outer, np.int64(task) % tasks_per_outer
    start = part * POSITIONS
    return outer * classes * inner + start, min(POSITIONS, inner - start)


@jit(parallel=True)
def _softmax_forward_kernel(y, x, classes, inner, tasks):
    for task in prange(tasks):
        first, count = _task_bounds(task, classes, inner)
        _softmax_forward_task(y[first:], x[first:], classes, inner, count)


@jit
def _softmax_forward_task(y, x, classes, inner, count):
    """Compute ``count`` positions; class c of position p is element ``c * inner + p``."""
    largest = x[:count].copy()
    total = np.zeros(count, x.dtype)
    for c in range(1, classes):
        _larger(largest, x[c * inner : c * inner + count])
    for c in range(classes):
        line = slice(c * inner, c * inner + count)
        _exp_of_difference(y[line], total, x[line], largest)
    for c in range(classes):
        _divide(y[c * inner : c * inner + count], total)


@jit
def _larger(largest, x):
    for p in range(x.size):
        largest[p] = x[p] if x[p] > largest[p] else largest[p]


@jit
def _exp_of_difference(y, total, x, largest):
    for p in range(x.size):
        y[p] = exp(x[p] - largest[p])
        total[p] += y[p]


@jit
def _divide(y, total):
    for p in range(y.size):
        y[p] /= total[p]


@jit(parallel=True)
def _softmax_backward_kernel(dx, dy, y, classes, inner, tasks):
    for task in prange(tasks):
        first, count = _task_bounds(task, classes, inner)
        _softmax_backward_task(dx[first:], dy[first:], y[first:], classes, inner, count)


@jit
def _softmax_backward_task(dx, dy, y, classes, inner, count):
    """Compute ``count`` positions; class c of position p is element ``c * inner + p``."""
    dot = np.zeros(count, y.dtype)
    for c in range(classes):
        line = slice(c * inner, c * inner + count)
        _add_product(dot, dy[line], y[line])
    for c in range(classes):
        line = slice(c * inner, c * inner + count)
        _input_gradient(dx[line], dy[line], y[line], dot)


@jit
def _add_product(dot, dy, y):
    for p in range(y.size):
        dot[p] += dy[p] * y[p]


@jit
def _input_gradient(dx, dy, y, dot):
    for p in range(y.size):
        dx[p] = y[p] * (dy[p] - dot[p])
