"""Softmax: scores of classes to probabilities that sum to 1.

    y[k] = exp(x[k] - m) / sum over j of exp(x[j] - m),      m = max over j of x[j]

for the scores ``k, j`` along one axis, and each position on the other axes by itself. Taking away the largest score
changes nothing in exact arithmetic, and keeps exp from overflowing.

Gradient. Each output depends on all scores: ``dy[j]/dx[k] = y[j] * ((1 if j is k, else 0) - y[k])``. Summed over j:

    dx[k] = y[k] * (dy[k] - sum over j of dy[j] * y[j])
"""

import math

import numpy as np

from kernels import checks
from kernels.jit import jit


def softmax_forward(x, axis=1):
    """Turn scores along an axis into probabilities.

    Parameters
    ----------
    x : ndarray
        Scores, float32 or float64.
    axis : int
        Axis of the classes; negative ones count from the end.

    Returns
    -------
    ndarray
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
    y = np.empty_like(x)
    _softmax_kernel(y.reshape(shape), x.reshape(shape))
    return y


def softmax_backward(dy, y, axis=1):
    """Return the gradient of `softmax_forward`.

    Parameters
    ----------
    dy : ndarray
        Gradient of the output.
    y : ndarray
        The output.
    axis : int
        As given to `softmax_forward`.

    Returns
    -------
    ndarray
        Gradient of the scores, of y's shape and type.

    Raises
    ------
    TypeError, ValueError
        If dy has not the shape and type of y, or there is no such axis.
    """
    dy, y = checks.gradient_of(dy, y)
    shape = _around_axis(y.shape, checks.axis(axis, y.ndim))
    dx = np.empty_like(y)
    _softmax_gradient_kernel(dx.reshape(shape), dy.reshape(shape), y.reshape(shape))
    return dx


def _around_axis(shape, axis):
    """Return a shape as three sizes: all axes before ``axis``, itself, and all after."""
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])


@jit
def _softmax_kernel(y, x):
    """Largest score, exponentials, their sum, then the quotients."""
    before, classes, after = x.shape
    for i in range(before):
        for j in range(after):
            largest = x[i, 0, j]
            for k in range(classes):
                if x[i, k, j] > largest:
                    largest = x[i, k, j]

            total = x.dtype.type(0)
            for k in range(classes):
                y[i, k, j] = np.exp(x[i, k, j] - largest)
                total += y[i, k, j]

            for k in range(classes):
                y[i, k, j] /= total


@jit
def _softmax_gradient_kernel(dx, dy, y):
    """The sum of dy * y over the classes, then the formula."""
    before, classes, after = y.shape
    for i in range(before):
        for j in range(after):
            total = y.dtype.type(0)
            for k in range(classes):
                total += dy[i, k, j] * y[i, k, j]

            for k in range(classes):
                dx[i, k, j] = y[i, k, j] * (dy[i, k, j] - total)
