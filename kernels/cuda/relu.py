"""Rectified linear unit: what is negative becomes 0. How threads go through arrays is said in ``elementwise``."""

from kernels import checks
from kernels.cuda.array import on_device
from kernels.cuda.device import device_function
from kernels.cuda.elementwise import Elementwise


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
    return _relu(x)


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
    return _relu_gradient(dy, y)


def _positive(T):
    zero = T(0)

    @device_function
    def positive(x):
        return zero if x < 0 else x  # not so for NaN

    return positive


def _passed(T):
    zero = T(0)

    @device_function
    def passed(dy, y):
        return zero if y <= 0 else dy

    return passed


_relu = Elementwise("relu.relu_kernel", 1, _positive)
_relu_gradient = Elementwise("relu.relu_gradient_kernel", 2, _passed)
