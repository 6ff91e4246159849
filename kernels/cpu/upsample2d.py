"""Resizing. What each output row and column reads is tabulated first; then one task computes one plane.

Bilinear resizing blends two input rows into one, many columns at once, and picks the columns from the blend. Its
backward does the same in reverse, so that each plane of the gradient is summed by one task, in order.
"""

import numpy as np

from kernels import checks, scalar_math
from kernels.cpu.memory import empty
from kernels.cpu.tasks import run
from kernels.jit import jit

_nearest_source = jit(scalar_math.nearest_source)
_bilinear_source = jit(scalar_math.bilinear_source)


def upsample2d_forward(x, size=None, scale_factor=None, mode="nearest", align_corners=False):
    """Resize pictures.

    Parameters
    ----------
    x : ndarray, (N, C, H, W), float32 or float64
        Input.
    size : int or pair of int, optional
        Height and width of the output, in pixels.
    scale_factor : float or pair of float, optional
        Instead of ``size``: output pixels per input pixel.
    mode : {"nearest", "bilinear"}
        Whether an output pixel copies one input pixel or blends the nearest four.
    align_corners : bool
        For ``"bilinear"``: whether the centres of the corner pixels coincide, instead of the pictures' edges.

    Returns
    -------
    ndarray, (N, C, oH, oW)
        Output.

    Raises
    ------
    TypeError
        If ``x`` is not an array of float32 or float64, or a size is not a whole number.
    ValueError
        If ``x`` does not have 4 axes, or the parameters do not fit together.

    Notes
    -----
    As PyTorch's ``interpolate``.
    """
    x, g = checks.upsample2d(x, size, scale_factor, mode, align_corners)
    y = empty((g.N, g.C, g.oH, g.oW), x.dtype)
    if y.size:
        plane = _nearest_forward_plane if mode == "nearest" else _bilinear_forward_plane
        places, weights = _tables(g, x.dtype, mode, align_corners)
        run(plane, g.N * g.C, (g.H, g.W, g.oH, g.oW), y, x, weights, places=places)
    return y


def upsample2d_backward(dy, input_shape, size=None, scale_factor=None, mode="nearest", align_corners=False):
    """Return the gradient of the input of a resizing.

    Parameters
    ----------
    dy : ndarray, (N, C, oH, oW), float32 or float64
        Gradient of the output.
    input_shape : tuple of int
        (N, C, H, W) of the input.
    size, scale_factor, mode, align_corners
        As in the forward call.

    Returns
    -------
    ndarray, (N, C, H, W)
        Gradient of the input: for each input pixel, the sum of ``dy`` over the output pixels that read it, times their
        weights.

    Raises
    ------
    TypeError
        If ``dy`` is not an array of float32 or float64, or a size is not a whole number.
    ValueError
        If the shapes or parameters do not fit together.
    """
    dy, g = checks.upsample2d_gradient(dy, input_shape, size, scale_factor, mode, align_corners)
    if not dy.size:
        return np.zeros((g.N, g.C, g.H, g.W), dy.dtype)
    dx = empty((g.N, g.C, g.H, g.W), dy.dtype)
    plane = _nearest_backward_plane if mode == "nearest" else _bilinear_backward_plane
    places, weights = _tables(g, dy.dtype, mode, align_corners)
    run(plane, g.N * g.C, (g.H, g.W, g.oH, g.oW), dx, dy, weights, places=places)
    return dx


def _tables(g, dtype, mode, align_corners):
    """Return which rows and columns each output row and column reads, and for bilinear resizing their weights.

    The rows come first; for bilinear resizing, all upper ones before all lower ones, and so for the columns.
    """
    if mode == "nearest":
        places = np.empty(g.oH + g.oW, np.int64)
        _nearest_table_kernel(places[: g.oH], np.float32(g.step_h), g.H)
        _nearest_table_kernel(places[g.oH :], np.float32(g.step_w), g.W)
        return places, None
    half = dtype.type(0 if align_corners else 0.5)
    places, weights = np.empty(2 * (g.oH + g.oW), np.int64), np.empty(g.oH + g.oW, dtype)
    _bilinear_table_kernel(places[: 2 * g.oH], weights[: g.oH], dtype.type(g.step_h), g.H, half)
    _bilinear_table_kernel(places[2 * g.oH :], weights[g.oH :], dtype.type(g.step_w), g.W, half)
    return places, weights


@jit
def _nearest_table_kernel(table, step, size):
    for i in range(table.size):
        table[i] = _nearest_source(np.float32(i), step, size)


@jit
def _bilinear_table_kernel(table, weights, step, size, half):
    kind, count = weights.dtype.type, weights.size
    for i in range(count):
        table[i], table[count + i], weights[i] = _bilinear_source(kind(i), step, size, half)


@jit
def _nearest_forward_plane(arrays, sizes, plane):
    h, w, oh, ow = sizes[:4]
    x, y = arrays.a[plane * h * w : (plane + 1) * h * w], arrays.out[plane * oh * ow : (plane + 1) * oh * ow]
    rows, columns = arrays.places[:oh], arrays.places[oh : oh + ow]
    for row in range(oh):
        to, source = y[row * ow : (row + 1) * ow], x[rows[row] * w : (rows[row] + 1) * w]
        if row > 0 and rows[row] == rows[row - 1]:
            above = y[(row - 1) * ow : row * ow]
            for column in range(ow):
                to[column] = above[column]
        else:
            for column in range(ow):
                to[column] = source[columns[column]]


@jit
def _nearest_backward_plane(arrays, sizes, plane):
    h, w, oh, ow = sizes[:4]
    dx, dy = arrays.out[plane * h * w : (plane + 1) * h * w], arrays.a[plane * oh * ow : (plane + 1) * oh * ow]
    rows, columns = arrays.places[:oh], arrays.places[oh : oh + ow]
    dx[:] = 0
    for row in range(oh):
        to, source = dx[rows[row] * w : (rows[row] + 1) * w], dy[row * ow : (row + 1) * ow]
        for column in range(ow):
            to[columns[column]] += source[column]


@jit
def _bilinear_forward_plane(arrays, sizes, plane):
    h, w, oh, ow = sizes[:4]
    x, y = arrays.a[plane * h * w : (plane + 1) * h * w], arrays.out[plane * oh * ow : (plane + 1) * oh * ow]
    upper_rows, lower_rows = arrays.places[:oh], arrays.places[oh : 2 * oh]
    left, right = arrays.places[2 * oh : 2 * oh + ow], arrays.places[2 * oh + ow : 2 * (oh + ow)]
    row_weights, column_weights = arrays.b[:oh], arrays.b[oh : oh + ow]
    one = x.dtype.type(1)
    blend = np.empty(w, x.dtype)
    for row in range(oh):
        upper, lower = x[upper_rows[row] * w :], x[lower_rows[row] * w :]
        weight = row_weights[row]
        for column in range(w):
            blend[column] = upper[column] * (one - weight) + lower[column] * weight
        to = y[row * ow : (row + 1) * ow]
        for column in range(ow):
            weight = column_weights[column]
            to[column] = blend[left[column]] * (one - weight) + blend[right[column]] * weight


@jit
def _bilinear_backward_plane(arrays, sizes, plane):
    h, w, oh, ow = sizes[:4]
    dx, dy = arrays.out[plane * h * w : (plane + 1) * h * w], arrays.a[plane * oh * ow : (plane + 1) * oh * ow]
    left, right = arrays.places[2 * oh : 2 * oh + ow], arrays.places[2 * oh + ow : 2 * (oh + ow)]
    row_weights, column_weights = arrays.b[:oh], arrays.b[oh : oh + ow]
    one = dy.dtype.type(1)
    blend = np.empty(w, dx.dtype)
    dx[:] = 0
    for row in range(oh):
        blend[:] = 0
        source = dy[row * ow : (row + 1) * ow]
        for column in range(ow):
            weight = column_weights[column]
            blend[left[column]] += source[column] * (one - weight)
            blend[right[column]] += source[column] * weight
        for end in range(2):
            first, weight = arrays.places[end * oh + row] * w, row_weights[row]
            to, share = dx[first : first + w], weight if end else one - weight
            for column in range(w):
                to[column] += blend[column] * share
