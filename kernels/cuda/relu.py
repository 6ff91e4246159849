"""Rectified linear unit: what is negative becomes 0. A thread takes one element after the other."""

from numba.types import int64

from kernels import checks
from kernels.cuda.array import empty, on_device
from kernels.cuda.device import cuda, kernel


def relu_forward(x):
    """Set negative values to 0.

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
    Follows ``torch.nn.functional.relu``.
    """
    (x,) = on_device(checks.array("x", x))
    y = empty(x.shape, x.dtype)
    _relu_kernel.over(x.size, y.raw, x.raw, x.size)
    return y


def relu_backward(dy, y):
    """Return the gradient of `relu_forward`.

    Parameters
    ----------
    dy : ndarray or DeviceArray
        Gradient of the output.
    y : ndarray or DeviceArray
        The output. It is positive exactly where the input was.

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
    _relu_gradient_kernel.over(y.size, dx.raw, dy.raw, y.raw, y.size)
    return dx


@kernel(lambda T: (T[::1], T[::1], int64))
def _relu_kernel(y, x, count):
    for i in range(cuda.grid(1), count, cuda.gridsize(1)):
        if x[i] < 0:  # not so for NaN
            y[i] = 0
        else:
            y[i] = x[i]


@kernel(lambda T: (T[::1], T[::1], T[::1], int64))
def _relu_gradient_kernel(dx, dy, y, count):
    for i in range(cuda.grid(1), count, cuda.gridsize(1)):
        if y[i] <= 0:
            dx[i] = 0
        else:
            dx[i] = dy[i]
