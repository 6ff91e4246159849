"""Max-pooling. One task computes one plane.

Windows of 2x2 that neither overlap nor leave the picture have a loop of their own, without a branch, which LLVM turns
into vector comparisons and selections.
"""

import numpy as np
from numba import prange

from kernels import checks
from kernels.cpu.blocks import flat
from kernels.jit import jit


def max_pool2d_forward(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """Return the largest value of each window, and where it stands.

    Parameters
    ----------
    x : ndarray, (N, C, H, W), float32 or float64
        Input.
    kernel_size : int or pair of int
        Height and width of a window.
    stride : int or pair of int, optional
        Pixels from one window to the next; ``kernel_size`` if not given.
    padding : int or pair of int
        Pixels by which windows may reach beyond each border. They never win.
    dilation : int or pair of int
        Pixels from one element of a window to the next.
    ceil_mode : bool
        Whether a last window that is only partly inside the padded picture counts.

    Returns
    -------
    y : ndarray, (N, C, oH, oW)
        Output.
    indices : ndarray of int64, (N, C, oH, oW)
        Place of each maximum, as ``row * W + column`` of its plane.

    Raises
    ------
    TypeError
        If ``x`` is not an array of float32 or float64, or a parameter is not a whole number.
    ValueError
        If ``x`` does not have 4 axes, a parameter is out of range, or no window fits.

    Notes
    -----
    As in PyTorch: the first of equal values wins; NaN beats all numbers, and of several NaN the last one wins; a window
    of only minus infinity gives its first element.
    """
    x, g = checks.max_pool2d(x, kernel_size, stride, padding, dilation, ceil_mode)
    y = np.empty((g.N, g.C, g.oH, g.oW), x.dtype)
    indices = np.empty(y.shape, np.int64)
    if y.size:
        window = (g.kH, g.kW, g.sH, g.sW, g.pH, g.pW, g.dH, g.dW)
        plain = window == (2, 2, 2, 2, 0, 0, 1, 1) and 2 * g.oH <= g.H and 2 * g.oW <= g.W
        _max_pool2d_forward_kernel(
            y.reshape(-1, g.oH, g.oW),
            indices.reshape(-1, g.oH, g.oW),
            flat(x).reshape(-1, g.H, g.W),
            window,
            plain,
        )
    return y, indices


def max_pool2d_backward(dy, indices, input_shape):
    """Return the gradient of the input: each element of ``dy`` added where its maximum stood.

    Parameters
    ----------
    dy : ndarray, (N, C, oH, oW), float32 or float64
        Gradient of the output.
    indices : ndarray of int, (N, C, oH, oW)
        What ``max_pool2d_forward`` returned.
    input_shape : tuple of int
        (N, C, H, W) of the input.

    Returns
    -------
    ndarray, (N, C, H, W)
        Gradient of the input.

    Raises
    ------
    TypeError
        If ``dy`` is not an array of float32 or float64, or ``indices`` not one of whole numbers.
    ValueError
        If the shapes do not fit or an index lies outside a plane.
    """
    dy, indices, input_shape = checks.max_pool2d_gradient(dy, indices, input_shape)
    dx = np.zeros(input_shape, dy.dtype)
    if dy.size:
        planes = dy.shape[0] * dy.shape[1]
        _max_pool2d_backward_kernel(
            dx.reshape(planes, -1), flat(dy).reshape(planes, -1), flat(indices).reshape(planes, -1)
        )
    return dx


@jit(parallel=True)
def _max_pool2d_forward_kernel(y, indices, x, window, plain):
    for plane in prange(x.shape[0]):
        _pool_plane(np.int64(plane), y, indices, x, window, plain)


@jit
def _pool_plane(plane, y, indices, x, window, plain):
    y, indices, x = y[plane], indices[plane], x[plane]
    if plain:
        for row in range(y.shape[0]):
            _pool_two_rows(y[row], indices[row], x[2 * row], x[2 * row + 1], 2 * row * x.shape[1])
    else:
        _pool_windows(y, indices, x, window)


@jit
def _pool_two_rows(y, indices, upper, lower, first):
    """Pool 2x2 windows over two rows, the upper of which begins at index ``first`` of the plane."""
    width = np.int64(upper.size)
    for column in range(y.size):
        a, b, c, d = upper[2 * column], upper[2 * column + 1], lower[2 * column], lower[2 * column + 1]
        at = first + 2 * column
        value, index = a, at
        wins = (b > value) | (b != b)
        value, index = (b if wins else value), (at + 1 if wins else index)
        wins = (c > value) | (c != c)
        value, index = (c if wins else value), (at + width if wins else index)
        wins = (d > value) | (d != d)
        value, index = (d if wins else value), (at + width + 1 if wins else index)
        y[column], indices[column] = value, index


@jit
def _inside(position, stride, padding, dilation, size, taps):
    """Return the first tap of a window that is inside the picture along one axis, and the end of the window's taps."""
    start = position * stride - padding
    end = min(start + (taps - 1) * dilation + 1, size)
    if start < 0:
        start += -(start // dilation) * dilation
    return start, end


@jit
def _pool_windows(y, indices, x, window):
    kh, kw, sh, sw, ph, pw, dh, dw = window
    h, w = x.shape
    for row in range(y.shape[0]):
        top, bottom = _inside(row, sh, ph, dh, h, kh)
        for column in range(y.shape[1]):
            left, right = _inside(column, sw, pw, dw, w, kw)
            value, index = x.dtype.type(-np.inf), top * w + left
            for i in range(top, bottom, dh):
                for j in range(left, right, dw):
                    if x[i, j] > value or x[i, j] != x[i, j]:
                        value, index = x[i, j], i * w + j
            y[row, column], indices[row, column] = value, index


@jit(parallel=True)
def _max_pool2d_backward_kernel(dx, dy, indices):
    for plane in prange(dx.shape[0]):
        _scatter(np.int64(plane), dx, dy, indices)


@jit
def _scatter(plane, dx, dy, indices):
    dx, dy, indices = dx[plane], dy[plane], indices[plane]
    for i in range(dy.size):
        dx[indices[i]] += dy[i]
