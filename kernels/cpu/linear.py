"""Fully connected layer: matrix products, computed as 1x1 convolutions (see ``correlation``).

A row of one matrix plays the weights of an output channel, and the columns of the other the pixels of a picture.
BLAS would be the obvious choice, but its threads keep spinning after a product and take the processors from ours.
"""

import numpy as np

from kernels import checks
from kernels.cpu.correlation import correlate
from kernels.cpu.packing import gather_axis

_POINT = gather_axis(1, 1, 0, 1)
#: Columns per row of the picture that a large matrix is cut into, so that there are rows to share out.
_ROW = 64


def linear_forward(x, weight, bias=None):
    """Multiply feature vectors by a matrix: ``y[n, o]`` is ``bias[o]`` plus the sum of ``weight[o, i] * x[n, i]``.

    Parameters
    ----------
    x : ndarray, shape (N, in), float32 or float64
        Feature vectors.
    weight : ndarray, shape (out, in)
        Matrix, of the same type as ``x``; stored as in PyTorch's ``linear``.
    bias : ndarray, shape (out,), optional
        What is added to each output feature.

    Returns
    -------
    ndarray, shape (N, out)
        Products.

    Raises
    ------
    TypeError
        If an array is not a float32 or float64 array, or their types differ.
    ValueError
        If shapes do not fit together.
    """
    x, weight, bias = checks.linear(x, weight, bias)
    y = _product(x, np.ascontiguousarray(weight.T))
    if bias is not None:
        with np.errstate(all="ignore"):  # infinities of both signs make NaN, silently
            y += bias
    return y


def linear_backward(dy, x, weight, *, needs=(True, True, True)):
    """Return the gradients of a fully connected layer.

    Parameters
    ----------
    dy : ndarray, shape (N, out)
        Gradient of the loss with respect to the output.
    x, weight
        As they were given to ``linear_forward``.
    needs : (bool, bool, bool)
        Which of the gradients are wanted.

    Returns
    -------
    dx : ndarray or None, shape (N, in)
        Gradient with respect to ``x``.
    dweight : ndarray or None, shape (out, in)
        Gradient with respect to ``weight``.
    dbias : ndarray or None, shape (out,)
        Gradient with respect to the bias.

    Raises
    ------
    TypeError
        If an array is not a float32 or float64 array, or their types differ.
    ValueError
        If shapes do not fit together.
    """
    dy, x, weight, needs = checks.linear_gradient(dy, x, weight, needs)
    dx = _product(dy, weight) if needs[0] else None
    dweight = _product(dy.T, x) if needs[1] else None
    with np.errstate(all="ignore"):
        dbias = dy.sum(axis=0, dtype=np.float64).astype(dy.dtype) if needs[2] else None
    return dx, dweight, dbias


def _product(a, b):
    """Return the matrix product of ``a`` (M, K), in any memory layout, and ``b`` (K, P), C-contiguous."""
    (height, depth), width = a.shape, b.shape[1]
    if height == 0 or width == 0:
        return np.empty((height, width), b.dtype)
    padded = width
    if width > 4 * _ROW and width % _ROW:
        padded = -(-width // _ROW) * _ROW
        b = np.concatenate([b, np.zeros((depth, padded - width), b.dtype)], axis=1)
    size = (padded // _ROW, _ROW) if padded > 4 * _ROW else (1, padded)
    product = correlate(b.reshape(1, depth, *size), a.reshape(1, height, depth, 1, 1), None, size, _POINT, _POINT)
    return np.ascontiguousarray(product.reshape(height, padded)[:, :width])
