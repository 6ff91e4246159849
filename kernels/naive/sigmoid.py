"""Logistic sigmoid: any number to between 0 and 1.

    y = 1 / (1 + exp(-x)) = exp(x) / (1 + exp(x))

The first form serves x of 0 and above, the second those below, so that exp never overflows.

Gradient: ``dy/dx = y * (1 - y)``, so ``dx = dy * y * (1 - y)``.
"""

import numpy as np

from kernels import checks
from kernels.jit import jit


def sigmoid_forward(x):
    """Squash values to between 0 and 1.

    Parameters
    ----------
    x : ndarray
        Any shape, float32 or float64.

    Returns
    -------
    ndarray
        Of x's shape and type.

    Raises
    ------
    TypeError
        If x is not an array of float32 or float64.

    Notes
    -----
    Follows ``torch.sigmoid``.
    """
    x = checks.array("x", x)
    y = np.empty_like(x)
    _sigmoid_kernel(y.reshape(-1), x.reshape(-1))
    return y


def sigmoid_backward(dy, y):
    """Return the gradient of `sigmoid_forward`.

    Parameters
    ----------
    dy : ndarray
        Gradient of the output.
    y : ndarray
        The output.

    Returns
    -------
    ndarray
        Gradient of the input, of y's shape and type.

    Raises
    ------
    TypeError, ValueError
        If dy has not the shape and type of y.
    """
    dy, y = checks.gradient_of(dy, y)
    dx = np.empty_like(y)
    _sigmoid_gradient_kernel(dx.reshape(-1), dy.reshape(-1), y.reshape(-1))
    return dx


@jit
def _sigmoid_kernel(y, x):
    """One element after the other."""
    one = x.dtype.type(1)
    for i in range(len(x)):
        if x[i] >= 0:
            y[i] = one / (one + np.exp(-x[i]))
        else:
            y[i] = np.exp(x[i]) / (one + np.exp(x[i]))


@jit
def _sigmoid_gradient_kernel(dx, dy, y):
    """One element after the other."""
    one = y.dtype.type(1)
    for i in range(len(y)):
        dx[i] = dy[i] * y[i] * (one - y[i])
