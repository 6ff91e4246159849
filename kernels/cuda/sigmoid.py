"""Logistic sigmoid: any number to between 0 and 1. See ``elementwise`` for how threads share the work.

    y = 1 / (1 + exp(-x)) = exp(x) / (1 + exp(x))

Both forms need the same exp(-|x|), which never overflows: threads of a warp do not part over the sign of x.
"""

import math

from kernels import checks
from kernels.cuda.array import on_device
from kernels.cuda.device import device_function
from kernels.cuda.elementwise import Elementwise


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
    return _sigmoid(x)


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
    return _sigmoid_gradient(dy, y)


def _value(T):
    @device_function
    def value(x):
        small = T(math.exp(-abs(x)))
        above = T(1) if x >= T(0) else small
        return above / (T(1) + small)

    return value


def _gradient(T):
    @device_function
    def gradient(dy, y):
        return dy * y * (T(1) - y)

    return gradient


_sigmoid = Elementwise("sigmoid.sigmoid_kernel", 1, _value)
_sigmoid_gradient = Elementwise("sigmoid.sigmoid_gradient_kernel", 2, _gradient)
