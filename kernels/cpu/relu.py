"""ReLU. One task computes one block; a comparison and a selection per element, as many at once as a register holds."""

import numpy as np
from numba import prange

from kernels import checks
from kernels.cpu.blocks import block_count, block_slice, flat
from kernels.jit import jit


def relu_forward(x):
    """Return the larger of ``x`` and 0, element by element.

    Parameters
    ----------
    x : ndarray, any shape, float32 or float64
        Input.

    Returns
    -------
    ndarray, shape of ``x``
        ``x`` where it is above 0 or NaN, else 0.

    Raises
    ------
    TypeError
        If ``x`` is not an array of float32 or float64.

    Notes
    -----
    NaN passes, as in PyTorch.
    """
    x = checks.array("x", x)
    y = np.empty_like(x)
    if x.size:
        _relu_forward_kernel(y.reshape(-1), flat(x), block_count(x.size))
    return y


def relu_backward(dy, y):
    """Return the gradient of the input of a ReLU.

    Parameters
    ----------
    dy : ndarray, shape of ``y``
        Gradient of the output.
    y : ndarray, any shape, float32 or float64
        The output (or the input, which has the same sign).

    Returns
    -------
    ndarray, shape of ``y``
        0 where ``y <= 0``, else ``dy``.

    Raises
    ------
    TypeError
        If an argument is not an array of float32 or float64, or the types differ.
    ValueError
        If the shapes differ.

    Notes
    -----
    Where ``y`` is NaN, ``dy`` passes, as in PyTorch.
    """
    dy, y = checks.gradient_of(dy, y)
    dx = np.empty_like(y)
    if y.size:
        _relu_backward_kernel(dx.reshape(-1), flat(dy), flat(y), block_count(y.size))
    return dx


@jit(parallel=True)
def _relu_forward_kernel(y, x, blocks):
    for block in prange(blocks):
        _relu_forward_block(np.int64(block), y, x)


@jit
def _relu_forward_block(block, y, x):
    part = block_slice(block, x.size)
    y, x = y[part], x[part]
    zero = x.dtype.type(0)
    for i in range(x.size):
        y[i] = zero if x[i] <= zero else x[i]


@jit(parallel=True)
def _relu_backward_kernel(dx, dy, y, blocks):
    for block in prange(blocks):
        _relu_backward_block(np.int64(block), dx, dy, y)


@jit
def _relu_backward_block(block, dx, dy, y):
    part = block_slice(block, y.size)
    dx, dy, y = dx[part], dy[part], y[part]
    zero = y.dtype.type(0)
    for i in range(y.size):
        dx[i] = zero if y[i] <= zero else dy[i]
