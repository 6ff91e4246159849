"""Max-pooling. One task computes one plane, window by window in vectors: lanes are neighbouring windows.

The taps of a window are compared in the order of its rows and columns, so that equal values and NaN are decided as in
the naive loops.
"""

import functools
import math

import numpy as np

from kernels import checks
from kernels.cpu.memory import empty
from kernels.cpu.tasks import run
from kernels.cpu.tiling import lanes
from kernels.cpu.vector_pooling import pool_apart_1, pool_apart_2, pool_pairs
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
    x, geometry = checks.max_pool2d(x, kernel_size, stride, padding, dilation, ceil_mode)
    return pool(x, geometry, keep_indices=True)


def max_pool2d_backward(dy, indices, input_shape, onto=None):
    """Return the gradient of the input: each element of ``dy`` added where its maximum stood.

    Parameters
    ----------
    dy : ndarray, (N, C, oH, oW), float32 or float64
        Gradient of the output.
    indices : ndarray of int, (N, C, oH, oW)
        What ``max_pool2d_forward`` returned.
    input_shape : tuple of int
        (N, C, H, W) of the input.
    onto : ndarray, (N, C, H, W), optional
        What the gradient of the input is added to: that of other operators.

    Returns
    -------
    ndarray, (N, C, H, W)
        Gradient of the input, added to ``onto`` where that is given.

    Raises
    ------
    TypeError
        If ``dy`` is not an array of float32 or float64, or ``indices`` not one of whole numbers.
    ValueError
        If the shapes do not fit or an index lies outside a plane.
    """
    dy, indices, input_shape, onto = checks.max_pool2d_gradient(dy, indices, input_shape, onto, look=False)
    dx = empty(input_shape, dy.dtype)
    planes = dx.shape[0] * dx.shape[1]
    sizes = math.prod(dx.shape[2:]), math.prod(dy.shape[2:])
    outside = np.zeros(planes, np.int64)
    run(_scatter_plane, planes, sizes, dx, dy, onto, indices=outside, places=indices)
    if outside.any():
        checks.pooled_indices(indices.min(), indices.max(), input_shape)
    return dx


# ---- forward ---------------------------------------------------------------------------------------------------------


def pool(x, g, keep_indices):
    """Return the maxima of checked ``x`` with geometry ``g``, and where they stand; None for that unless it is kept."""
    y = empty((g.N, g.C, g.oH, g.oW), x.dtype)
    indices = empty(y.shape, np.int64) if keep_indices else None
    if y.size:
        places = _tap_places(g.kH, g.kW, g.dH * g.W, g.dW)
        run(_pool_plane, g.N * g.C, (*g[2:], lanes(x.dtype)), y, x, indices=indices, places=places)
    return y, indices


@functools.lru_cache(maxsize=100)
def _tap_places(rows, columns, row_step, column_step):
    """Return how many pixels after the first tap of a window each tap stands."""
    return np.add.outer(np.arange(rows) * row_step, np.arange(columns) * column_step)


@jit
def _pool_plane(arrays, sizes, plane):
    """Pool one plane, row by row: windows that are inside from left to right in vectors, the others one by one."""
    h, w, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw, step = sizes[:13]
    y, indices, x, taps, start = arrays.out, arrays.indices, arrays.a, arrays.places, plane * h * w
    first = min(ow, -(-pw // sw))
    last = max(first, min(ow, (w + pw - (kw - 1) * dw - 1) // sw + 1)) if sw < 3 else first
    pairs = kh == 2 and kw == 2 and sw == 2 and dw == 1
    for row in range(oh):
        top, to = row * sh - ph, (plane * oh + row) * ow
        above = 0 if top >= 0 else -(top // dh)  # rows of taps above the picture
        inside = min(kh, (h - 1 - top) // dh + 1) - above
        tap, tap_count = above * kw, inside * kw
        for column in range(first, last, step):
            place, count = top * w + column * sw - pw, min(step, last - column)
            if pairs and tap_count == 4:
                pool_pairs(y, indices, to + column, x, start, place, dh * w, count, indices.size)
            elif sw == 1:
                pool_apart_1(y, indices, to + column, x, start, place, taps, tap, tap_count, count, indices.size)
            else:
                pool_apart_2(y, indices, to + column, x, start, place, taps, tap, tap_count, count, indices.size)
        rows = top + above * dh, top + (above + inside) * dh, dh
        for column in range(first):
            _pool_window(y, indices, to + column, x[start : start + h * w], rows, column * sw - pw, kw, dw, w)
        for column in range(last, ow):
            _pool_window(y, indices, to + column, x[start : start + h * w], rows, column * sw - pw, kw, dw, w)


@jit
def _pool_window(y, indices, to, x, rows, left, taps, step, width):
    """Pool one window, whose rows are all inside the picture: ``rows`` is the first, the end, and the step."""
    start = left if left >= 0 else left - left // step * step
    value, index = x.dtype.type(-np.inf), rows[0] * width + start
    for i in range(rows[0], rows[1], rows[2]):
        for j in range(start, min(left + taps * step, width), step):
            here = x[i * width + j]
            if here > value or here != here:
                value, index = here, i * width + j
    y[to] = value
    if indices.size:
        indices[to] = index


# ---- backward --------------------------------------------------------------------------------------------------------


@jit
def _scatter_plane(arrays, sizes, plane):
    """Add the gradients of one plane where the maxima stood, and then what was there before.

    Only sums of the plane's own gradients are added to that: the numbers are those of one pass after the other, but the
    plane is still in the cache.
    """
    pixels, windows = sizes[:2]
    own, part = slice(plane * pixels, (plane + 1) * pixels), slice(plane * windows, (plane + 1) * windows)
    dx, dy, places = arrays.out[own], arrays.a[part], arrays.places[part]
    dx[:] = 0
    for i in range(windows):
        place = np.uint64(places[i])  # as an unsigned number, a negative one is huge
        if place < np.uint64(pixels):
            dx[place] += dy[i]
        else:
            arrays.indices[plane] = 1
    if arrays.b.size:
        before = arrays.b[own]
        for i in range(pixels):
            dx[i] += before[i]
