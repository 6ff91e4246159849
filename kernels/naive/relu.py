"""Rectified linear unit: what is negative becomes 0.

    y = max(x, 0)

Gradient: 1 where x was positive, 0 elsewhere (at exactly 0 too, as in PyTorch), so ``dx = dy`` or 0. NaN passes through
both ways, so that it shows.
"""

import numpy as np

from kernels import checks
from kernels.jit import jit


def relu_forward(x):
    """Set negative values to 0.

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
    Follows ``torch.nn.functional.relu``.
    """
    x = checks.array("x", x)
    y = np.empty_like(x)
    _relu_kernel(y.reshape(-1), x.reshape(-1))
    return y


def relu_backward(dy, y):
    """Return the gradient of `relu_forward`.

    Parameters
    ----------
    dy : ndarray
        Gradient of the output.
    y : ndarray
        The output. It is positive exactly where the input was.

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
    _relu_gradient_kernel(dx.reshape(-1), dy.reshape(-1), y.reshape(-1))
    return dx


@jit
def _relu_kernel(y, x):
    """One element after the other."""
    for i in range(len(x)):
        if x[i] > 0 or np.isnan(x[i]):
            y[i] = x[i]
        else:
            y[i] = 0


@jit
def _relu_gradient_kernel(dx, dy, y):
    """One element after the other."""
    for i in range(len(y)):
        if y[i] <= 0:
            dx[i] = 0
        else:
            dx[i] = dy[i]
