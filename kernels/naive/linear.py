"""Linear layer: a weighted sum of all features, for each output.

    y[n, o] = bias[o] + sum over i of weight[o, i] * x[n, i]

``n`` numbers the samples, ``i`` the input features, ``o`` the output features.

Gradients. Each product has two factors, and the derivative with respect to one is the other:

    dx[n, i]      = sum over o of weight[o, i] * dy[n, o]
    dweight[o, i] = sum over n of x[n, i] * dy[n, o]
    dbias[o]      = sum over n of dy[n, o]
"""

import numpy as np

from kernels import checks
from kernels.jit import jit


def linear_forward(x, weight, bias=None):
    """Multiply by a matrix of weights and add a bias.

    Parameters
    ----------
    x : ndarray, shape (N, I)
        Features of N samples, float32 or float64.
    weight : ndarray, shape (O, I)
        One row of weights per output feature, of x's type.
    bias : ndarray, shape (O,), optional
        Added to each output feature.

    Returns
    -------
    ndarray, shape (N, O)
        Output features.

    Raises
    ------
    TypeError
        If an array has another type than float32 or float64, or not x's.
    ValueError
        If shapes do not fit each other.

    Notes
    -----
    Follows ``torch.nn.functional.linear`` on two axes.
    """
    x, weight, bias = checks.linear(x, weight, bias)
    if bias is None:
        bias = np.zeros(weight.shape[0], x.dtype)
    y = np.empty((x.shape[0], weight.shape[0]), x.dtype)
    _linear_kernel(y, x, weight, bias)
    return y


def linear_backward(dy, x, weight, *, needs=(True, True, True)):
    """Return the gradients of a linear layer.

    Parameters
    ----------
    dy : ndarray, shape (N, O)
        Gradient of the output.
    x, weight
        As given to `linear_forward`.
    needs : three bool
        Which of the gradients to compute: of x, weight and bias.

    Returns
    -------
    dx, dweight, dbias : ndarray or None
        Shapes (N, I), (O, I) and (O,); None where not needed.

    Raises
    ------
    TypeError, ValueError
        As `linear_forward`, and if dy has not the shape and type of the output.
    """
    dy, x, weight, needs = checks.linear_gradient(dy, x, weight, needs)
    dx = dweight = dbias = None
    if needs[0]:
        dx = np.zeros_like(x)
        _linear_dx_kernel(dx, dy, weight)
    if needs[1]:
        dweight = np.zeros_like(weight)
        _linear_dweight_kernel(dweight, dy, x)
    if needs[2]:
        dbias = np.zeros(weight.shape[0], x.dtype)
        _linear_dbias_kernel(dbias, dy)
    return dx, dweight, dbias


@jit
def _linear_kernel(y, x, weight, bias):
    """Each output feature: its bias, plus its weights times the input features."""
    for n in range(y.shape[0]):
        for o in range(y.shape[1]):
            total = bias[o]
            for i in range(x.shape[1]):
                total += weight[o, i] * x[n, i]
            y[n, o] = total


@jit
def _linear_dx_kernel(dx, dy, weight):
    """An input feature collects from all outputs, times the weight that each reads it with."""
    for n in range(dy.shape[0]):
        for o in range(dy.shape[1]):
            for i in range(dx.shape[1]):
                dx[n, i] += weight[o, i] * dy[n, o]


@jit
def _linear_dweight_kernel(dweight, dy, x):
    """A weight collects from all samples, times the feature that it was multiplied with."""
    for n in range(dy.shape[0]):
        for o in range(dy.shape[1]):
            for i in range(x.shape[1]):
                dweight[o, i] += x[n, i] * dy[n, o]


@jit
def _linear_dbias_kernel(dbias, dy):
    """A bias collects from all samples."""
    for n in range(dy.shape[0]):
        for o in range(dy.shape[1]):
            dbias[o] += dy[n, o]
