"""The logistic function. One task computes one block, without a branch or a call per element."""

import numpy as np
from numba import prange

from kernels import checks
from kernels.cpu.blocks import block_count, block_slice, flat
from kernels.cpu.vector_math import exp
from kernels.jit import jit


def sigmoid_forward(x):
    """Return ``1 / (1 + exp(-x))``, element by element.

    Parameters
    ----------
    x : ndarray, any shape, float32 or float64
        Input.

    Returns
    -------
    ndarray, shape of ``x``
        Values from 0 to 1; NaN where ``x`` is NaN.

    Raises
    ------
    TypeError
        If ``x`` is not an array of float32 or float64.
    """
    x = checks.array("x", x)
    y = np.empty_like(x)
    if x.size:
        _sigmoid_forward_kernel(y.reshape(-1), flat(x), block_count(x.size))
    return y


def sigmoid_backward(dy, y):
    """Return the gradient of the input, ``dy * y * (1 - y)``.

    Parameters
    ----------
    dy : ndarray, shape of ``y``
        Gradient of the output.
    y : ndarray, any shape, float32 or float64
        The output.

    Returns
    -------
    ndarray, shape of ``y``
        Gradient of the input.

    Raises
    ------
    TypeError
        If an argument is not an array of float32 or float64, or the types differ.
    ValueError
        If the shapes differ.
    """
    dy, y = checks.gradient_of(dy, y)
    dx = np.empty_like(y)
    if y.size:
        _sigmoid_backward_kernel(dx.reshape(-1), flat(dy), flat(y), block_count(y.size))
    return dx


@jit
def sigmoid(x):
    """Return the logistic function of one number, in its own type; ``exp`` only ever sees ``-|x|``: no overflow."""
    one = type(x)(1)
    e = exp(-abs(x))
    return (e if x < 0 else one) / (one + e)


@jit(parallel=True)
def _sigmoid_forward_kernel(y, x, blocks):
    for block in prange(blocks):
        _sigmoid_forward_block(np.int64(block), y, x)


@jit
def _sigmoid_forward_block(block, y, x):
    part = block_slice(block, x.size)
    y, x = y[part], x[part]
    for i in range(x.size):
        y[i] = sigmoid(x[i])


@jit(parallel=True)
def _sigmoid_backward_kernel(dx, dy, y, blocks):
    for block in prange(blocks):
        _sigmoid_backward_block(np.int64(block), dx, dy, y)


@jit
def _sigmoid_backward_block(block, dx, dy, y):
    part = block_slice(block, y.size)
    dx, dy, y = dx[part], dy[part], y[part]
    one = y.dtype.type(1)
    for i in range(y.size):
        dx[i] = dy[i] * (one - y[i]) * y[i]
