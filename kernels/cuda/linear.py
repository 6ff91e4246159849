"""Fully connected layer: three products of matrices, by the kernels of ``gemm``."""

from kernels import checks
from kernels.cuda.array import on_device
from kernels.cuda.channel_sums import channel_sums
from kernels.cuda.gemm import product


def linear_forward(x, weight, bias=None):
    """Multiply by a matrix of weights and add a bias: ``y[n, o] = bias[o] + sum over i of weight[o, i] * x[n, i]``.

    Parameters
    ----------
    x : ndarray or DeviceArray, shape (N, I)
        Features of N samples, float32 or float64.
    weight : ndarray or DeviceArray, shape (O, I)
        One row of weights per output feature, of x's type.
    bias : ndarray or DeviceArray, shape (O,), optional
        Added to each output feature.

    Returns
    -------
    DeviceArray, shape (N, O)
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
    x, weight, bias = on_device(*checks.linear(x, weight, bias))
    return product(x, weight, bias, b_transposed=True)


def linear_backward(dy, x, weight, *, needs=(True, True, True)):
    """Return the gradients of a linear layer.

    Parameters
    ----------
    dy : ndarray or DeviceArray, shape (N, O)
        Gradient of the output.
    x, weight
        As given to `linear_forward`.
    needs : three bool
        Which of the gradients to compute: of x, weight and bias.

    Returns
    -------
    dx, dweight, dbias : DeviceArray or None
        Shapes (N, I), (O, I) and (O,); None where not needed.

    Raises
    ------
    TypeError, ValueError
        As `linear_forward`, and if dy has not the shape and type of the output.
    """
    *arrays, needs = checks.linear_gradient(dy, x, weight, needs)
    dy, x, weight = on_device(*arrays)
    dx = product(dy, weight) if needs[0] else None
    dweight = product(dy, x, a_transposed=True) if needs[1] else None
    dbias = channel_sums(dy.reshape(*dy.shape, 1)) if needs[2] else None
    return dx, dweight, dbias
