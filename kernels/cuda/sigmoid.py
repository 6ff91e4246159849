"""Logistic sigmoid: any number to between 0 and 1. A thread takes one element after the other.

    y = 1 / (1 + exp(-x)) = exp(x) / (1 + exp(x))

Both forms need the same exp(-|x|), which never overflows: threads of a warp do not part over the sign of x.
"""

import math

from numba.types import int64

from kernels import checks
from kernels.cuda.array import empty, on_device
from kernels.cuda.device import cuda, typed_kernel


def sigmoid_forward(x):
    """Squash values to between 0 and 1.

    Parameters
    ----------
    x : ndarray or DeviceArray
        Any shape, float32 or float64.

    Returns
    -------
    DeviceArray
        Of x's shape and type.

    Raises
    ------
    TypeError
        If x is not an array of float32 or float64.

    Notes
    -----
    Follows ``torch.sigmoid``.
    """
    (x,) = on_device(checks.array("x", x))
    y = empty(x.shape, x.dtype)
    _sigmoid_kernel.over(x.size, y.raw, x.raw, x.size)
    return y


def sigmoid_backward(dy, y):
    """Return the gradient of `sigmoid_forward`.

    Parameters
    ----------
    dy : ndarray or DeviceArray
        Gradient of the output.
    y : ndarray or DeviceArray
        The output.

    Returns
    -------
    DeviceArray
        Gradient of the input, of y's shape and type.

    Raises
    ------
    TypeError, ValueError
        If dy has not the shape and type of y.
    """
    dy, y = on_device(*checks.gradient_of(dy, y))
    dx = empty(y.shape, y.dtype)
    _sigmoid_gradient_kernel.over(y.size, dx.raw, dy.raw, y.raw, y.size)
    return dx


@typed_kernel(lambda T: (T[::1], T[::1], int64))
def _sigmoid_kernel(T):
    def sigmoid_kernel(y, x, count):
        for i in range(cuda.grid(1), count, cuda.gridsize(1)):
            small = T(math.exp(-abs(x[i])))
            above = T(1) if x[i] >= T(0) else small
            y[i] = above / (T(1) + small)

    return sigmoid_kernel


@typed_kernel(lambda T: (T[::1], T[::1], T[::1], int64))
def _sigmoid_gradient_kernel(T):
    def sigmoid_gradient_kernel(dx, dy, y, count):
        for i in range(cuda.grid(1), count, cuda.gridsize(1)):
            dx[i] = dy[i] * y[i] * (T(1) - y[i])

    return sigmoid_gradient_kernel
